# escape=x
# syntax=example/other
FROM scratch
