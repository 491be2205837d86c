FROM scratch
ARG WHO=you
COPY <<hello.txt <<"raw.txt" /
hello $WHO
hello.txt
hello $WHO
raw.txt
