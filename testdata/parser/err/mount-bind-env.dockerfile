FROM a
RUN --mount=target=/x,env=E y
