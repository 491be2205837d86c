FROM scratch
LABEL a="ÿþ" b=${X^}
