#: --network bridge
FROM busybox
RUN one
