FROM scratch
COPY --chown=1 \
     --chmod=999 \
     a b
