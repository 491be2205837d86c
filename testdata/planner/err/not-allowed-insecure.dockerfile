FROM busybox
RUN --security=insecure one
