"""What is built, and what the machine itself takes for the same work."""
import os, random, shutil


def write(path, data):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(data)


def dockerfile(folder, text):
    write(folder + "/Dockerfile", text.encode())


# ---- inputs; `scale` makes smaller ones for a smoke test

def three_files(d, base, scale=1):
    dockerfile(d, f"FROM {base}\nWORKDIR /app\nCOPY a.txt b.txt c.txt ./\nRUN cat a.txt b.txt c.txt > all.txt\nCMD [\"cat\", \"all.txt\"]\n")
    for n in "abc":
        write(f"{d}/{n}.txt", n.encode() * 1000)


def steps(d, base, scale=1, n=50):
    dockerfile(d, f"FROM {base}\n" + "".join(f"RUN echo {i} > /file-{i}\n" for i in range(max(2, int(n * scale)))))


def files(d, base, scale=1, n=10_000):
    """Files of 600 to 3,600 bytes, 50 in a folder."""
    dockerfile(d, f"FROM {base}\nCOPY src /src\n")
    rnd = random.Random(n)
    for i in range(int(n * scale)):
        write(f"{d}/src/{i // 1000}/{i // 50 % 20}/file-{i}.js", rnd.randbytes(300).hex().encode() * rnd.randint(1, 6))


def big(d, base, scale=1, megabytes=330):
    """Files of 10 MB. A third does not compress, the rest does as text."""
    dockerfile(d, f"FROM {base}\nCOPY data /data\n")
    rnd = random.Random(megabytes)
    words = [rnd.randbytes(rnd.randint(2, 9)).hex().encode() for _ in range(4000)]
    for i in range(max(2, int(megabytes * scale) // 10)):
        half = b" ".join(rnd.choices(words, k=1 << 19))
        write(f"{d}/data/part-{i:02}", rnd.randbytes(10_000_000) if i % 3 == 0 else (half * 3)[:10_000_000])


LOOP = "for i in $(seq %d); do mkdir $i; for j in $(seq 100); do echo $i.$j > $i/$j; done; done"


def run_writes(d, base, scale=1, n=30_000):
    dockerfile(d, f"FROM {base}\nRUN mkdir /out && cd /out && {LOOP % max(1, int(n * scale) // 100)}\n")


def stages(d, base, scale=1):
    text = "".join(f"FROM {base} AS s{i}\nRUN sleep 1 && echo {i} > /out\n" for i in range(6))
    dockerfile(d, text + f"FROM {base}\n" + "".join(f"COPY --from=s{i} /out /out-{i}\n" for i in range(6)))


def change_one(d, nth):
    path = f"{d}/src/0/7/file-350.js"
    write(path if os.path.exists(path) else f"{d}/src/0/0/file-0.js", b"changed %d\n" % nth)


# ---- the machine's limits: shell commands in a folder of their own, `IN` is the input, `OUT` a name in it

LIMITS = {
    "fork+exec": "/bin/true",
    "stat": "find IN/src -printf %s >/dev/null",
    "steps": "for i in $(seq 50); do /bin/sh -c \"echo $i > OUT-$i\"; done",
    "cp": "cp -r IN/src OUT",
    "create": f"mkdir OUT && cd OUT && {LOOP % 300}",
    "cp+sha256": "cp -r IN/data OUT && cat IN/data/* | sha256sum",
    "compressor": "COMPRESS IN.tar OUT",
    "sleep": "sleep 1",
}


class Case:
    def __init__(self, what, make, state, limit, export=None, bounds=()):
        # `bounds`: (what is compared, which of the tools or "limit" or "seconds", at least or at most).
        self.what, self.make, self.state, self.limit, self.export, self.bounds = what, make, state, limit, export, bounds


CASES = {
    "three-files-cached": Case("3-file project, nothing changed", three_files, "cached", "fork+exec", bounds=[("faster", "docker", 10)]),
    "files-10k-cached": Case("10,000 files, nothing changed", files, "cached", "stat", bounds=[("faster", "docker", 6)]),
    "files-10k-changed": Case("10,000 files, one changed", files, "changed", "stat", bounds=[("faster", "docker", 8)]),
    "steps-50-cold": Case("50 RUN steps", steps, "cold", "steps", bounds=[("faster", "docker", 10)]),
    "copy-10k-cold": Case("COPY of 10,000 files", files, "cold", "cp", bounds=[("faster", "docker", 6)]),
    "run-30k-files": Case("RUN writes 30,000 files", run_writes, "cold", "create", bounds=[("faster", "docker", 3)]),
    "six-stages": Case("six stages of 1 s", stages, "cold", "sleep", bounds=[("seconds", "kiln", 1.15)]),
    "copy-330mb-store": Case("COPY of 330 MB", big, "cold", "cp+sha256", bounds=[("within", "limit", 2.0)]),
    "copy-330mb-oci": Case("330 MB to an OCI archive, gzip", big, "cold", "compressor", "oci", [("faster", "docker", 4), ("within", "limit", 1.3)]),
}


def limit_command(case, folder, d, tar, compress):
    """The shell command of a case's limit, in `folder`, which is emptied."""
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    text = LIMITS[case.limit]
    for name, value in (("COMPRESS", compress or "false"), ("IN.tar", tar or ""), ("IN", d), ("OUT", folder + "/out")):
        text = text.replace(name, value)
    return ["sh", "-c", text] if case.limit != "fork+exec" else [text]
