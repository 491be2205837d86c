FROM scratch
ADD --keep-git-dir=true https://example.org/a.git?keep-git-dir=false /dst/
