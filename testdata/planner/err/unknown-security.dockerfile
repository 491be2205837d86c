FROM busybox
RUN --security=lax one
