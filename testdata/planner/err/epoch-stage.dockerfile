#: --build-arg SOURCE_DATE_EPOCH=sources
FROM scratch AS sources
ADD https://example.org/x /
RUN make
FROM scratch
COPY --from=sources / /
