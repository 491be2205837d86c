"""Times, memory and bytes written of commands."""
import os, subprocess, sys, threading, time


def children(pid):
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as f:
                found += f.read().split()
    except OSError:
        pass
    return [int(it) for it in found]


def resident(pid):
    """Bytes held by a process tree; of a page that several processes share, each has its part."""
    n = 0
    try:
        with open(f"/proc/{pid}/smaps_rollup") as f:
            for line in f:
                if line.startswith("Pss:"):
                    n = int(line.split()[1]) * 1024
                    break
    except OSError:
        return 0
    return n + sum(resident(it) for it in children(pid))


class Peak(threading.Thread):
    """Watches process trees, every 5 ms."""

    def __init__(self, roots):
        super().__init__(daemon=True)
        self.roots, self.peak, self.over = roots, 0, threading.Event()

    def run(self):
        while not self.over.is_set():
            self.peak = max(self.peak, sum(resident(it) for it in self.roots))
            self.over.wait(0.005)

    def end(self):
        self.over.set()
        self.join()
        return self.peak


def run(cmds, log, env=None, name="", daemon=None, memory=False):
    """Runs commands one after the other; returns seconds, and the peak memory in bytes if that is asked for."""
    total, peak = 0.0, 0
    env = {**os.environ, **(env or {})}
    with open(log, "wb") as f:
        for cmd in cmds:
            # What is too short to be seen by looking every 5 ms, time(1) tells. The kernel's figure for a process that Python
            # starts itself would be that of Python.
            p, t = start(["/usr/bin/time", "-q", "-f", "%M", "-o", log + ".peak", *cmd] if memory else cmd, f, env)
            watch = Peak([p.pid] + ([daemon] if daemon else [])) if memory else None
            if watch:
                watch.start()
            p.wait()
            total += time.perf_counter() - t
            if watch:
                peak = max(peak, watch.end(), largest(log + ".peak"))
            check(p, log, name)
    return total, peak


def start(cmd, log, env):
    t = time.perf_counter()
    return subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=env), t


def largest(path):
    """The peak memory of the largest process that time(1) saw."""
    with open(path) as f:
        return int(f.read().split()[-1]) * 1024


def check(p, log, name):
    if p.returncode:
        with open(log, errors="replace") as said:
            sys.exit(f"bench: {name}: {' '.join(p.args)}: status {p.returncode}\n{said.read()[-1500:]}")


class Disk:
    """The disk that everything is written to: how many bytes reached it."""

    def __init__(self, folder):
        device = os.stat(folder).st_dev
        self.stat = f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat"

    def written(self):
        os.sync()
        try:
            with open(self.stat) as f:
                return int(f.read().split()[6]) * 512
        except OSError:
            return None


def machine(disk):
    cpu = ""
    with open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    kind = subprocess.run(["stat", "-f", "-c", "%T", disk], stdout=subprocess.PIPE, text=True).stdout.strip()
    return {"processor": cpu, "cores": os.cpu_count(), "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "kernel": os.uname().release.split("-")[0], "file_system": kind}
