FROM busybox AS Base
RUN a
FROM base
COPY --from=BASE /x /x
