FROM a
LABEL a=Hello world
