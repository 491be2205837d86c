FROM busybox AS first
COPY --from=later /x /
FROM busybox AS later
FROM first
