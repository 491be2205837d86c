FROM scratch
COPY a