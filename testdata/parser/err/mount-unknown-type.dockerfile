FROM a
RUN --mount=type=cahce,target=/c,required x
RUN --mount=type=foo x
