FROM busybox
RUN echo "a  b" && \
    echo c
RUN ["/bin/echo", "$HOME", "x y"]
