FROM scratch AS files
COPY dir /
FROM busybox
ARG A=1
ENV B="x y"
USER app
RUN one
RUN ["two", "words"]
RUN <<EOF
#!/bin/sh
three
EOF
RUN --network=none --mount=type=tmpfs,target=/tmp,size=1m --mount=type=secret,id=s,env=S --mount=type=ssh four
RUN --mount=type=cache,target=/c,id=x --mount=type=cache,target=/d,from=files,source=/sub five
RUN --mount=type=bind,from=files,source=/sub,target=/in six
RUN --mount=type=bind,target=/all --mount=type=bind,from=scratch,target=/empty,rw seven
