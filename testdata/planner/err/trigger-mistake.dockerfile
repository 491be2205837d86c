#: image odd {"OnBuild": ["RUN one", "COPY --chmod=99999 a /"]}
FROM odd
