# syntax=docker/dockerfile:1 --x
# escape=`
# check=skip=all;error=true

FROM a `
 AS b
RUN c:\d `
  e
