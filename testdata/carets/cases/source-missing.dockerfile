#: file src/app.py print()
FROM scratch
COPY src/app.pi /
