FROM a
RUN --mount=type=cache,target x
RUN --mount=/host:/target x
