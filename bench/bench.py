"""Builds the same generated inputs with kiln, docker build and buildah, and compares times and peak memory.

Called by bench/run, which starts the registry and dockerd. What is measured:

- The clock runs from the start of the command to its end, standard output and error going to a file.
- Tools take turns within each round, and the order rotates from round to round; figures are medians.
- Before every run the disk is synced. Inputs are in the page cache for all.
- cold: the builder has the base image, and nothing else: step cache, context cache and earlier results are gone
  (kiln: a copy of a store that pulled the base; docker: builder prune and the image removed; buildah: all images but
  the base removed). cached: the same build was made just before. changed: the same, then one file was changed.
- Every tool builds on the host network and keeps the result under a tag in its own store. buildah caches steps
  (--layers) and runs stages side by side (--jobs). Debian's docker cannot write OCI archives, so skopeo does that step for it.
- Memory is taken in runs of its own, by reading /proc every 5 ms: the resident memory of the whole process tree, for
  docker the client's and the daemon's trees together. Processes of RUN are part of every tree.
"""
import argparse, json, os, platform, random, re, shutil, signal, statistics, subprocess, sys, threading, time

HERE = os.path.dirname(os.path.abspath(__file__))
LIMITS = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"]


# ---- inputs

def write(path, data):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(data)


def three_files(d, base):
    write(d + "/Dockerfile", f"FROM {base}\nWORKDIR /app\nCOPY a.txt b.txt c.txt ./\nRUN cat a.txt b.txt c.txt > all.txt\nCMD cat all.txt\n".encode())
    for n in "abc":
        write(f"{d}/{n}.txt", n.encode() * 1000)


def steps(d, base, n=50):
    write(d + "/Dockerfile", (f"FROM {base}\n" + "".join(f"RUN echo {i} > /file-{i}\n" for i in range(n))).encode())


def files(d, base, n=10_000):
    write(d + "/Dockerfile", f"FROM {base}\nCOPY src /src\n".encode())
    rnd = random.Random(n)
    for i in range(n):
        write(f"{d}/src/{i // 1000}/{i // 50 % 20}/file-{i}.js", rnd.randbytes(300).hex().encode() * rnd.randint(1, 6))


def big(d, base, megabytes=330):
    """A third does not compress, the rest does as text."""
    write(d + "/Dockerfile", f"FROM {base}\nCOPY data /data\n".encode())
    rnd = random.Random(megabytes)
    words = [rnd.randbytes(rnd.randint(2, 9)).hex().encode() for _ in range(4000)]
    for i in range(megabytes // 10):
        half = b" ".join(rnd.choices(words, k=1 << 19))
        write(f"{d}/data/part-{i:02}", rnd.randbytes(10_000_000) if i % 3 == 0 else (half * 3)[:10_000_000])


def run_writes(d, base):
    write(d + "/Dockerfile", f"FROM {base}\nRUN mkdir /out && cd /out && for i in $(seq 300); do mkdir $i; for j in $(seq 100); do echo $i.$j > $i/$j; done; done\n".encode())


def stages(d, base):
    text = "".join(f"FROM {base} AS s{i}\nRUN sleep 1 && echo {i} > /out\n" for i in range(6))
    write(d + "/Dockerfile", (text + f"FROM {base}\n" + "".join(f"COPY --from=s{i} /out /out-{i}\n" for i in range(6))).encode())


def change_one(d, round_):
    write(d + "/src/5/7/file-5350.js", b"changed %d\n" % round_)


# name: (what, how to make the input, state before the run, export, ratio to docker that part 1 of the work asks for)
CASES = {
    "three-files-cached": ("3-file project, nothing changed", three_files, "cached", None, 3),
    "steps-50-cold": ("50 RUN steps", steps, "cold", None, 3),
    "copy-10k-cold": ("COPY of 10,000 files", files, "cold", None, 2),
    "copy-10k-cached": ("10,000 files, nothing changed", files, "cached", None, None),
    "copy-10k-changed": ("10,000 files, one changed", files, "changed", None, None),
    "copy-330mb-oci": ("330 MB to an OCI archive, gzip", big, "cold", "oci", None),
    "run-30k-files": ("RUN writes 30,000 files", run_writes, "cold", None, None),
    "six-stages": ("six stages of 1 s", stages, "cold", None, None),
}
QUICK = ["three-files-cached", "steps-50-cold", "copy-10k-cold", "copy-10k-changed"]


# ---- tools

class Tool:
    env = {}
    daemon = None

    def __init__(self, a):
        self.a = a

    def sh(self, cmd, ok=False):
        p = subprocess.run(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, **self.env})
        if p.returncode and not ok:
            sys.exit(f"bench: {self.name}: {' '.join(cmd)}: status {p.returncode}\n{p.stdout.decode(errors='replace')[-1500:]}")
        return p.stdout.decode(errors="replace")


class Kiln(Tool):
    name = "kiln"

    def __init__(self, a):
        super().__init__(a)
        self.bin, self.root = os.environ["KILN"], os.environ["KILN_ROOT"]
        self.sh([self.bin, "pull", a.base])
        # A first build unpacks the base, as any earlier build on it would have done.
        d = a.work + "/kiln-warm"
        write(d + "/Dockerfile", f"FROM {a.base}\nRUN true\n".encode())
        self.sh([self.bin, "build", "--network", "host", "-q", "-t", "warm", d])
        self.sh([self.bin, "rmi", "warm"], ok=True)
        self.sh([self.bin, "system", "prune", "--force"], ok=True)
        self.sh(["cp", "-a", self.root, self.root + ".base"])

    def version(self):
        return self.sh([self.bin, "version"]).split("\n")[0]

    def clear(self):
        self.sh(["rm", "-rf", "--one-file-system", self.root])
        self.sh(["cp", "-a", self.root + ".base", self.root])

    def build(self, d, out):
        export = ["-o", f"type=oci,dest={out}"] if out else []
        return [[self.bin, "build", "--progress", "plain", "--network", "host", "-t", "bench", *export, d]]


class Docker(Tool):
    name = "docker"
    env = {"DOCKER_BUILDKIT": "1"}

    def __init__(self, a):
        super().__init__(a)
        self.env = {**self.env, "DOCKER_CONFIG": a.work + "/docker-config"}
        self.host = f"unix://{a.work}/dockerd/sock"
        self.cli = ["/usr/bin/docker", "-H", self.host]
        self.daemon = a.dockerd
        self.sh([*self.cli, "pull", "-q", a.base])

    def version(self):
        return self.sh([*self.cli, "version", "--format", "docker {{.Server.Version}}, BuildKit within"]).strip()

    def clear(self):
        self.sh([*self.cli, "rmi", "-f", "bench"], ok=True)
        self.sh([*self.cli, "builder", "prune", "-af"])

    def build(self, d, out):
        cmds = [[*self.cli, "build", "--progress", "plain", "--network", "host", "-t", "bench", d]]
        if out:
            cmds.append(["skopeo", "copy", "-q", "--src-daemon-host", self.host, "docker-daemon:bench:latest", f"oci-archive:{out}"])
        return cmds


class Buildah(Tool):
    name = "buildah"

    def __init__(self, a):
        super().__init__(a)
        os.environ.pop("DOCKER_CONFIG", None)
        self.cli = ["buildah", "--root", a.work + "/buildah/root", "--runroot", a.work + "/buildah/run", "--storage-driver", "overlay"]
        self.sh([*self.cli, "pull", "-q", "--tls-verify=false", a.base])

    def version(self):
        return " ".join(self.sh([*self.cli, "--version"]).split()[:3])

    def clear(self):
        self.sh([*self.cli, "rmi", "-f", "localhost/bench"], ok=True)
        self.sh([*self.cli, "rmi", "--prune", "-f"], ok=True)

    def build(self, d, out):
        cmds = [[*self.cli, "build", "--layers", "--jobs", "6", "--isolation", "oci", "--runtime", "/usr/sbin/runc", "--network", "host", *LIMITS, "--tls-verify=false", "-t", "bench", d]]
        if out:
            cmds.append([*self.cli, "push", "-q", "bench", f"oci-archive:{out}"])
        return cmds


# ---- measuring

def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as f:
            direct = f.read().split()
        more = [t for t in os.listdir(f"/proc/{pid}/task") if t != str(pid)]
        for t in more:
            with open(f"/proc/{pid}/task/{t}/children") as f:
                direct += f.read().split()
    except OSError:
        return []
    return [int(c) for c in direct]


def resident(pid):
    """Bytes held by a process tree. A page shared by two of its processes counts twice."""
    try:
        with open(f"/proc/{pid}/statm") as f:
            n = int(f.read().split()[1]) * 4096
    except (OSError, IndexError):
        return 0
    return n + sum(resident(c) for c in children(pid))


class Peak(threading.Thread):
    def __init__(self, roots):
        super().__init__(daemon=True)
        self.roots, self.peak, self.over = roots, 0, threading.Event()

    def run(self):
        while not self.over.is_set():
            self.peak = max(self.peak, sum(resident(r) for r in self.roots))
            self.over.wait(0.005)

    def end(self):
        self.over.set()
        self.join()
        return self.peak


def timed(tool, cmds, log, memory=False):
    """Seconds of the commands in a row, or their peak memory."""
    total, peak = 0.0, 0
    with open(log, "wb") as f:
        for cmd in cmds:
            t = time.perf_counter()
            p = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=f, stderr=subprocess.STDOUT, env={**os.environ, **tool.env})
            watch = Peak([p.pid] + ([tool.daemon] if tool.daemon else [])) if memory else None
            if watch:
                watch.start()
            _, status, usage = os.wait4(p.pid, 0)
            p.returncode = os.waitstatus_to_exitcode(status)
            total += time.perf_counter() - t
            if watch:
                peak = max(peak, watch.end(), usage.ru_maxrss * 1024)
            if p.returncode:
                sys.exit(f"bench: {tool.name}: {' '.join(cmd)}: status {p.returncode}\n" + open(log, errors="replace").read()[-1500:])
    return peak if memory else total


def prepare(tool, state, d, out, log, round_):
    if state == "cold":
        tool.clear()
    elif round_ == 0:
        tool.clear()
        timed(tool, tool.build(d, out), log)
    if state == "changed":
        change_one(d, round_)
    if out and os.path.exists(out):
        os.remove(out)
    os.sync()


def measure(case, tools, a):
    what, make, state, export, _ = CASES[case]
    secs, mem = {t.name: [] for t in tools}, {}
    # Each tool has its own copy of the input, so that a change is new to each.
    inputs = {}
    for t in tools:
        inputs[t.name] = f"{a.work}/input/{case}/{t.name}"
        make(inputs[t.name], a.base)
    for r in range(a.runs + 1):
        for t in tools[r % len(tools):] + tools[:r % len(tools)]:
            d, log = inputs[t.name], f"{a.work}/log/bench-{t.name}"
            out = f"{a.work}/out-{t.name}.tar" if export else None
            prepare(t, state, d, out, log, r)
            memory = r == a.runs
            v = timed(t, t.build(d, out), log, memory)
            if memory:
                mem[t.name] = v
            else:
                secs[t.name].append(v)
            if out and os.path.exists(out):
                os.remove(out)
    for t in tools:
        t.clear()
    shutil.rmtree(f"{a.work}/input/{case}")
    return {"what": what, "state": state, "seconds": secs, "median": {n: statistics.median(v) for n, v in secs.items()}, "peak_bytes": mem}


def limits(a):
    """What the machine itself takes for the same work, each once more than needed and the best taken."""
    d = a.work + "/limits"
    files(d + "/files", "x")
    big(d + "/big", "x")

    def best(cmd, n=3, clean=None):
        ts = []
        for _ in range(n):
            if clean:
                subprocess.run(["rm", "-rf", clean])
            os.sync()
            t = time.perf_counter()
            subprocess.run(["sh", "-c", cmd], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            ts.append(time.perf_counter() - t)
        return min(ts)

    o = d + "/o"
    res = {
        "cp -r of 10,000 files": best(f"cp -r {d}/files/src {o}", clean=o),
        "cp -r of 330 MB": best(f"cp -r {d}/big/data {o}", clean=o),
        "sha256sum of 330 MB": best(f"cat {d}/big/data/* | sha256sum"),
        "tar and gzip -6 of 330 MB": best(f"tar -C {d}/big -cf - data | gzip -6 > {o}", n=1, clean=o),
        "creating 30,000 files": best(f"mkdir {o} && cd {o} && for i in $(seq 300); do mkdir $i; for j in $(seq 100); do echo $i.$j > $i/$j; done; done", clean=o),
    }
    t = time.perf_counter()
    for _ in range(200):
        os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
    res["fork and exec, once"] = (time.perf_counter() - t) / 200
    shutil.rmtree(d)
    return res


# ---- what comes out

def show(results, names):
    def ratio(r, n):
        return f"{r['median'][n] / r['median']['kiln']:.1f}×" if "kiln" in r["median"] and n != "kiln" else ""
    head = ["case"] + [x for n in names for x in ([n] if n == "kiln" or "kiln" not in names else [n, "/ kiln"])]
    rows = [[r["what"]] + [x for n in names for x in ([f"{r['median'][n]:.3f} s"] if n == "kiln" or "kiln" not in names else [f"{r['median'][n]:.3f} s", ratio(r, n)])] for r in results["cases"].values()]
    table("medians", head, rows)
    table("peak memory", ["case"] + names, [[r["what"]] + [f"{r['peak_bytes'][n] / 1e6:.0f} MB" for n in names] for r in results["cases"].values()])
    if results["limits"]:
        table("limits of the machine", ["what", ""], [[k, f"{v:.4f} s"] for k, v in results["limits"].items()])


def table(title, head, rows):
    w = [max(len(r[i]) for r in [head] + rows) for i in range(len(head))]
    print(f"\n{title}")
    for r in [head] + rows:
        print("  " + "  ".join(c.ljust(w[0]) if i == 0 else c.rjust(w[i]) for i, c in enumerate(r)).rstrip())


def svg(results, names, path):
    """Grouped bars on a logarithmic axis."""
    import math
    colour = {"kiln": "#d1495b", "docker": "#2e86ab", "buildah": "#9aa5b1"}
    cases = list(results["cases"].values())
    bar, gap, left, width = 14, 18, 240, 620
    lo, hi = -2.5, max(1.0, math.ceil(math.log10(max(m for r in cases for m in r["median"].values())) * 2) / 2)
    x = lambda s: left + (max(math.log10(max(s, 1e-4)), lo) - lo) / (hi - lo) * width
    height = 50 + len(cases) * (bar * len(names) + gap) + 30
    o = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 90}" height="{height}" font-family="sans-serif" font-size="12">',
         '<rect width="100%" height="100%" fill="white"/>',
         '<text x="10" y="20" font-size="14">Seconds, median, logarithmic: shorter is better</text>']
    for i, n in enumerate(names):
        o.append(f'<rect x="{left + i * 90}" y="28" width="12" height="12" fill="{colour[n]}"/><text x="{left + 17 + i * 90}" y="38">{n}</text>')
    for p in range(math.ceil(lo), math.floor(hi) + 1):
        o.append(f'<line x1="{x(10 ** p):.1f}" x2="{x(10 ** p):.1f}" y1="46" y2="{height - 24}" stroke="#ddd"/><text x="{x(10 ** p):.1f}" y="{height - 8}" text-anchor="middle">{10 ** p:g} s</text>')
    y = 52
    for r in cases:
        o.append(f'<text x="{left - 10}" y="{y + bar * len(names) / 2 + 4}" text-anchor="end">{r["what"]}</text>')
        for n in names:
            m = r["median"][n]
            o.append(f'<rect x="{left}" y="{y}" width="{max(1, x(m) - left):.1f}" height="{bar - 2}" fill="{colour[n]}"/><text x="{x(m) + 5:.1f}" y="{y + bar - 3}">{m:.3g}</text>')
            y += bar
        y += gap
    with open(path, "w") as f:
        f.write("\n".join(o + ["</svg>", ""]))


def check(results):
    """The bounds that part 1 asks for; returns how many do not hold."""
    bad = 0
    print("\nbounds")
    for c, r in results["cases"].items():
        want = CASES[c][4]
        if want and {"kiln", "docker"} <= set(r["median"]):
            got = r["median"]["docker"] / r["median"]["kiln"]
            bad += got < want
            print(f"  {'ok  ' if got >= want else 'FAIL'}  {r['what']}: docker takes {got:.1f} times as long, at least {want} is asked for")
    for r in results["cases"].values():
        if r["peak_bytes"].get("kiln", 0) >= 100e6:
            bad += 1
            print(f"  FAIL  {r['what']}: kiln's peak memory is {r['peak_bytes']['kiln'] / 1e6:.0f} MB, under 100 MB is asked for")
    return bad


def main():
    ap = argparse.ArgumentParser(prog="bench/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--quick", action="store_true", help=f"3 runs of {', '.join(QUICK)}, no limits")
    ap.add_argument("--only", action="append", choices=CASES, metavar="CASE", help=f"one of {', '.join(CASES)}; may be repeated")
    ap.add_argument("--runs", type=int, help="timed runs of each case (default 5)")
    ap.add_argument("--tools", default="kiln,docker,buildah")
    ap.add_argument("--check", action="store_true", help="status 1 if a bound does not hold")
    ap.add_argument("--no-limits", action="store_true", help="do not measure the machine's limits")
    ap.add_argument("--work", help=argparse.SUPPRESS)
    ap.add_argument("--registry", help=argparse.SUPPRESS)
    ap.add_argument("--dockerd", type=int, help=argparse.SUPPRESS)
    a = ap.parse_args()
    a.runs = a.runs or (3 if a.quick else 5)
    a.base = f"{a.registry}/library/busybox:latest"
    tools = [{"kiln": Kiln, "docker": Docker, "buildah": Buildah}[n](a) for n in a.tools.split(",")]
    names = [t.name for t in tools]
    commit = subprocess.run(["git", "-C", HERE, "rev-parse", "--short=10", "HEAD"], stdout=subprocess.PIPE, text=True).stdout.strip()
    results = {
        "commit": commit, "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "runs": a.runs,
        "machine": {"cores": os.cpu_count(), "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "kernel": platform.release()},
        "versions": {t.name: t.version() for t in tools}, "cases": {}, "limits": {},
    }
    for c in a.only or (QUICK if a.quick else CASES):
        t = time.perf_counter()
        results["cases"][c] = measure(c, tools, a)
        print(f"{c}: " + ", ".join(f"{n} {m:.3f} s" for n, m in results["cases"][c]["median"].items()) + f"  ({time.perf_counter() - t:.0f} s)", flush=True)
    if not (a.quick or a.only or a.no_limits):
        results["limits"] = limits(a)
    show(results, names)
    out = f"{HERE}/results/{results['date'][:19].replace(':', '')}-{commit}"
    os.makedirs(os.path.dirname(out), exist_ok=True)
    with open(out + ".json", "w") as f:
        json.dump(results, f, indent=1)
        f.write("\n")
    svg(results, names, out + ".svg")
    print(f"\nwrote {os.path.relpath(out)}.json and .svg")
    return 1 if check(results) and a.check else 0


if __name__ == "__main__":
    sys.exit(main())
