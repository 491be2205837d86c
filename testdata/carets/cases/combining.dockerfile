FROM scratch
LABEL é=x b=${X^}
