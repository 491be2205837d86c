FROM a
ENV a=b c="d e" f='g h' i=j\ k l= m==n
ENV old new  value = x
LABEL a.b="c" \
  d=e
LABEL one two
ARG x y=1 z="a b"
