FROM scratch
COPY --chown=0:0 --chmod=0999 a b
