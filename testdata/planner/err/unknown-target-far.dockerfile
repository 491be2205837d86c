#: --target xyz
FROM busybox AS build
FROM busybox AS test
