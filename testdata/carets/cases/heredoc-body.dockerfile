FROM scratch
COPY <<one <<two /dst/
a ${B^^} b
one
c
two
