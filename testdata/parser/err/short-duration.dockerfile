FROM a
HEALTHCHECK --interval=50ns --timeout=-1s CMD x
