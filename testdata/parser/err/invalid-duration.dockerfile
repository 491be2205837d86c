FROM a
HEALTHCHECK --interval=5 --timeout=x --start-period=$P CMD x
