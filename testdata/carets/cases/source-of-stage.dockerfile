#: file a a
FROM scratch AS one
COPY a /a
FROM scratch
COPY --from=one /a /b/missing /dst/
