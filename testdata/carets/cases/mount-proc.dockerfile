FROM scratch
RUN --mount=type=cache,target=/tmp/c --mount=type=tmpfs,target=/proc/x true
