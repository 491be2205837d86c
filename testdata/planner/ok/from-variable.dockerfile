#: --build-arg TAG=2
ARG TAG=1
ARG NAME=app:$TAG
FROM ${NAME}
