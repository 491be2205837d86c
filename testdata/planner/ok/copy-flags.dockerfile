FROM busybox
ARG OWNER=app
COPY --chown=$OWNER:users --chmod=755 a /a
COPY --chmod=u=rwX,go-w b /b
COPY --link c /c
COPY --exclude=*.tmp --exclude=d/skip d /d
COPY --parents e/./f/*.txt g/h /p/
