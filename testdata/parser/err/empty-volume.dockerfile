FROM a
VOLUME ["", "/x", " "]
