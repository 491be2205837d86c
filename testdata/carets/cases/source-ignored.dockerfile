#: file src/app.py print()
#: file .dockerignore docs\n*.log\nsrc/*.py\n
FROM scratch
COPY src/app.py /
