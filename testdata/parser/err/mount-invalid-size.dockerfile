FROM a
RUN --mount=type=tmpfs,target=/c,size=big x
