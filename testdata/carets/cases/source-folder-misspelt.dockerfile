#: file src/app.py print()
FROM scratch
COPY scr/app.py /
