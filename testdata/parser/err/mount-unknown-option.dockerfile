FROM a
RUN --mount=typ=cache,tarket=$x y
