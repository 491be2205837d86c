FROM scratch
ADD https://github.com/owner/repo.git#v1:sub /src
ADD --keep-git-dir=true git@example.org:owner/repo.git /full
ADD --checksum=0123456789abcdef0123456789abcdef01234567 https://example.org/x.git /pinned
