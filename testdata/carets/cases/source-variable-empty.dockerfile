FROM scratch
ARG SRC
COPY ${SRC}/main.c /
