FROM a
ONBUILD RUN a && b
onbuild   copy --from=x a b
ONBUILD FOO x
