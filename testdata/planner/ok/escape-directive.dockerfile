# escape=`
#: --build-arg A=x
FROM busybox
ARG A
RUN one `
    two
COPY a\b c`$A /dest/
