#: option --build-context dep=docker-image://Not/Valid:::
FROM scratch AS a
COPY --from=dep x y
