FROM scratch
ADD a.tar.gz plain /
ADD --unpack=false a.tar.gz /kept/
ADD https://example.org/dir/file%20name.tgz?x=1 /dl/
ADD --checksum=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 https://example.org/f /f
ADD --unpack=true https://example.org/g.tgz /g
