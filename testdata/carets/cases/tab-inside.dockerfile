FROM scratch
COPY	--from=9	a	b
