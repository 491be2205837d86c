#: option --build-context dep=nowhere
FROM scratch
COPY --from=dep a /
