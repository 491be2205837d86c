ARG SOURCE_DATE_EPOCH=Sources
FROM scratch AS sources
ADD https://github.com/owner/repo.git#v1 /
FROM scratch
COPY --from=sources / /src
