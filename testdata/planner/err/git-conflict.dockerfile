FROM scratch
ADD --keep-git-dir=true https://example.org/x.git?keep-git-dir=false /
