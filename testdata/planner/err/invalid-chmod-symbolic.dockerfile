FROM scratch
ARG M=u+q
COPY --chmod=$M a /
