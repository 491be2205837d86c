FROM scratch
ONBUILD COPY --form=x a b
ONBUILD FROM x
