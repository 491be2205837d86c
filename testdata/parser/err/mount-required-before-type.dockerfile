FROM a
RUN --mount=required,type=secret,id=s x
