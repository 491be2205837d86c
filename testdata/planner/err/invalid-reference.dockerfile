FROM busybox AS build
FROM UPPER/Case
COPY --from=Buildd: /x /x
