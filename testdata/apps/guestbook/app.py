"""A guestbook that forgets: entries live as long as the process."""

import os
import sys
from importlib.metadata import version

import flask

app = flask.Flask(__name__)
entries = []


@app.get("/")
def index():
    return app.send_static_file("index.html")


@app.post("/entries")
def add():
    entries.append(flask.request.get_json()["text"])
    return {"number": len(entries)}, 201


@app.get("/entries")
def show():
    return {
        "entries": entries,
        "user": os.getuid(),
        "python": sys.version.split()[0],
        "flask": version("flask"),
    }
