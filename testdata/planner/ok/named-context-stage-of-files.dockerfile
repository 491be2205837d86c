#: --build-context files=../files
FROM busybox AS files
RUN never
FROM files
RUN on top
