FROM a
RUN a \
  b
COPY a	b
RUN <<EOF
x
EOF
CMD a