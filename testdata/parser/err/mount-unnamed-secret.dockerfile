FROM a
RUN --mount=type=secret,env=E y
