FROM a
LABEL version
