#: file a a
#: file c c
FROM scratch
COPY a \
     b/missing \
     c /dst/
