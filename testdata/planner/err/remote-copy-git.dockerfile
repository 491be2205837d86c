FROM scratch
COPY https://github.com/owner/repo.git /
