FROM scratch
ARG M=abc
RUN --mount=type=cache,target=/c,mode=$M true
