#: --no-cache-filter BUILD
FROM busybox AS build
RUN a
FROM build
RUN b
