FROM scratch AS a
COPY https://example.org/x /
