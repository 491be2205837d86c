#: image python:3-onbuild {"Env": ["PATH=/bin"], "OnBuild": ["COPY --from=tools /t /t", "RUN pip install", "ENV A=b"]}
FROM python:3-onbuild
RUN own
