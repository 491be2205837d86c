# syntax=docker/dockerfile:1
# Built nightly.
# kiln=stric-heredoc, fast
FROM scratch
