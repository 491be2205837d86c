FROM a
COPY ["<<EOF", "/dest"]
