//! Images whose `/etc`, `/proc`, `/dev` and `/sys` are not what they should be, and what a RUN in them finds.

use std::{fs, path::Path};

use crate::{
    images::{Layer, image},
    lab::{Lab, compare, snapshot},
    tars::Tar,
};

/// Says what the sandbox made of the image. The secret of the canary is nowhere.
const FACTS: &str = r#"RUN ["/busybox", "sh", "-c", "b=/busybox; \
$b echo FA''CT proc $($b grep -c ^Seccomp: /proc/self/status), null $($b stat -c '%t:%T' /dev/null), sys $($b test -d /sys/kernel && $b echo yes), \
names $($b head -c 9 /etc/hosts), id $($b id -u 2>/dev/null), at $($b pwd), canary $($b cat /etc/resolv.conf /etc/hosts /etc/passwd 2>/dev/null | $b head -c 9999 | $b grep -c the-canary)"]"#;

/// An image of one layer, and what a Dockerfile does with it.
struct Case {
    name: String,
    tar: Tar,
    lines: String,
}

fn cases(canary: &Path) -> Vec<Case> {
    let (out, secret) = (canary.display().to_string(), format!("{}/secret", canary.display()));
    let mut all = Vec::new();
    let mut add = |name: String, tar: Tar, lines: &str| {
        all.push(Case { name, tar, lines: lines.to_owned() });
    };
    let kinds = |tar: Tar, at: &str, to: &str| {
        vec![
            ("a link out", tar.clone().symlink(at, to)),
            ("a link to nothing", tar.clone().symlink(at, "/nothing/at/all")),
            ("a link to itself", tar.clone().symlink(at, at.rsplit('/').next().unwrap_or(at))),
            ("a link into /proc", tar.clone().symlink(at, "/proc/1/root")),
            ("a link into /dev", tar.clone().symlink(at, "/dev/null")),
            ("a file", tar.clone().file(at, "x")),
            ("a folder", tar.clone().folder(at).file(&format!("{at}/inside"), "x")),
            ("a pipe", tar.clone().fifo(at)),
            ("an endless device", tar.clone().device('c', at, "1", "5")),
        ]
    };
    for name in ["etc", "proc", "dev", "sys"] {
        for (kind, tar) in kinds(Tar::new(), name, &out) {
            add(format!("/{name} is {kind}"), tar, "");
        }
    }
    for name in ["resolv.conf", "hosts"] {
        for (kind, tar) in kinds(Tar::new().folder("etc"), &format!("etc/{name}"), &secret) {
            add(format!("/etc/{name} is {kind}"), tar, "");
        }
    }
    for (kind, tar) in kinds(Tar::new().folder("etc"), "etc/passwd", &secret) {
        add(format!("a user, and /etc/passwd is {kind}"), tar, "USER app");
    }
    let passwd = |text: &str| Tar::new().folder("etc").file("etc/passwd", text);
    let line = "app:x:1000:1000::/home/app:/bin/sh\n";
    for (name, text) in [
        ("has 11 MiB", format!("{}{line}", "#".repeat(11 << 20))),
        ("has a line of 2 MiB", format!("{}\n{line}", "x".repeat(2 << 20))),
        ("has a million lines", format!("{}{line}", "a:b\n".repeat(1_000_000))),
        ("has no line end", line.trim_end().to_owned()),
        ("has a NUL", format!("\0\n{line}")),
        ("gives the id that means no change", "app:x:4294967295:0::/:\n".to_owned()),
        ("gives an id that wraps", "app:x:4294967296:0::/:\n".to_owned()),
        ("gives a negative id", "app:x:-1:0::/:\n".to_owned()),
        ("gives a signed id", "app:x:+0:0::/:\n".to_owned()),
        ("has the name twice", format!("{line}app:x:0:0::/:\n")),
        ("has a line without fields", format!("app\napp:x\n{line}")),
    ] {
        add(format!("a user, and /etc/passwd {name}"), passwd(&text), "USER app");
    }
    for user in [
        "1000",
        "01000",
        "1000:1000",
        "app:app",
        "-1",
        "2147483648",
        "4294967295",
        "4294967296",
        "1000:4294967296",
        "+1",
        "0x0",
        "root:nobody",
        ":",
        "7:",
        "../root",
        "1000:1000:0",
    ] {
        let text = format!("{line}1000:x:0:0::/:\n+1:x:5:5::/:\n");
        add(
            format!("USER {user}"),
            passwd(&text).file("etc/group", "app:x:1000:\n"),
            &format!("USER {user}"),
        );
    }
    let tar = || {
        Tar::new()
            .folder("etc")
            .symlink("out", &out)
            .symlink("fd", "/proc/self/fd")
            .file("file", "x")
            .fifo("pipe")
    };
    for place in [
        "/out/new",
        "/out",
        "/fd/7",
        "/proc/self/fd/7",
        "/proc/self/cwd",
        "/proc/1/root",
        "/file",
        "/file/x",
        "/pipe",
        "../../..",
        "/dev/fd/9",
        "/sys/kernel",
        "/a/../../out/../x",
    ] {
        add(format!("WORKDIR {place}"), tar(), &format!("WORKDIR {place}"));
    }
    for (name, shell) in [
        ("proc", "/proc/self/exe"),
        ("a file of another format", "/file"),
        ("a folder", "/etc"),
        ("a pipe", "/pipe"),
    ] {
        add(format!("a command that is {name}"), tar(), &format!("RUN [\"{shell}\", \"x\"]"));
    }
    all
}

#[test]
fn privileged_odd_roots_have_the_outcome_that_is_written_down() {
    let lab = Lab::with_box();
    let before = snapshot(&lab.canary());
    fs::create_dir(lab.path("context")).expect("made");
    let (mut outcomes, mut wrong) = (Vec::new(), Vec::new());
    for case in cases(&lab.canary()) {
        let archive = image(&[Layer::plain(case.tar.end())], |_, _| ()).archive();
        fs::write(lab.path("hostile.tar"), archive).expect("written");
        let loaded = lab.run(&["load", "-i", "hostile.tar"]);
        assert_eq!(loaded.status, Some(0), "{}: {}", case.name, loaded.err);
        let text = format!(
            "FROM hostile\nCOPY --from=box /bin/busybox /busybox\n{}\n{FACTS}\n",
            case.lines
        );
        fs::write(lab.path("context/Dockerfile"), text).expect("written");
        let ran = lab.run(&["build", "--no-cache", "--progress", "plain", "context"]);
        let fact = ran.err.lines().find_map(|it| it.split_once(" FACT "));
        let outcome = match (ran.status, fact) {
            (Some(0), Some((_, fact))) => fact.to_owned(),
            (Some(0), None) => format!("no facts, but {}", ran.err),
            _ => ran.error().to_owned(),
        };
        wrong.extend(lab.wrong(&before).map(|it| format!("{}: {it}", case.name)));
        if ran.err.contains(crate::lab::SECRET) || outcome.contains("canary 1") {
            wrong.push(format!("{}: the canary is seen: {outcome}", case.name));
        }
        outcomes.push((case.name, lab.plain(&outcome)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    compare("roots.expected", &outcomes);
}
