FROM a
RUN --security=privileged x
