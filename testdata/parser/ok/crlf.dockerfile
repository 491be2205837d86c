FROM a
RUN b \
  c
RUN <<EOF
x
EOF
