FROM scratch
RUN --security=none \

  true
