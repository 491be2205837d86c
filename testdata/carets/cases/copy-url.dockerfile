FROM scratch
COPY a https://example.org/x /dst/
