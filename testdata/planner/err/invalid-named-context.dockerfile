#: --build-context files=target:other
#: --build-context odd=docker-image://UPPER
FROM files
FROM odd
