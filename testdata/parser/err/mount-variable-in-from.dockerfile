FROM a
RUN --mount=from=$IMAGE,target=/x y
