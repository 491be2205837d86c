#: --build-arg SOURCE_DATE_EPOCH=page
#: --build-context page=https://example.org/page.tar
FROM scratch
COPY --from=page a /
