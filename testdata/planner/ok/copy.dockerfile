FROM scratch
COPY a b/ ./c/../d /dest/
COPY . .
COPY *.go /src/
WORKDIR /work
COPY x y
COPY x sub/
COPY x ../up
