FROM a AS b AS c
