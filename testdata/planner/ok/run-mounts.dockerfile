#: --build-arg BUILDKIT_CACHE_MOUNT_NS=team
FROM golang AS build
FROM busybox
WORKDIR /src
ARG DIR=/cache
RUN --mount=type=bind,target=. \
    --mount=type=bind,from=build,source=/usr/local/go,target=/go,rw \
    --mount=type=bind,from=tools:1,target=/tools \
    --mount=type=cache,target=$DIR,id=mods,sharing=locked,mode=0700,uid=5 \
    --mount=type=cache,target=rel,from=build,source=/seed \
    --mount=type=tmpfs,target=/tmp,size=64m \
    --mount=type=secret,id=token \
    --mount=type=secret,id=key,env=KEY,required \
    --mount=type=secret,id=npm,target=/root/.npmrc,mode=0440,uid=1 \
    --mount=type=ssh \
    --mount=type=ssh,id=deploy,target=/agent \
    make
