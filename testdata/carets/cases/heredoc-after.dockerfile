FROM scratch
COPY <<EOF /a
FORM
EOF
FORM scratch
