FROM scratch AS base
FROM UPPER/Case AS top
