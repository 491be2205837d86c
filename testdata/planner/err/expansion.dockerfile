FROM busybox
RUN x
COPY ${unclosed /x
