#: --target SMALL
FROM unknown:1 AS unused
RUN never
FROM busybox AS small
COPY a /
FROM unknown:2 AS last
COPY --from=unused / /
