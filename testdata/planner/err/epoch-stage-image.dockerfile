#: --build-arg SOURCE_DATE_EPOCH=sources
FROM busybox AS sources
ADD https://example.org/x /
FROM scratch
COPY --from=sources / /
