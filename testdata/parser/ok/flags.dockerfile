FROM a
COPY --from="x" --exclude=*.md --exclude=a\ b --parents -- --a --b
RUN -- --x
CMD --
