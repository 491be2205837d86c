#: file a a
FROM scratch
COPY --chown=nobody a /
