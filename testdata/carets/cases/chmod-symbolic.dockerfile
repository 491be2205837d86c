FROM scratch
COPY --chmod=u=rwq a b
