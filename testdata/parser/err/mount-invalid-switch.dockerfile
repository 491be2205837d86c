FROM a
RUN --mount=target=/c,rw=maybe x
