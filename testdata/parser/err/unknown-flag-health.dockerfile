FROM a
HEALTHCHECK --intervall=5s CMD x
