ARG TAG=3.20
# base is what all build on
FROM --platform=$BUILDPLATFORM alpine:${TAG} AS base
from base As Out
COPY --from=base --chown=1:2 --chmod=0755 --link /a /b /c/
ADD --checksum=sha256:ab --keep-git-dir --unpack=false https://x/y.git /src
