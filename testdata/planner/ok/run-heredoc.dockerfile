FROM busybox
RUN <<EOF
echo one
echo two
EOF
RUN <<EOF
#!/usr/bin/env python3
print("hello")
EOF
RUN cat <<A - <<B
from a
A
from b
B
