#: image looped {"OnBuild": ["COPY --from=last /x /"]}
FROM looped AS first
FROM busybox AS last
COPY --from=first /x /
