FROM busybox
COPY --from=7 /x /
COPY --from=-1 /x /
