FROM scratch AS files
COPY a /
COPY --chown=1:2 --chmod=u=rwX,go= dir/ /dir/
COPY --link --exclude=**/c dir /linked
COPY --parents dir/*/c a /p/
COPY <<text /inline
hello
text
WORKDIR /work
FROM scratch
COPY --from=files /dir /again
COPY --from=files --parents /p/./dir/**/c <<two /many/
2
two
ADD a /plain
