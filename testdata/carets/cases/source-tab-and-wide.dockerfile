#: file 名/a a
FROM scratch
COPY	名/a	名/b /dst/
