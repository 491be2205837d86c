#: --build-context busybox=docker-image://mirror.example.org/busybox:2
#: --build-context files=../files
#: --build-context repo=https://github.com/owner/repo.git#main
#: --build-context page=https://example.org/page.tar
#: --build-context layout=oci-layout://some/folder:tag
#: --build-context replaced=docker-image://other
#: --build-context empty=docker-image://scratch
FROM busybox AS a
COPY --from=files x /x
COPY --from=repo y /y
COPY --from=page z /z
COPY --from=layout /l /l
COPY --from=empty / /e
FROM nowhere AS replaced
RUN never
FROM a
COPY --from=replaced / /r
