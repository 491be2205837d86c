FROM scratch
COPY --chmod=9999 a /
