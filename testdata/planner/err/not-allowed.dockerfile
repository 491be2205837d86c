FROM busybox
RUN --network=host one
