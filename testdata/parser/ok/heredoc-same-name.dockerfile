FROM a
COPY <<EOF <<EOF /dest/
first
EOF
second
EOF
