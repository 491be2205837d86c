#: image odd {"OnBuild": ["COPY --from=UPPER:a:b /x /"]}
FROM busybox AS other
FROM odd
