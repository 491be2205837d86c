FROM --platform=linux/a/b/c/d busybox
