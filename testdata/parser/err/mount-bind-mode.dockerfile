FROM a
RUN --mount=target=/x,mode=0700 y
RUN --mount=type=tmpfs,target=/x,uid=1 y
