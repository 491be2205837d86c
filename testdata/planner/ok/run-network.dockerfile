#: --allow network.host
#: --allow security.insecure
FROM busybox
RUN --network=none one
RUN --network=host two
RUN --network=default three
RUN --security=insecure four
