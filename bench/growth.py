"""How kiln's time and memory grow: with files, steps, builds at once, and bytes.

Called by bench/growth. Each point is the median of 3 builds (1 where the first takes longer than 20 s), the peak memory that of the
largest. For many builds at once it is that of the largest process. Fitted is the exponent of n: time as n^e, 1 being linear. Of the time
of a small build most is for starting, so the exponent is also given for the upper half of the points.
"""
import argparse, math, os, random, shutil, statistics, subprocess, sys, time

from cases import dockerfile, files, steps, write
from measure import check, largest, machine, run, start
from show import curves, keep, megabytes, seconds, table

HERE = os.path.dirname(os.path.abspath(__file__))
MB = 1_000_000


def bytes_of(d, base, n):
    """`n` megabytes in files of at most 256 MB, of which a third does not compress."""
    dockerfile(d, f"FROM {base}\nCOPY data /data\n")
    os.makedirs(d + "/data")
    rnd = random.Random(n)
    text = b" ".join(rnd.choices([rnd.randbytes(4).hex().encode() for _ in range(4000)], k=1 << 18))
    left, nth = n * MB, 0
    while left > 0:
        size = min(left, 256 * MB)
        with open(f"{d}/data/part-{nth:03}", "wb") as f:
            while f.tell() < size:
                f.write((rnd.randbytes(1 << 20) + text + text[:-1])[:size - f.tell()])
        left, nth = left - size, nth + 1


class Growth:
    def __init__(self, a):
        self.a, self.root, self.env = a, a.disk + "/kiln", {"KILN_ROOT": a.disk + "/kiln"}
        self.log = a.work + "/log/growth"
        d = a.disk + "/warm"
        dockerfile(d, f"FROM {a.base}\nRUN true\n")
        self.build(d)
        shutil.copytree(self.root, self.root + ".base", symlinks=True)
        self.clear()

    def command(self, d, *more):
        return [os.environ["KILN"], "build", "--progress", "plain", "--network", "host", "-t", "growth", *more, d]

    def clear(self):
        subprocess.run(["rm", "-rf", "--one-file-system", self.root], check=True)
        subprocess.run(["cp", "-a", self.root + ".base", self.root], check=True)

    def build(self, d, *more):
        os.sync()
        return run([self.command(d, *more)], self.log, self.env, "kiln", memory=True)

    def many(self, once, before=lambda: None):
        """Median seconds and largest memory of a few runs."""
        found = []
        while len(found) < (3 if not found or found[0][0] < 20 else 1):
            before()
            found.append(once())
        return statistics.median(it[0] for it in found), max(it[1] for it in found)

    def cold_and_cached(self, d):
        cold = self.many(lambda: self.build(d), self.clear)
        return {"cold": cold, "cached": self.many(lambda: self.build(d))}

    def of_files(self, n):
        d = self.fresh()
        files(d, self.a.base, n=n)
        return self.cold_and_cached(d)

    def of_steps(self, n):
        d = self.fresh()
        steps(d, self.a.base, n=n)
        return self.cold_and_cached(d)

    def of_builds(self, n):
        """`n` builds at once of projects of their own, three RUNs each."""
        d = self.fresh()
        for i in range(n):
            dockerfile(f"{d}/{i}", f"FROM {self.a.base}\nCOPY a /a\n" + "".join(f"RUN echo {i} {j} > /out-{j}\n" for j in range(3)))
            write(f"{d}/{i}/a", b"%d" % i)

        def once():
            os.sync()
            logs = [open(f"{self.log}-{i}", "wb") for i in range(n)]
            env = {**os.environ, **self.env}
            timed = [["/usr/bin/time", "-q", "-f", "%M", "-o", f"{self.log}-{i}.peak", *self.command(f"{d}/{i}", "-t", f"growth-{i}")] for i in range(n)]
            t = time.perf_counter()
            started = [start(cmd, log, env)[0] for cmd, log in zip(timed, logs)]
            for p in started:
                p.wait()
            took = time.perf_counter() - t
            for p, log in zip(started, logs):
                log.close()
                check(p, log.name, "growth")
            peak = max(largest(f"{self.log}-{i}.peak") for i in range(n))
            return took, peak
        return {"cold": self.many(once, self.clear)}

    def of_bytes(self, n):
        d = self.fresh()
        bytes_of(d, self.a.base, n)
        found = {"to the store": self.many(lambda: self.build(d), self.clear)}
        if n <= 1000:
            out = self.a.disk + "/out.tar"
            found["to an archive, gzip"] = self.many(lambda: self.build(d, "-o", f"type=oci,dest={out}"), self.clear)
            os.remove(out)
        return found

    def fresh(self):
        d = self.a.disk + "/input"
        self.clear()
        subprocess.run(["rm", "-rf", "--one-file-system", d], check=True)
        os.makedirs(d)
        return d


# name: what grows, how, the points, those of a smoke test
KINDS = {
    "files": ("context files", Growth.of_files, [1000, 3000, 10_000, 30_000, 100_000], [30, 100]),
    "steps": ("RUN steps", Growth.of_steps, [10, 30, 100, 300, 1000], [2, 4]),
    "builds": ("builds at once on one store", Growth.of_builds, [1, 2, 4, 8, 16, 32, 64], [1, 3]),
    "bytes": ("MB in one COPY", Growth.of_bytes, [10, 100, 1000, 10_000], [1, 5]),
}


def exponent(points):
    """The slope of a line through the points in logarithmic scale."""
    xs, ys = [math.log(it[0]) for it in points], [math.log(it[1]) for it in points]
    x, y = statistics.mean(xs), statistics.mean(ys)
    below = sum((it - x) ** 2 for it in xs)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys)) / below if below else 0.0


def main():
    ap = argparse.ArgumentParser(prog="bench/growth", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--only", action="append", choices=KINDS, metavar="KIND", help=f"one of {', '.join(KINDS)}; may be repeated")
    ap.add_argument("--most", type=int, default=10 ** 9, metavar="N", help="no point above this one")
    ap.add_argument("--quick", action="store_true", help="a smoke test: tiny points, nothing kept")
    for name in ("--work", "--disk", "--registry"):
        ap.add_argument(name, help=argparse.SUPPRESS)
    a = ap.parse_args()
    a.base = f"{a.registry}/library/busybox:latest"
    growth, begun = Growth(a), time.time()
    commit = subprocess.run(["git", "-C", HERE, "rev-parse", "--short=10", "HEAD"], stdout=subprocess.PIPE, text=True).stdout.strip()
    results = {"commit": commit, "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "machine": machine(a.disk), "kinds": {}}
    shown, panels = [], []
    for kind in a.only or KINDS:
        what, grow, points, few = KINDS[kind]
        lines = {}
        for n in few if a.quick else [it for it in points if it <= a.most]:
            t = time.perf_counter()
            for name, (secs, peak) in grow(growth, n).items():
                lines.setdefault(name, []).append((n, secs, peak))
            print(f"{n} {what}: " + ", ".join(f"{name} {seconds(it[-1][1])}, {megabytes(it[-1][2])}" for name, it in lines.items() if it[-1][0] == n) + f"  ({time.perf_counter() - t:.0f} s)", flush=True)
        fitted = {name: {"time": exponent(it), "time_upper": exponent(it[len(it) // 2:]), "memory": exponent([(n, m) for n, _, m in it])} for name, it in lines.items()}
        results["kinds"][kind] = {"what": what, "points": lines, "exponents": fitted}
        numbers = sorted({it[0] for line in lines.values() for it in line})
        rows = []
        for name, line in lines.items():
            by_n = {n: (s, m) for n, s, m in line}
            rows.append([f"{name}, time"] + [seconds(by_n[n][0]) if n in by_n else "" for n in numbers] + [f"{fitted[name]['time']:.2f}", f"{fitted[name]['time_upper']:.2f}"])
            rows.append([f"{name}, memory"] + [megabytes(by_n[n][1]) if n in by_n else "" for n in numbers] + [f"{fitted[name]['memory']:.2f}", ""])
        shown.append(table(what, [what] + [f"{n:,}" for n in numbers] + ["exponent", "upper half"], rows))
        panels.append((f"{what}: time", " s", {name: [(n, s) for n, s, _ in line] for name, line in lines.items()}))
        panels.append((f"{what}: peak memory", " MB", {name: [(n, m / 1e6) for n, _, m in line] for name, line in lines.items()}))
    for text, _ in shown:
        print("\n" + text)
    if a.quick:
        print(f"\nbench: every kind ran, in {time.time() - begun:.0f} s; the figures say nothing")
        return 0
    out = keep(results, "bench/growth", begun, shown, "-growth")
    curves(panels, out + ".svg")
    print(f"\nwrote {os.path.relpath(out)}.json, .md and .svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
