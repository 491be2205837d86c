FROM scratch
ADD --checksum=sha256:12 https://example.org/a /
