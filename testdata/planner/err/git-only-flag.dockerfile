FROM scratch
ADD --keep-git-dir=true folder /
