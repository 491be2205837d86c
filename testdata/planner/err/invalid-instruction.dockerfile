FROM busybox
RUNN make
COPY a
FROM
