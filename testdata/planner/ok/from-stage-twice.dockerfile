FROM busybox AS base
RUN one
FROM base AS left
RUN two
FROM base
COPY --from=left /x /x
