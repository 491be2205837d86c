"""What scripts/matrix compares: reports of conform.py with lists of known failures, and images built on several rungs.

usage: matrix.py judge RUNG KNOWN REPORT…     KNOWN: a file of suite/case lines. With REFUSED in the environment, a case may fail if its
                                              log says that; with ALL, all that is known must have been run
       matrix.py layers CASE A=IDS B=IDS …    IDS: what `kiln inspect` said; status 3 if they differ
       matrix.py content CASE AGAIN A=ARCHIVE B=ARCHIVE …   archives of images whose layers differ; AGAIN is A built once more

`judge` prints a row of the table, then every case that is not as expected; its last line counts: passed, failed.
"""
import fnmatch
import json
import os
import sys
import tarfile

# What differs between two builds of one case on one machine, and why. Nothing else may.
VOLATILE = {
    "var/log/*": "logs with the time of day",
    "var/cache/ldconfig/aux-cache": "inodes and times of libraries",
    "var/cache/apt/*pkgcache.bin": "apt's index of the lists, with their times",
    "var/lib/apt/lists/*": "what the mirror said at that time",
    "*.pyc": "time of the source file",
    "root/.npm/*": "npm's logs, which are named by the time",
    "usr/local/cargo/.global-cache": "when cargo used what",
    "tmp/*": "names made at random",
}


def judge(rung, known, reports, is_whole):
    expected, refused = names(known), os.environ.get("REFUSED")
    cases, rows, bad = {}, {}, []
    for path in reports:
        if not os.path.exists(path):
            bad.append(f"no report {os.path.basename(path)}: the runner failed")
            continue
        with open(path, encoding="utf8") as file:
            cases.update(json.load(file)["cases"])
    for name, case in sorted(cases.items()):
        suite = name.split("/")[0]
        row = rows.setdefault(suite, [0, 0, 0, 0])
        row[1] += 1
        if "skipped" in case:
            bad.append(f"{name} was not run: {case['skipped']}")
        elif not case["diff"]:
            row[0] += 1
            if name in expected:
                bad.append(f"{name} passes now, take it off the list")
        elif refused and refused in case.get("log", ""):
            row[3] += 1
        elif name not in expected:
            bad.append(f"{name} fails: {'; '.join(case['diff'][:3])}")
        else:
            row[2] += 1
    if is_whole:
        bad += [f"{name} is known to fail, but was not run" for name in sorted(expected - set(cases))]
    more = lambda n, word: f" ({n} {word})" if n else ""
    said = ", ".join(f"{suite} {ok}/{n}{more(failed, 'known')}{more(no, 'refused')}" for suite, (ok, n, failed, no) in sorted(rows.items()))
    print(f"rung {rung}: {said}")
    for it in bad:
        print(f"  {it}")
    print(sum(row[0] for row in rows.values()), len(bad))


def names(path):
    with open(path, encoding="utf8") as file:
        return {line.split("#")[0].strip() for line in file} - {""}


def given(args):
    return dict(arg.split("=", 1) for arg in args)


def layers(case, args):
    found = {}
    for rung, path in given(args).items():
        with open(path, encoding="utf8") as file:
            image = json.load(file)[0]
        found[rung] = (image["RootFS"]["Layers"], image["Id"])
    first = next(iter(found.values()))
    verdicts = ["same" if it == first else "differs" for it in found.values()]
    print(f"{case:34} {len(first[0]):2} layers  " + "  ".join(f"{rung} {it}" for rung, it in zip(found, verdicts)))
    return 0 if len(set(verdicts)) == 1 else 3


def contents(archive):
    """Each layer: its diff id, and by path its type, mode, owner, what is in it, attributes, time."""
    import imgsum
    blobs = imgsum.Blobs(archive)
    manifest = imgsum.pick(blobs.json("index.json"), blobs)[0][1]
    diff_ids = json.load(blobs.blob(manifest["config"]["digest"]))["rootfs"]["diff_ids"]
    for diff_id, layer in zip(diff_ids, manifest["layers"]):
        with tarfile.open(fileobj=blobs.blob(layer["digest"]), mode="r:*") as tar:
            yield diff_id, {m.name.strip("/"): ["link to", m.linkname] if m.islnk() else imgsum.entry(m, tar) for m in tar}


def differences(one, other):
    return sorted(path for path in one.keys() | other.keys() if one.get(path) != other.get(path))


def content(case, again, args):
    archives = given(args)
    (first, one), *others = [(rung, list(contents(path))) for rung, path in archives.items()]
    volatile = [set(differences(tree, second)) for (_, tree), (_, second) in zip(one, list(contents(again)), strict=True)]
    # By pattern, because a log has another name each time; but only those that came to be used.
    patterns = [it for it in VOLATILE if any(fnmatch.fnmatchcase(path, it) for paths in volatile for path in paths)]
    is_volatile = lambda path: any(fnmatch.fnmatchcase(path, it) for it in patterns)
    strange = sorted({path for paths in volatile for path in paths if not is_volatile(path)})
    status = 0
    if strange:
        print(f"{case}: differs between two builds on rung {first}, and is not listed as such: {', '.join(strange[:5])}")
        status = 1
    for rung, other in others:
        if len(one) != len(other):
            print(f"{case}: {len(one)} layers on rung {first}, {len(other)} on rung {rung}")
            status = 1
            continue
        for n, ((diff_id, tree), (other_id, other_tree)) in enumerate(zip(one, other)):
            if diff_id == other_id:
                continue
            changed = differences(tree, other_tree)
            left = [path for path in changed if not is_volatile(path)]
            if left:
                path = left[0]
                print(f"{case}: layer {n}, rung {rung}: {len(left)} paths differ, the first is {path}: {tree.get(path)} there, {other_tree.get(path)} here")
                status = 1
            elif not changed:
                print(f"{case}: layer {n}, rung {rung}: the same files, another archive")
                status = 1
    if not status:
        print(f"{case}: file by file equal on all rungs, but for what two builds on rung {first} have otherwise, too: {', '.join(patterns)}")
    return status


def main():
    sys.path.insert(0, os.environ.get("CORPUS", "."))
    match sys.argv[1:]:
        case ["judge", rung, known, *reports]:
            return judge(rung, known, reports, "ALL" in os.environ)
        case ["layers", name, *args]:
            return layers(name, args)
        case ["content", name, again, *args]:
            return content(name, again, args)
    sys.exit(__doc__)


sys.exit(main())
