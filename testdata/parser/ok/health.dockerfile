FROM a
HEALTHCHECK NONE
HEALTHCHECK --bogus none
HEALTHCHECK --interval=1m30s --timeout=1.5s --start-period=0 --start-interval=5s --retries=3 \
  CMD curl -f localhost
HEALTHCHECK cmd ["a"]
