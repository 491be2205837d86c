FROM a
RUN --mount=type=cache,target=/c,mode=9 x
