# syntax=a
FROM a
