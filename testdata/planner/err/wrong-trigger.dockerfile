#: image odd {"OnBuild": ["FROM busybox"]}
FROM odd
