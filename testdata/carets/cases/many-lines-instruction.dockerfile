FROM scratch
HEALTHCHECK --interval=1ms \
  --timeout=x \
  CMD true
