FROM a AS b/c
FROM a AS ümlaut
