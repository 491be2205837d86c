FROM busybox
ARG ID=1000
USER ${ID}:${ID}
RUN id
USER root
