# syntax=a
# syntax=b
FORM x
FROM a AS 1
RUN --mount=type=cahce,target=/a --network=x y
COPY --fron=a b
ENV a
HEALTHCHECK FOO
