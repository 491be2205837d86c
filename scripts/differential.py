"""Makes random Dockerfiles with contexts, builds each with docker and with kiln, and compares status, config and files.

Called by scripts/differential. Case N is made from the number N alone. Not generated is what BuildKit 0.8 does otherwise than
today's: ignore files with `!`, ADD --chown of archives, `[` in patterns that lead to links, `${A+x}` without a colon.
"""
import argparse
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile

import imgsum

NAMES = ["a", "b", "c.txt", "d.md", "e f", "foo", "bar", "sub", "x", "y.tar", ".hid", "h*", "éa"]
LINKS = ["a", "foo", "../a", "/a", "/etc/passwd", "nowhere", "sub", ".", "..", "sub/a", "../../..", "./foo/"]
TOKENS = ["a", "b", " ", "  ", "\t", "$A", "${A}", "${B}", "$Z", "${Z:-d}", "${Z:+p}", "${A:+p}", "${A:-d}", "\\", "\\$", '\\"', '"', "'", "=",
          "x=y", "#", ",", "é", "$", "$$", "$1", "${A:-$B}", "${Z:-${B}}", "${A:-'q'}", '${Z:-"a b"}', "{", "}", "\\ ", "`", "/", ":", "$AA",
          "${", "$_", "[", "]", "\\\n ", " \\\n# c\n", "<", "\\n", "\\\\"]
WORDS = ["1", "two", '"a b"', "'c d'", "$A", "${A}", "${B:-dflt}", "${A:+alt}", "x$A-y", "\\$A", "'$A'", '"$A"', "${X:-${A}}", "a\\ b", "", '""',
         "é", "a=b", "$PATH:/x", '"q\\"r"']
COMMANDS = [
    "echo hi > /tmp/f", "mkdir -p /d/sub /w && echo 1 > /d/a && ln -sf /d /lnk", "ln -s /nowhere /dang || true", "rm -rf /d",
    "rm -rf /d && mkdir /d && echo new > /d/n", "env | grep -v HOSTNAME | sort > /tmp/env; pwd >> /tmp/env; id | cut -d' ' -f1,2 >> /tmp/env",
    '["/bin/sh", "-c", "echo exec $A > /tmp/x"]', "touch /tmp/t; chmod 600 /tmp/t", "ln -s etc /lnk; true", "mkdir -p /tmp/k && chown 3:4 /tmp/k",
    "mkfifo /tmp/fifo; true", "mv /etc/group /etc/group2; mv /etc/group2 /etc/group", "echo a \\\n  b > /tmp/ab",
    "echo $A ${B} '$A' > /tmp/v", "ln /etc/passwd /tmp/pw; true", "umask > /tmp/um",
]


class Case:
    """One Dockerfile with its context."""

    def __init__(self, number, folder, is_config):
        self.random = random.Random(number)
        self.pick = self.random.choice
        self.paths = []
        self.args = []
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        self.folder = folder
        self.make_context()
        self.dockerfile = self.config_file() if is_config else self.copy_file()
        self.write("Dockerfile", self.dockerfile)
        self.ignore = "".join(self.pick(self.paths + ["*.md", "**/a", "sub/*", "/foo", "foo/", "./a", "# c", "s?b"]) + "\n" for _ in range(3))
        if self.chance(0.3):
            self.write(".dockerignore", self.ignore)
        else:
            self.ignore = ""
        for name in "AV":
            if self.chance(0.4):
                self.args += ["--build-arg", f"{name}=cli{name}"]

    def chance(self, share):
        return self.random.random() < share

    def write(self, name, text):
        with open(os.path.join(self.folder, name), "w", encoding="utf8") as file:
            file.write(text)

    def make_context(self):
        folders = [""]
        for _ in range(self.random.randint(3, 14)):
            path = os.path.join(self.pick(folders), self.pick(NAMES))
            full = os.path.join(self.folder, path)
            if os.path.lexists(full):
                continue
            kind = self.random.choices(["file", "folder", "link", "hard", "archive"], [8, 5, 3, 1, 1])[0]
            if kind == "folder":
                os.mkdir(full)
                os.chmod(full, self.pick([0o755, 0o755, 0o700, 0o1777, 0o2755]))
                folders.append(path)
            elif kind == "link":
                os.symlink(self.pick(LINKS), full)
            elif kind == "hard":
                files = [it for it in self.paths if os.path.isfile(f"{self.folder}/{it}") and not os.path.islink(f"{self.folder}/{it}")]
                if not files:
                    continue
                os.link(os.path.join(self.folder, self.pick(files)), full)
            elif kind == "archive":
                ending = self.pick([".tar", ".tar.gz", ".tgz"])
                path += ending
                self.make_archive(full + ending)
            else:
                with open(full, "w", encoding="utf8") as file:
                    file.write(self.pick(["", "one\n", "two\n", path + "\n"]))
                os.chmod(full, self.pick([0o644, 0o644, 0o755, 0o600, 0o4755, 0o444]))
            self.paths.append(path)

    def make_archive(self, path):
        with tarfile.open(path, "w" if path.endswith("r") else "w:gz") as tar:
            for _ in range(self.random.randint(0, 5)):
                info = tarfile.TarInfo("/".join(self.pick(NAMES[:8]) for _ in range(self.random.randint(1, 2))))
                info.mode, info.uid, info.gid = self.pick([0o644, 0o755, 0o600]), self.pick([0, 0, 5]), self.pick([0, 7])
                kind = self.random.random()
                if kind < 0.6:
                    info.size = 3
                    tar.addfile(info, io.BytesIO(b"abc"))
                elif kind < 0.8:
                    info.type, info.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(info)
                else:
                    info.type, info.linkname = tarfile.SYMTYPE, self.pick(["a", "../a", "/foo", "x/y"])
                    tar.addfile(info)

    def copy(self, name, stages):
        flags, is_stage = "", name == "COPY" and stages and self.chance(0.3)
        if name == "COPY" and self.chance(0.25):
            flags += " --chown=" + self.pick(["1", "1:2", "0:0", "root", "www-data", "nobody:www-data", "3:0"])
        if is_stage:
            flags += f" --from={self.pick(stages)}"
        sources = []
        for _ in range(self.random.choices([1, 2, 3], [7, 2, 1])[0]):
            if is_stage:
                sources.append(self.pick(["/etc", "/bin/busybox", "/d", "/d/", "/tmp", "/etc/pass*", "/d/*", "/tmp/"]))
            elif self.chance(0.85):
                sources.append(self.pick(self.paths or ["."]) + self.pick(["", "", "/"]))
            else:
                sources.append(self.pick([".", "*", "./", "/", "[a-z]*", "?*", "a*", "sub", "*/*", "$A"]))
        dest = self.pick(["/d", "/d/", "/d/e/f", ".", "./", "/", "w", "w/", "/etc/", "/lnk", "/lnk/", "/lnk/n", "../up", "/d/a", "/dang", "/dang/x",
                          "$A/", "/sp", "/tmp/", "/ef/"])
        if len(sources) > 1 and self.chance(0.9) and not dest.endswith("/") and dest != ".":
            dest += "/"
        if self.chance(0.3) or any(" " in it for it in sources):
            return f"{name}{flags} {json.dumps(sources + [dest], ensure_ascii=False)}"
        return f"{name}{flags} {' '.join(sources)} {dest}"

    def instruction(self, stages):
        pick = self.pick
        name = self.random.choices(
            ["COPY", "ADD", "ENV", "ARG", "LABEL", "WORKDIR", "USER", "RUN", "CMD", "ENTRYPOINT", "EXPOSE", "VOLUME", "SHELL", "HEALTHCHECK", "ONBUILD"],
            [10, 5, 5, 3, 2, 4, 2, 6, 1.5, 1.5, 1, 1, 0.7, 0.7, 0.5])[0]
        if name in ("COPY", "ADD"):
            return self.copy(name, stages)
        one = lambda: f"{pick('ABVX')}={pick(WORDS)}"
        rest = {
            "ENV": lambda: pick([one(), f"{one()} {one()}", f"{pick('ABX')} {pick(WORDS)}", "B  x y  z "]),
            "ARG": lambda: pick(["A", "A=argA", "B=$A", "V", one()]),
            "LABEL": lambda: pick([f"k={pick(WORDS)}", f'"k 2"={pick(WORDS)} k3={pick(WORDS)}', f"k {pick(WORDS)}", "k-$A=v"]),
            "WORKDIR": lambda: pick(["/w", "w", "sub/dir", "/", "..", "/d", "/lnk", "/w/$A", "/a b", "../x", '"quoted"', "/lnk/q"]),
            "USER": lambda: pick(["0", "www-data", "1000", "1000:1000", "nobody:nogroup", "root"]),
            "RUN": lambda: pick(COMMANDS),
            "CMD": lambda: pick(['["a","b"]', "echo $A", "[]", ""]),
            "ENTRYPOINT": lambda: pick(['["e"]', "e $A x", "[]"]),
            "EXPOSE": lambda: pick(["80", "80/udp 443", "8000-8002", "80/tcp"]),
            "VOLUME": lambda: pick(["/v", '["/v","/w v"]', "v"]),
            "SHELL": lambda: pick(['["/bin/sh","-ec"]', '["/bin/busybox","sh","-c"]']),
            "HEALTHCHECK": lambda: pick(["NONE", "CMD true", '--interval=5s --retries=2 CMD ["a"]', "--timeout=1s CMD x"]),
            "ONBUILD": lambda: pick(["RUN echo 1 > /tmp/onb", "COPY a /d/", "ENV A=onb", "LABEL a=$A"]),
        }[name]()
        return f"{name} {rest}"

    def copy_file(self):
        lines, stages = [], []
        if self.chance(0.3):
            lines.append("ARG " + self.pick(["TAG=latest", "V", "V=top"]))
        for nth in range(self.random.choices([1, 2, 3], [6, 3, 1])[0]):
            base = self.pick(["busybox", "busybox", "scratch", "busybox:latest"] + stages)
            name = self.pick(["", f" AS s{nth}"])
            lines.append(f"FROM {base}{name}")
            if base != "scratch" and self.chance(0.5):
                lines.append("RUN mkdir -p /d/sub && ln -s d /lnk && ln -s nowhere /dang")
            for _ in range(self.random.randint(1, 6)):
                line = self.instruction(stages)
                if base != "scratch" or not line.startswith("RUN"):
                    lines.append(line)
            stages.append(name[4:] or str(nth))
        return "\n".join(lines) + "\n"

    def text(self):
        return "".join(self.pick(TOKENS) for _ in range(self.random.randint(1, 6)))

    def quoted(self):
        text, kind = self.text(), self.random.random()
        if kind < 0.3:
            return '"' + text.replace('"', "") + '"'
        if kind < 0.5:
            return "'" + text.replace("'", "") + "'"
        return text if kind > 0.8 else text.replace('"', "").replace("'", "")

    def config_file(self):
        quoted, text, pick = self.quoted, self.text, self.pick
        lines = ["# escape=`"] if self.chance(0.1) else []
        if self.chance(0.3):
            lines.append("ARG A=" + quoted())
        lines += ["FROM busybox", pick(["ARG A", "ARG A=1", "ENV A=one", 'ENV A="a b" B=2', "ENV A one two", "ARG B", "ENV B='x'"])]
        forms = [
            (30, lambda: f"ENV {pick('ABC')}={quoted()}"), (10, lambda: f"ENV {pick('ABC')} {text()}"),
            (10, lambda: f"ENV A={quoted()} C={quoted()}"), (20, lambda: f"LABEL k{pick('012')}={quoted()}"),
            (5, lambda: f"LABEL {quoted()}={quoted()}"), (5, lambda: f"LABEL k {text()}"), (4, lambda: f"ARG {pick('ABZ')}={quoted()}"),
            (4, lambda: f"WORKDIR /{quoted()}"), (2, lambda: f"USER {quoted()}"), (2, lambda: "CMD " + text()),
            (2, lambda: "ENTRYPOINT " + pick([json.dumps([text(), text()]), f"[{text()}]", text()])), (2, lambda: "ONBUILD ENV Q=" + quoted()),
            (2, lambda: "EXPOSE " + pick(["$A", "${Z:-80}", "80 " + quoted()])),
        ]
        for _ in range(self.random.randint(1, 5)):
            lines.append(self.random.choices([it for _, it in forms], [it for it, _ in forms])[0]())
        return "\n".join(lines) + "\n"


def differences(case, options):
    """What differs, as lines; nothing if both tools refuse the case."""
    archives = [os.path.join(options.work, it) for it in ("docker.tar", "kiln.tar")]
    for path in archives:
        if os.path.exists(path):
            os.remove(path)
    call = lambda *words: subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False)
    docker = ("env", "DOCKER_BUILDKIT=1", "/usr/bin/docker", "-H", f"unix://{options.docker}")
    common = ("--network", "host", "--progress", "plain", *case.args, case.folder)
    theirs = call(*docker, "build", "-t", "differential", *common)
    ours = call(options.kiln, "build", "-o", f"type=oci,dest={archives[1]}", *common)
    if ours.returncode not in (0, 1, 2) or (theirs.returncode == 0) != (ours.returncode == 0):
        ends = [it.stdout.decode(errors="replace").strip()[-700:] for it in (theirs, ours)]
        return [f"status {theirs.returncode} from docker, {ours.returncode} from kiln", *ends]
    if theirs.returncode != 0:
        return None
    # docker saves no image without layers.
    if call(*docker, "save", "-o", archives[0], "differential").returncode != 0:
        return []
    return [str(it) for it in imgsum.diff(*map(imgsum.summarise, archives)) or [] if "ArgsEscaped" not in str(it)]


def main():
    parser = argparse.ArgumentParser(prog="scripts/differential")
    for name in ("--docker", "--kiln", "--work"):
        parser.add_argument(name, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--config", action="store_true")
    options = parser.parse_args()
    n_built = n_differing = 0
    for number in range(options.seed, options.seed + options.count):
        case = Case(number, os.path.join(options.work, "context"), options.config)
        found = differences(case, options)
        n_built += found is not None
        if found:
            n_differing += 1
            print(f"differ case {number} {' '.join(case.args)}\n{case.dockerfile}--- .dockerignore\n{case.ignore}---", *found[:12], "", sep="\n", flush=True)
    print(f"differential: {options.count} cases, {n_built} built by both, {n_differing} differ")
    sys.exit(n_differing != 0)


main()
