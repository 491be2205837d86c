FROM a
RUN --mount=type=cache,target=/c,uid=me,gid=-1 x
