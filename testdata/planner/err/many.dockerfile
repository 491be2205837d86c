ARG A=${
FROM
FROM Wrong/Name
FROM --platform=x/y/z/a/b busybox
