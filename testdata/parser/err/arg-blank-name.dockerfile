ARG =a b
FROM a
