FROM busybox
RUN --mount=type=bind,target=/ one
