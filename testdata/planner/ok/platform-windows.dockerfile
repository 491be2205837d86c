#: --platform windows/amd64
FROM mcr.example.org/nanoserver
RUN dir
