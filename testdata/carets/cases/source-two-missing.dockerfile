FROM scratch
COPY one /
ADD two /
