FROM busybox
ARG V=1.2.3 W
ENV DEFAULT=${W:-none} SET=${V:+yes} CUT=${V%.*} SHORT=${V%%.*} REST=${V#*.} SWAP=${V/./-} ALL=${V//./_}
LABEL "quoted $V"='single $V' esc=\$V
