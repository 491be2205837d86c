

#  syntax=docker/dockerfile:1   
# escape=\


# The base.
arg   VERSION=1.2    other="a   b"
from --platform=$BUILDPLATFORM   golang:${VERSION}   as   build



  # An indented comment stays where it is.
  workdir    /src   with   blanks
env A=1   B='2  3'\
	C="4   \
	   5"
Env LEGACY    the  value   is  all  of  it
label	one=1 \
  # why two
     two=2 \

     three=3
copy --link    --chown=1:1 \
        go.mod   go.sum \
  ./
RUN   --mount=type=cache,target=/root/.cache   --network=none   \
        go   mod   download   &&   \   
  # a comment inside
  echo   'a   b'
run ["go",   "build"  ,"-o", "/out\t/app"]
COPY   <<-EOF    <<"B"   /etc/
	   kept   as it is   

	EOF
copy   is not an instruction here
B
HEALTHCHECK   --interval=30s   cmd   curl   -f   http://localhost
healthcheck none
onbuild   run   go   test   ./...  
onbuild   copy   .    /src
EXPOSE 80/tcp     443
VOLUME   [ "/data" , \
  "/more" ]
Shell [  "/bin/sh","-c"  ]
entrypoint [ "app" ]
CMD   app   --serve
# The end.


