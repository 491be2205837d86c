FROM scratch AS builder
FROM scratch
COPY --from=Builder_x:: a b
