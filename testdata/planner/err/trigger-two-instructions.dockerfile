#: image odd {"OnBuild": ["RUN one\nRUN two"]}
FROM odd
