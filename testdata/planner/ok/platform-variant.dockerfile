#: --platform linux/arm/v7
#: --multi-platform
FROM alpine AS app
ARG TARGETVARIANT
RUN echo $TARGETVARIANT
