FROM scratch
RUN cat <<EOF && true
hello
 EOF
