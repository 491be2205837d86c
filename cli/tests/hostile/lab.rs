//! A store, a base image, and the canary beside them.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// How long a case may take. A machine that is busy with other things needs some.
const PATIENCE: Duration = Duration::from_secs(60);
/// What nobody may see outside of the canary.
pub(crate) const SECRET: &str = "the-canary-sings";

/// A folder with everything.
pub(crate) struct Lab {
    folder: tempfile::TempDir,
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) status: Option<i32>,
}

impl Ran {
    /// The line that says what went wrong.
    pub(crate) fn error(&self) -> &str {
        let is_error = |it: &&str| it.starts_with("error");
        self.err.lines().find(is_error).unwrap_or_else(|| self.err.lines().last().unwrap_or(""))
    }
}

impl Lab {
    pub(crate) fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test needs root: run scripts/test");
        // Names in layers lead to it: what is expected depends on how long and how deep its path is.
        let folder = tempfile::tempdir_in("/tmp").expect("a folder");
        let it = Self { folder };
        make_canary(&it.canary());
        it
    }

    /// With the image `box`: a busybox, a shell, two users.
    pub(crate) fn with_box() -> Self {
        let it = Self::new();
        let busybox = Path::new("/bin/busybox");
        assert!(busybox.exists(), "install the package busybox-static");
        let context = it.path("box");
        fs::create_dir(&context).expect("made");
        fs::copy(busybox, context.join("busybox")).expect("copied");
        let text = "FROM scratch\nCOPY busybox /bin/busybox\n\
            RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
            RUN mkdir -p /etc /tmp && echo root:x:0:0::/root:/bin/sh > /etc/passwd && echo app:x:1000:1000::/:/bin/sh >> /etc/passwd\n";
        fs::write(context.join("Dockerfile"), text).expect("written");
        let ran = it.run(&["build", "-q", "-t", "box", "box"]);
        assert_eq!(ran.status, Some(0), "{}", ran.err);
        it
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn canary(&self) -> PathBuf {
        self.path("canary")
    }

    /// kiln in an environment of its own.
    pub(crate) fn kiln(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command
            .args(args)
            .current_dir(self.folder.path())
            .env_clear()
            .env("HOME", self.folder.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("KILN_ROOT", self.path("store"))
            // Nobody out there is asked.
            .env("HTTPS_PROXY", "http://127.0.0.1:1")
            .env("NO_PROXY", "127.0.0.1");
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, b"")
    }

    /// Runs to the end, which must come soon.
    pub(crate) fn run_with(&self, args: &[&str], input: &[u8]) -> Ran {
        self.finish(self.kiln(args), input)
    }

    pub(crate) fn finish(&self, mut command: Command, input: &[u8]) -> Ran {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kiln runs");
        let mut stdin = child.stdin.take().expect("piped");
        let input = input.to_vec();
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let pid = rustix::process::Pid::from_child(&child);
        let (done, ended) = std::sync::mpsc::channel::<()>();
        let watch = std::thread::spawn(move || {
            if ended.recv_timeout(PATIENCE).is_err() {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        });
        let started = Instant::now();
        let output = child.wait_with_output().expect("kiln ends");
        assert!(started.elapsed() < PATIENCE, "{command:?} takes too long");
        let _ = done.send(());
        watch.join().expect("it watches");
        writer.join().expect("it writes");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ran { out: text(output.stdout), err: text(output.stderr), status: output.status.code() }
    }

    /// What is not as it must be after every case.
    pub(crate) fn wrong(&self, before: &BTreeMap<String, String>) -> Option<String> {
        if snapshot(&self.canary()) != *before {
            return Some("the canary is not what it was".to_owned());
        }
        if fs::read_dir(self.path("store/tmp")).is_ok_and(|it| it.count() > 0) {
            return Some("staged files are left".to_owned());
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("readable");
        let root = self.folder.path().to_string_lossy().into_owned();
        mounts.contains(&root).then(|| "a mount is left".to_owned())
    }

    pub(crate) fn check(&self, name: &str, before: &BTreeMap<String, String>) {
        if let Some(wrong) = self.wrong(before) {
            panic!("{name}: {wrong}");
        }
    }

    /// Text without what differs from run to run.
    pub(crate) fn plain(&self, text: &str) -> String {
        let mut out = String::new();
        let place = self.folder.path().display().to_string();
        let text = text.replace(&place, "LAB").replace(place.trim_start_matches('/'), "LAB");
        let mut rest = text.as_str();
        while let Some(at) = rest.find("sha256:") {
            let (before, after) = rest.split_at(at + 7);
            let hex = after.bytes().take_while(u8::is_ascii_hexdigit).count();
            out.push_str(before);
            if hex >= 12 {
                out.push_str("DIGEST");
            }
            rest = &after[if hex >= 12 { hex } else { 0 }..];
        }
        out + rest
    }
}

/// Files that nothing may read or change.
pub(crate) fn make_canary(at: &Path) {
    fs::create_dir_all(at.join("folder")).expect("made");
    fs::write(at.join("secret"), SECRET).expect("written");
    fs::write(at.join("folder/file"), SECRET).expect("written");
}

/// Everything that can be seen of a folder without reading times of access.
pub(crate) fn snapshot(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let Ok(it) = fs::symlink_metadata(&path) else { continue };
        let content = if it.is_file() { fs::read(&path).unwrap_or_default() } else { Vec::new() };
        let line = format!(
            "{:o} {}:{} {} {}.{} {}.{} {:?}",
            it.mode(),
            it.uid(),
            it.gid(),
            it.nlink(),
            it.mtime(),
            it.mtime_nsec(),
            it.ctime(),
            it.ctime_nsec(),
            String::from_utf8_lossy(&content)
        );
        found.insert(path.strip_prefix(root).unwrap_or(&path).display().to_string(), line);
        if it.is_dir() {
            todo.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|it| it.path()));
        }
    }
    found
}

/// Compares what came of each case with what is written down in `testdata/hostile`.
pub(crate) fn compare(file: &str, outcomes: &[(String, String)]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/hostile").join(file);
    let text: String =
        outcomes.iter().map(|(name, outcome)| format!("== {name}\n{outcome}\n")).collect();
    if std::env::var_os("BLESS").is_some() {
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(&path, text).expect("written");
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    let cases = |text: &str| -> BTreeMap<String, String> {
        text.split("== ")
            .filter_map(|it| it.split_once('\n'))
            .map(|(name, rest)| (name.to_owned(), rest.to_owned()))
            .collect()
    };
    let (expected, found) = (cases(&expected), cases(&text));
    let mut wrong = String::new();
    for name in expected.keys().chain(found.keys()).collect::<std::collections::BTreeSet<_>>() {
        if expected.get(name) != found.get(name) {
            let text = |it: Option<&String>| it.cloned().unwrap_or_else(|| "nothing\n".to_owned());
            wrong += &format!(
                "== {name}\nexpected:\n{}found:\n{}",
                text(expected.get(name)),
                text(found.get(name))
            );
        }
    }
    assert!(wrong.is_empty(), "{}: BLESS=1 rewrites it\n{wrong}", path.display());
}
