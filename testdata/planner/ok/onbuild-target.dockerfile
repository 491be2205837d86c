#: --target base
FROM busybox AS base
ONBUILD RUN a && b
ONBUILD COPY --from=build /x /
FROM nowhere
