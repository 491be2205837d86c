FROM --platform=a --platform=b c
RUN --network=none --network=host x
