#: --build-arg SOURCE_DATE_EPOCH=context
FROM scratch
ARG SOURCE_DATE_EPOCH
COPY a /
