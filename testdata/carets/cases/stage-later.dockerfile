FROM scratch AS first
COPY --from=second /x /y
FROM scratch AS second
FROM first
