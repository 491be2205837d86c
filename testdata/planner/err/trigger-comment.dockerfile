#: image odd {"OnBuild": ["# nothing"]}
FROM odd
