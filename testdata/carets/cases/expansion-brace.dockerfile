FROM scratch
ENV OK=1 \
    BAD=${B
