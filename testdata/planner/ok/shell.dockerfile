FROM busybox
SHELL ["/bin/bash", "-eo", "pipefail", "-c"]
RUN a | b
CMD c
ENTRYPOINT d
