FROM scratch
RUN --network=host \
    # why not
    --nope=1 \
    true
