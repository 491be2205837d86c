FROM scratch
ADD https://example.org/x.git?ref=a&branch=b /
