FROM scratch
ENV 名前=値 BAD=${B^}
