FROM busybox
RUN --device=vendor.com/class=name one
