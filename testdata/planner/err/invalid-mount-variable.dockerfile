FROM busybox
ARG S=sometimes
RUN --mount=type=cache,target=/x,sharing=$S one
