FROM a
RUN --mount=target=/t,size=1m,type=tmpfs x
