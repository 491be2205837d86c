FROM scratch
ADD https://example.org/a.git?nosuch=1 /dst/
