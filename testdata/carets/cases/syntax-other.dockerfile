# syntax=example.org/other/frontend:1
FROM scratch
