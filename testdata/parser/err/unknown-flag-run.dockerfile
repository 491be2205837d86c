FROM a
RUN --mont=type=cache x
