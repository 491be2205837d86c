#: image app {"Env": ["PATH=/x", "A=1"], "User": "u", "WorkingDir": "/w", "Labels": {"l": "1"}, "Volumes": {"/v": {}}, "ExposedPorts": {"1/tcp": {}}, "StopSignal": "SIGINT", "Shell": ["/bin/ash", "-c"], "Custom": 1}
FROM app
COPY x y
RUN z
