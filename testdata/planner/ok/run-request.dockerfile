#: --network none
#: --add-host db=10.0.0.7
#: --shm-size 1048576
#: --ulimit nofile
#: --cgroup-parent /builds
#: --build-arg HTTP_PROXY=http://proxy:3128
#: --build-arg no_proxy=local
#: --build-arg BUILDKIT_SANDBOX_HOSTNAME=builder
FROM busybox
RUN one
ARG HTTP_PROXY
RUN two
