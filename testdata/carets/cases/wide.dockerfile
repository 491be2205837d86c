FROM scratch
COPY 漢字/ファイル --chwn=1 /
LABEL 漢字="値" --from 値
