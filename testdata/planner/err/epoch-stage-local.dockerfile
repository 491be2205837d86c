#: --build-arg SOURCE_DATE_EPOCH=sources
FROM scratch AS sources
ADD local /
FROM scratch
COPY --from=sources / /
