"""Builds the same generated inputs with kiln, docker build, and buildah, and compares time, memory, and bytes written.

Called by bench/run, which starts the registry and dockerd. What is measured:

- The clock runs from the start of the command to its end, standard output and error going to a file.
- Tools take turns within each round, and the order rotates from round to round; figures are medians. A tool whose first
  run takes longer than 10 s has 3 runs, longer than 30 s 2; the tables say where.
- Everything is written to one disk, and nothing else is: a new ext4 in a file, where that can be mounted. Before every run it is
  synced. Inputs are in the page cache for all.
- cold: the builder has the base image, and nothing else: step cache, context cache and earlier results are gone
  (kiln: a copy of a store that pulled the base; docker: builder prune and the image removed; buildah: all images but
  the base removed). cached: the same build was made just before. changed: the same, then one file was changed.
- Every tool builds on the host network and keeps the result under a tag in its own store. buildah caches steps
  (--layers) and runs stages side by side (--jobs). Debian's docker cannot write OCI archives, so skopeo does that step for it.
- The limit is what the machine takes for the work itself, one run in each round: see LIMITS in cases.py. The compressor alone
  is kiln's own, from a tar to a file, with as many threads.
- Memory and bytes written are taken in a run of their own. Memory: /proc is read every 5 ms, the resident memory (PSS) of the
  whole process tree; for docker the client's and the daemon's trees together. Processes of RUN are part of every tree. Bytes
  written: what reached the disk until all of it was synced, by whomever.
"""
import argparse, os, shutil, statistics, subprocess, sys, time

from cases import CASES, change_one, limit_command
from measure import Disk, machine, run
from show import bars, keep, megabytes, seconds, table
from tools import TOOLS

HERE = os.path.dirname(os.path.abspath(__file__))


def prepare(tool, state, d, out, log, nth):
    if state == "cold":
        tool.clear()
    elif nth == 0:
        tool.clear()
        run(tool.build(d, out), log, tool.env, tool.name)
    if state == "changed":
        change_one(d, nth)
    if out and os.path.exists(out):
        os.remove(out)
    os.sync()


def runs_of(first, wanted):
    """How often a tool runs whose first run took so long."""
    return min(wanted, 5 if first <= 10 else 3 if first <= 30 else 2)


def measure(name, tools, a, disk):
    case = CASES[name]
    folder = f"{a.disk}/input/{name}"
    inputs = {}
    # Each tool has its own copy of the input, so that a change is new to each.
    for t in tools:
        inputs[t.name] = f"{folder}/{t.name}"
        case.make(inputs[t.name], a.base, a.scale)
    tar = None
    if case.limit == "compressor":
        tar = folder + "/limit.tar"
        subprocess.run(["tar", "-C", inputs[tools[0].name], "-cf", tar, "data"], check=True)
    has_limit = not a.no_limits and (case.limit != "compressor" or a.compress)
    secs, peak, written = {t.name: [] for t in tools}, {}, {}
    if has_limit:
        secs["limit"] = []
    log = f"{a.work}/log/bench"
    for nth in range(a.runs):
        for t in tools[nth % len(tools):] + tools[:nth % len(tools)]:
            if secs[t.name] and nth >= runs_of(secs[t.name][0], a.runs):
                continue
            d, out = inputs[t.name], f"{a.disk}/out.tar" if case.export else None
            prepare(t, case.state, d, out, log, nth)
            secs[t.name].append(run(t.build(d, out), log, t.env, t.name)[0])
        if has_limit:
            cmd = limit_command(case, a.disk + "/limit", inputs[tools[0].name], tar, a.compress)
            os.sync()
            secs["limit"].append(run([cmd], log, name="limit")[0])
    for t in tools:
        d, out = inputs[t.name], f"{a.disk}/out.tar" if case.export else None
        prepare(t, case.state, d, out, log, a.runs)
        before = disk.written()
        _, peak[t.name] = run(t.build(d, out), log, t.env, t.name, t.daemon, memory=True)
        after = disk.written()
        written[t.name] = None if before is None else after - before
        if not t.has_memory:
            peak[t.name] = None
        t.clear()
    shutil.rmtree(folder)
    shutil.rmtree(a.disk + "/limit", ignore_errors=True)
    return {"what": case.what, "state": case.state, "limit": case.limit, "seconds": secs,
            "median": {n: statistics.median(v) for n, v in secs.items()}, "peak_bytes": peak, "written_bytes": written}


def show(results, names):
    cases = results["cases"]

    def cell(r, n):
        n_runs = len(r["seconds"].get(n, []))
        return seconds(r["median"].get(n)) + ("" if n_runs in (0, results["runs"]) else f" ({n_runs} runs)")

    def ratio(r, n):
        m = r["median"]
        return f"{m[n] / m['kiln']:.1f}×" if "kiln" in m and n in m else ""
    others = [n for n in names if n != "kiln"]
    has_limit = any("limit" in r["median"] for r in cases.values())
    head, rows = ["case", "kiln"] + [it for n in others for it in (n, f"{n} / kiln")] + (["limit", "", "kiln / limit"] if has_limit else []), []
    for r in cases.values():
        row = [r["what"], cell(r, "kiln")] + [it for n in others for it in (cell(r, n), ratio(r, n))]
        if has_limit:
            m = r["median"]
            row += [r["limit"], cell(r, "limit"), f"{m['kiln'] / m['limit']:.2f}×" if "limit" in m and "kiln" in m else ""]
        rows.append(row)
    shown = [table(f"Seconds, medians of {results['runs']} runs", head, rows)]
    for title, key in (("Peak memory", "peak_bytes"), ("Bytes written to the disk", "written_bytes")):
        rows = [[r["what"]] + [megabytes(r[key].get(n)) for n in names] for r in cases.values()]
        shown.append(table(title, ["case"] + names, rows))
    return shown


def judge(results):
    """The bounds of the cases: (holds, text) of each."""
    for name, r in results["cases"].items():
        m = r["median"]
        for kind, other, bound in CASES[name].bounds:
            if kind == "faster" and {"kiln", other} <= set(m):
                got = m[other] / m["kiln"]
                yield got >= bound, f"{r['what']}: {other} takes {got:.1f} times as long as kiln, at least {bound} is asked for"
            elif kind == "within" and {"kiln", other} <= set(m):
                got = m["kiln"] / m[other]
                yield got <= bound, f"{r['what']}: kiln takes {got:.2f} times the limit, at most {bound} is asked for"
            elif kind == "seconds" and "kiln" in m:
                yield m["kiln"] <= bound, f"{r['what']}: kiln takes {m['kiln']:.3f} s, at most {bound} is asked for"
        kiln, docker = (r["peak_bytes"].get(n) for n in ("kiln", "docker"))
        if kiln and docker:
            yield kiln * 10 <= docker, f"{r['what']}: docker's peak memory is {docker / kiln:.1f} times kiln's, at least 10 is asked for"


def main():
    ap = argparse.ArgumentParser(prog="bench/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--quick", action="store_true", help="a smoke test: small inputs, one run, kiln only, nothing kept")
    ap.add_argument("--only", action="append", choices=CASES, metavar="CASE", help=f"one of {', '.join(CASES)}; may be repeated")
    ap.add_argument("--runs", type=int, help="timed runs of each case (default 5)")
    ap.add_argument("--tools", help="default: kiln,docker,buildah")
    ap.add_argument("--buildkit", metavar="ADDRESS", help="also a BuildKit at this address, by buildctl")
    ap.add_argument("--check", action="store_true", help="status 1 if a bound does not hold")
    ap.add_argument("--no-limits", action="store_true", help="do not measure the machine's limits")
    for name in ("--work", "--disk", "--registry", "--compress"):
        ap.add_argument(name, help=argparse.SUPPRESS)
    ap.add_argument("--dockerd", type=int, help=argparse.SUPPRESS)
    a = ap.parse_args()
    a.runs = a.runs or (1 if a.quick else 5)
    a.scale = 0.03 if a.quick else 1
    a.no_limits |= a.quick
    a.base = f"{a.registry}/library/busybox:latest"
    names = (a.tools or ("kiln" if a.quick else "kiln,docker,buildah")).split(",") + (["buildkit"] if a.buildkit else [])
    os.makedirs(a.disk + "/input", exist_ok=True)
    tools = [TOOLS[n](a) for n in names]
    disk = Disk(a.disk)
    commit = subprocess.run(["git", "-C", HERE, "rev-parse", "--short=10", "HEAD"], stdout=subprocess.PIPE, text=True).stdout.strip()
    begun = time.time()
    results = {
        "commit": commit, "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "runs": a.runs, "machine": machine(a.disk),
        "versions": {t.name: t.version() for t in tools}, "cases": {},
    }
    for name in a.only or CASES:
        t = time.perf_counter()
        results["cases"][name] = measure(name, tools, a, disk)
        print(f"{name}: " + ", ".join(f"{n} {seconds(m)}" for n, m in results["cases"][name]["median"].items()) + f"  ({time.perf_counter() - t:.0f} s)", flush=True)
    shown, verdicts = show(results, names), list(judge(results))
    for text, _ in shown:
        print("\n" + text)
    if a.quick:
        print(f"\nbench: every case ran, in {time.time() - begun:.0f} s; the figures say nothing")
        return 0
    print("\nbounds")
    for holds, text in verdicts:
        print(f"  {'ok  ' if holds else 'FAIL'}  {text}")
    bounds = "## Bounds\n\n" + "".join(f"- {'holds' if holds else '**does not hold**'}: {text}\n" for holds, text in verdicts)
    out = keep(results, "bench/run", begun, shown + [("", bounds)])
    bars([(r["what"], r["median"]) for r in results["cases"].values()], names + (["limit"] if not a.no_limits else []), out + ".svg")
    print(f"\nwrote {os.path.relpath(out)}.json, .md and .svg")
    return 1 if a.check and not all(holds for holds, _ in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
