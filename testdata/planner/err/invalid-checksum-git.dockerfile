FROM scratch
ADD --checksum=nothex https://example.org/x.git /
