# escape=`
# A licence, for example.
#   Kiln = strict-heredoc

# check=skip=all
FROM scratch
# kiln=other
RUN <<EOF
a
EOF
