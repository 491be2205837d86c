FROM a
COPY --form=b c d
COPY --user=me c d
