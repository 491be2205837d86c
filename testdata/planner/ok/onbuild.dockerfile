FROM busybox AS base
ONBUILD COPY . /app
ONBUILD RUN make
ONBUILD ARG V=1
FROM base AS app
RUN later
FROM app
RUN last
