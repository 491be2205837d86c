//! What a process in a sandbox sees, can do, and leaves behind. Needs root.
//!
//! Run with `cargo test -p sandbox --features privileged`. The root is one static busybox.

mod fixture;
mod limits;
mod network;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use fixture::{Fixture, children, listing};
use sandbox::{Access, Capabilities, Mount, Network, Root, Seccomp, Source, Stdio};

#[test]
fn privileged_writes_land_in_the_upper_directory() {
    let it = Fixture::new();
    let ran = it.sh("echo hi > /new; rm /etc/motd; mkdir -p /a/b");
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    assert_eq!(listing(&it.upper()), ["a", "a/b", "etc", "etc/motd", "new"]);
    let whiteout = fs::symlink_metadata(it.upper().join("etc/motd")).unwrap();
    assert_eq!((whiteout.mode() & 0o170_000, whiteout.rdev()), (0o020_000, 0));
    assert_eq!(fs::read_to_string(it.lower().join("etc/motd")).unwrap(), "welcome\n");
    assert_eq!(listing(&it.work()), [""; 0]);
}

#[test]
fn privileged_the_command_line_of_kiln_is_not_seen() {
    let it = Fixture::new();
    let mut spec = it.spec(["/bin/sh", "-c", "tr -d '\\0' < /proc/1/cmdline; cat /proc/1/environ"]);
    spec.init = true;
    assert_eq!(it.run(&spec).out, "");
}

#[test]
fn privileged_nothing_but_the_changes_is_in_the_upper_directory() {
    let it = Fixture::new();
    let before = fs::metadata(it.lower().join("etc")).unwrap();
    let mut spec = it.spec(["/bin/sh", "-c", "cat /etc/hosts /etc/resolv.conf /deep/er/secret"]);
    spec.hosts = Some(b"127.0.0.1 localhost\n".to_vec());
    spec.resolv_conf = Some(b"nameserver 10.0.0.1\n".to_vec());
    spec.mounts.push(secret("/deep/er/secret", "hush\n"));
    spec.mounts.push(Mount::Tmpfs { target: "/var/cache/x".into(), size: None, mode: 0o1777 });
    let ran = it.run(&spec);
    assert_eq!(ran.out, "127.0.0.1 localhost\nnameserver 10.0.0.1\nhush\n");
    assert_eq!(listing(&it.upper()), [""; 0]);

    // A directory that had to be there for a mount keeps its metadata when it is changed.
    fs::set_permissions(it.lower().join("etc"), fs::Permissions::from_mode(0o751)).unwrap();
    spec.args = ["/bin/sh", "-c", "stat -c '%a %Y' /etc; touch -d @5 /etc/x; touch -d @77 /etc"]
        .map(Into::into)
        .to_vec();
    let ran = it.run(&spec);
    assert_eq!(ran.out, format!("751 {}\n", before.mtime()));
    assert_eq!(listing(&it.upper()), ["etc", "etc/x"]);
    assert_eq!(fs::metadata(it.upper().join("etc")).unwrap().mode() & 0o7777, 0o751);
}

#[test]
fn privileged_a_directory_as_root_gets_its_mount_points_removed() {
    let it = Fixture::new();
    let root = it.lower();
    let before = (listing(&root), fs::metadata(&root).unwrap().mtime_nsec());
    let mut spec = it.spec(["/bin/sh", "-c", "test -c /dev/null && test -d /proc/1"]);
    spec.root = Root::Directory(root.clone());
    spec.mounts.push(secret("/run/secrets/x", "hush"));
    assert_eq!(it.run(&spec).code, Some(0));
    assert_eq!((listing(&root), fs::metadata(&root).unwrap().mtime_nsec()), before);

    // What the command puts beside a mount point stays, and its directory with it.
    spec.args = ["/bin/sh", "-c", "echo mine > /run/secrets/y"].map(Into::into).to_vec();
    assert_eq!(it.run(&spec).code, Some(0));
    assert_eq!(listing(&root.join("run")), ["secrets", "secrets/y"]);
}

#[test]
fn privileged_hostile_roots() {
    for (what, make) in [
        ("missing", None),
        (
            "links",
            Some(
                (|root: &Path, canary: &Path| {
                    for name in ["dev", "proc", "sys"] {
                        symlink(canary, root.join(name)).unwrap();
                    }
                    fs::remove_file(root.join("etc/hosts")).ok();
                    symlink(canary.join("hosts"), root.join("etc/hosts")).unwrap();
                }) as fn(&Path, &Path),
            ),
        ),
        (
            "files",
            Some(|root: &Path, _: &Path| {
                for name in ["dev", "proc", "sys"] {
                    fs::write(root.join(name), "").unwrap();
                }
                fs::create_dir(root.join("etc/hosts")).unwrap();
            }),
        ),
        ("no etc", Some(|root: &Path, _: &Path| fs::remove_dir_all(root.join("etc")).unwrap())),
    ] {
        let it = Fixture::new();
        let canary = it.dir().join("canary");
        fs::create_dir(&canary).unwrap();
        fs::write(canary.join("ptmx"), "canary").unwrap();
        if let Some(make) = make {
            make(&it.lower(), &canary);
        }
        let mut spec = it.spec([
            "/bin/sh",
            "-c",
            "test -c /dev/null && test -d /proc/1 && test -d /sys/kernel && cat /etc/hosts",
        ]);
        spec.hosts = Some(b"ours".to_vec());
        let ran = it.run(&spec);
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(0), "ours", ""), "{what}");
        assert_eq!(listing(&canary), ["ptmx"], "{what}");
        assert_eq!(fs::read_to_string(canary.join("ptmx")).unwrap(), "canary", "{what}");
        assert_eq!(listing(&it.upper()), [""; 0], "{what}");
    }
}

#[test]
fn privileged_mount_targets() {
    let it = Fixture::new();
    symlink("/real", it.lower().join("link")).unwrap();
    symlink("/../../../out", it.lower().join("up")).unwrap();
    fs::create_dir(it.lower().join("real")).unwrap();
    let source = it.dir().join("source");
    fs::create_dir_all(source.join("sub")).unwrap();
    fs::write(source.join("file"), "content").unwrap();
    symlink("/", source.join("root")).unwrap();

    let tree = |path: &str| Source::Tree { lower: vec![source.clone()], path: path.into() };
    let bind = |source, target: &str, access| Mount::Bind { source, target: target.into(), access };
    let mut spec = it.spec([
        "/bin/sh",
        "-c",
        "cat /real/a/file /out/file /one; ls -d /escape/bin 2>&1; touch /real/a/x; touch /rw/x; ls /outer",
    ]);
    spec.mounts = vec![
        bind(tree("/file"), "/outer/inner/file", Access::ReadOnly),
        bind(tree("/"), "/link/a", Access::ReadOnly),
        bind(Source::Host(source.clone()), "/up", Access::ReadOnly),
        bind(tree("file"), "/one", Access::ReadOnly),
        bind(tree("/root"), "/escape", Access::ReadOnly),
        bind(tree("/sub"), "/rw", Access::ReadWrite),
        Mount::Tmpfs { target: "/outer".into(), size: Some(1 << 20), mode: 0o755 },
    ];
    let ran = it.run(&spec);
    assert_eq!(ran.out, "contentcontentcontentls: /escape/bin: No such file or directory\ninner\n");
    assert!(ran.err.contains("/real/a/x: Read-only file system"), "{}", ran.err);
    assert_eq!(listing(&source), ["file", "root", "sub", "sub/x"]);
    assert_eq!(listing(&it.upper()), [""; 0]);

    for target in ["/", "/proc/x", "/sys", "/dev", "x"] {
        spec.mounts = vec![bind(tree("/"), target, Access::ReadOnly)];
        assert_eq!(sandbox::spawn(&spec).unwrap_err().code(), "invalid-sandbox", "{target}");
    }
    spec.mounts = vec![bind(tree("/none"), "/x", Access::ReadOnly)];
    let error = sandbox::spawn(&spec).unwrap_err().to_string();
    assert_eq!(error, format!("cannot mount `{}`", source.join("none").display()));
}

#[test]
fn privileged_writes_to_a_discarding_mount_are_forgotten() {
    let it = Fixture::new();
    let (one, two) = (it.dir().join("one"), it.dir().join("two"));
    for (dir, text) in [(&one, "1"), (&two, "2")] {
        fs::create_dir_all(dir.join("sub")).unwrap();
        fs::write(dir.join("sub/file"), text).unwrap();
    }
    fs::write(one.join("sub/only"), "").unwrap();
    let before = (listing(&one), listing(&two));
    let discard = |name: &str| {
        let (upper, work) =
            (it.dir().join(format!("{name}-u")), it.dir().join(format!("{name}-w")));
        fs::create_dir(&upper).unwrap();
        fs::create_dir(&work).unwrap();
        Access::Discard { upper, work }
    };
    let tree =
        |path: &str| Source::Tree { lower: vec![one.clone(), two.clone()], path: path.into() };
    let mut spec = it.spec([
        "/bin/sh",
        "-c",
        "cat /m/file; ls /m; echo new > /m/file; rm /m/only; chmod 4777 /m; cat /m/file /f; echo f > /f; cat /f",
    ]);
    spec.mounts = vec![
        Mount::Bind { source: tree("/sub"), target: "/m".into(), access: discard("dir") },
        Mount::Bind { source: tree("/sub/file"), target: "/f".into(), access: discard("file") },
    ];
    let ran = it.run(&spec);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("2file\nonly\nnew\n2f\n", ""));
    assert_eq!((listing(&one), listing(&two)), before);
    assert_eq!(fs::read_to_string(two.join("sub/file")).unwrap(), "2");
}

#[test]
fn privileged_many_layers() {
    let it = Fixture::new();
    let mut lower = vec![it.lower()];
    for number in 0..130 {
        let layer = it.dir().join(format!("a-layer-with-a-long-name-to-make-it-worse-{number:04}"));
        fs::create_dir(&layer).unwrap();
        fs::write(layer.join(format!("f{number}")), "").unwrap();
        fs::write(layer.join("top"), format!("{number}")).unwrap();
        lower.push(layer);
    }
    let mut spec = it.spec(["/bin/sh", "-c", "ls -d /f* | wc -l; cat /top"]);
    spec.root = Root::Overlay { lower: lower.clone(), upper: it.upper(), work: it.work() };
    assert_eq!(it.run(&spec).out, "130\n129");
    // As a mount, too, and from a path that overlayfs would take apart.
    // The same layer again counts where it comes last.
    lower.push(lower[5].clone());
    let odd = it.dir().join("odd:name,with\\signs");
    fs::create_dir(&odd).unwrap();
    fs::write(odd.join("top"), "odd").unwrap();
    lower.push(odd);
    let mut spec = it.spec(["/bin/sh", "-c", "cat /m/top; ls -d /m/f* | wc -l"]);
    let source = Source::Tree { lower, path: "/".into() };
    spec.mounts.push(Mount::Bind { source, target: "/m".into(), access: Access::ReadOnly });
    let ran = it.run(&spec);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("odd130\n", ""));
}

#[test]
fn privileged_exit_statuses() {
    let it = Fixture::new();
    assert_eq!(it.sh("exit 7").code, Some(7));
    // Process 1 has to handle a signal for it to do something; below an init it does what it always does.
    assert_eq!(it.sh("kill -TERM $$; exit 3").code, Some(3));
    let mut spec = it.spec(["/bin/sh", "-c", "kill -TERM $$"]);
    spec.init = true;
    let ran = it.run(&spec);
    assert_eq!((ran.code, ran.signal), (None, Some(15)));

    let fails = |args: &[&str]| {
        let error = sandbox::spawn(&it.spec(args.iter().copied())).unwrap_err();
        (error.code(), error.exit_status(), error.to_string())
    };
    let (code, status, text) = fails(&["/bin/foo"]);
    assert_eq!((code, status), ("command-not-found", Some(127)));
    assert_eq!(text, "exec `/bin/foo`: no such file or directory");
    assert_eq!(fails(&["nosuchcommand"]).1, Some(127));
    assert_eq!(fails(&["/etc/motd"]).0, "not-executable");
    assert_eq!(fails(&["/etc"]).1, Some(126));

    let executable = |name: &str, bytes: &[u8]| {
        let path = it.lower().join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let mut header = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xb7\0".to_vec();
    header.resize(200, 0);
    executable("bin/foreign", &header);
    executable("bin/script", b"echo no first line\n");
    executable("bin/orphan", b"#!/no/such/interpreter\n");
    let (code, status, text) = fails(&["foreign"]);
    assert_eq!((code, status), ("exec-format", Some(126)));
    assert!(text.contains("the file is for arm64"), "{text}");
    assert_eq!(fails(&["/bin/script"]).2, "exec `/bin/script`: exec format error");
    assert_eq!(fails(&["/bin/orphan"]).1, Some(127));

    let mut spec = it.spec(["/bin/true"]);
    spec.cwd = "/no/dir".into();
    assert_eq!(
        sandbox::spawn(&spec).unwrap_err().to_string(),
        "cannot change to the working directory `/no/dir`"
    );
    spec.create_cwd = true;
    assert_eq!(it.run(&spec).code, Some(0));
    assert_eq!(listing(&it.upper()), ["no", "no/dir"]);
}

#[test]
fn privileged_the_command_is_process_1() {
    let it = Fixture::new();
    let mut spec = it.spec(["/bin/sh", "-c", "echo $$; echo /proc/[0-9]*; readlink /proc/1/exe"]);
    assert_eq!(it.run(&spec).out, "1\n/proc/1\n/bin/busybox\n");
    spec.init = true;
    assert_eq!(it.run(&spec).out, "2\n/proc/1 /proc/2\n");
}

#[test]
fn privileged_signals_and_kill() {
    let it = Fixture::new();
    let spec =
        it.spec(["/bin/sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"]);
    let child = sandbox::spawn(&spec).unwrap();
    let stdout = std::fs::File::from(child.take_stdout().unwrap());
    std::io::Read::read_exact(&mut &stdout, &mut [0; 6]).unwrap();
    assert_eq!(child.try_wait().unwrap(), None);
    child.signal(15).unwrap();
    assert_eq!(child.wait().unwrap().code, Some(9));
    child.signal(15).unwrap();
    assert_eq!(child.signal(0).unwrap_err().code(), "invalid-sandbox");

    let child = sandbox::spawn(&it.spec(["/bin/sleep", "100"])).unwrap();
    let (started, pid) = (Instant::now(), child.pid());
    child.kill();
    assert_eq!(child.wait().unwrap().signal, Some(9));
    assert!(started.elapsed() < Duration::from_secs(2));
    assert!(!Path::new(&format!("/proc/{pid}")).exists());

    let child = sandbox::spawn(&it.spec(["/bin/sleep", "100"])).unwrap();
    let pid = child.pid();
    drop(child);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn privileged_no_process_outlives_the_command() {
    let it = Fixture::new();
    let started = Instant::now();
    let ran =
        it.sh("(setsid sleep 100 & nohup sleep 100 >/dev/null 2>&1 &) ; sleep 100 & echo done");
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "done\n"));
    assert!(started.elapsed() < Duration::from_secs(5), "the output ended with the command");

    // Orphans are reaped while the command runs.
    let ran = it.sh("(sh -c 'sleep 0.01 & exit' ); sleep 0.2; ps -o pid,stat | grep -c Z");
    assert_eq!(ran.out, "0\n");
}

#[test]
fn privileged_nothing_of_kiln_reaches_the_process() {
    use std::os::fd::AsRawFd;

    let it = Fixture::new();
    fs::write(it.dir().join("canary"), "").unwrap();
    let open: Vec<_> = (0..20).map(|_| fs::File::open(it.dir().join("canary")).unwrap()).collect();
    for file in &open {
        // As handles that were inherited without the mark to be closed.
        rustix::io::fcntl_setfd(file, rustix::io::FdFlags::empty()).unwrap();
    }
    assert!(open[19].as_raw_fd() > 20);
    let list = "ls /proc/self/fd; env; cat /proc/1/environ; ls /proc/1/root; readlink /proc/1/fd/0; readlink /proc/1/exe; cat /proc/1/exe; head -c1 /proc/1/maps; readlink /proc/self/fd/0; id -G";
    let mut spec = it.spec(["/bin/sh", "-c", list]);
    spec.init = true;
    let ran = it.run(&spec);
    assert_eq!(
        ran.out, "0\n1\n2\n3\nSHLVL=1\nHOME=/root\nPATH=/bin\nPWD=/\n/dev/null\n0\n",
        "{}",
        ran.err
    );
    assert_eq!(ran.err.matches("Permission denied").count(), 4, "{}", ran.err);
    // Neither by way of the working directory.
    for number in 3..64 {
        let mut spec = it.spec(["/bin/true"]);
        spec.cwd = format!("/proc/self/fd/{number}").into();
        assert!(sandbox::spawn(&spec).is_err(), "{number}");
    }
}

/// Not a test by itself: the process that [`privileged_dies_with_kiln`] kills.
#[test]
fn privileged_victim() {
    if std::env::var_os("SANDBOX_TEST_VICTIM").is_some() {
        let it = Fixture::new();
        let child = sandbox::spawn(&it.spec(["/bin/sh", "-c", "sleep 100 & sleep 100"])).unwrap();
        println!("started {}", child.pid());
        child.wait().unwrap();
    }
}

#[test]
fn privileged_dies_with_kiln() {
    use std::io::BufRead;

    // What the killed process leaves is below this folder, which goes with the test.
    let folder = tempfile::tempdir().unwrap();
    let mut victim = std::process::Command::new(std::env::current_exe().unwrap())
        .env("TMPDIR", folder.path())
        .args(["privileged_victim", "--exact", "--nocapture"])
        .env("SANDBOX_TEST_VICTIM", "1")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufReader::new(victim.stdout.take().unwrap()).lines();
    let find = |line: String| Some(line.split_once("started ")?.1.to_owned());
    let pid = lines.map_while(Result::ok).find_map(find).unwrap();
    let init = format!("/proc/{}", pid.trim());
    assert!(Path::new(&init).exists());
    victim.kill().unwrap();
    victim.wait().unwrap();
    let gone = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        // Its new parent may take a while to wait for it.
        let state = fs::read_to_string(format!("{init}/stat")).unwrap_or_default();
        state.is_empty() || state.contains(") Z ")
    });
    assert!(gone);
}

#[test]
fn privileged_users() {
    let it = Fixture::new();
    fs::write(it.lower().join("etc/passwd"), "root:x:0:0::/root:\napp:x:1000:1001::/home/app:\n")
        .unwrap();
    fs::write(it.lower().join("etc/group"), "root:x:0:\napp:x:1001:\nextra:x:50:app\n").unwrap();
    for (user, want) in [
        ("", "0 0 [0] /root"),
        ("app", "1000 1001 [1001 50] /home/app"),
        ("1000", "1000 1001 [1001 50] /home/app"),
        ("app:extra", "1000 50 [50] /home/app"),
        ("7:8", "7 8 [8] /"),
        ("7", "7 0 [0] /"),
    ] {
        let mut spec = it.spec([
            "/bin/sh",
            "-c",
            "echo $(id -u) $(id -g) [$(id -G)] $HOME; echo x > /dev/stdout",
        ]);
        spec.user = user.to_owned();
        let ran = it.run(&spec);
        assert_eq!(ran.out, format!("{want}\nx\n"), "{user} {}", ran.err);
    }
    let mut spec = it.spec(["/bin/true"]);
    spec.user = "ghost".to_owned();
    assert_eq!(sandbox::spawn(&spec).unwrap_err().code(), "unknown-user");
    spec.user = "7".to_owned();
    spec.env.push(("HOME".into(), "/given".into()));
    spec.args = ["/bin/sh", "-c", "echo $HOME"].map(Into::into).to_vec();
    assert_eq!(it.run(&spec).out, "/given\n");
    spec.env = vec![("HOME".into(), "".into())];
    assert_eq!(it.run(&spec).out, "/\n", "an empty one is none");
}

#[test]
fn privileged_rights_of_the_process() {
    let it = Fixture::new();
    let status = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | tr -d '\\t\\n'";
    let want = "CapInh:0000000000000000CapPrm:00000000a80425fbCapEff:00000000a80425fbCapBnd:00000000a80425fbCapAmb:0000000000000000NoNewPrivs:0Seccomp:2";
    assert_eq!(it.sh(status).out, want);

    let mut spec = it.spec(["/bin/sh", "-c", status]);
    spec.user = "1000".to_owned();
    spec.no_new_privs = true;
    let nobody = want
        .replace("CapPrm:00000000a80425fb", "CapPrm:0000000000000000")
        .replace("CapEff:00000000a80425fb", "CapEff:0000000000000000")
        .replace("Privs:0", "Privs:1");
    assert_eq!(it.run(&spec).out, nobody);

    let mut spec = it.spec(["/bin/sh", "-c", status]);
    spec.seccomp = Seccomp::Unconfined;
    spec.capabilities = Capabilities::List(vec!["chown".into(), "CAP_KILL".into()]);
    let ran = it.run(&spec).out;
    assert!(ran.contains("CapEff:0000000000000021CapBnd:0000000000000021"), "{ran}");
    assert!(ran.ends_with("Seccomp:0"), "{ran}");

    let refused = it.sh("mount -t tmpfs x /mnt; unshare -m true; hostname x; chroot / true && echo chroot works; mknod /n b 8 0 && echo made; cat /n; echo x > /proc/sys/kernel/hostname; touch /sys/x; umount /proc");
    assert_eq!(refused.out, "chroot works\nmade\n");
    for text in [
        "mount: ",
        "unshare: ",
        "hostname: ",
        "/n",
        "kernel/hostname: Read-only",
        "/sys/x: Read-only",
        "umount: ",
    ] {
        assert!(refused.err.contains(text), "{text} in {}", refused.err);
    }
}

#[test]
fn privileged_devices() {
    let it = Fixture::new();
    let ran = it.sh("for i in null zero full random urandom tty; do stat -c '%n %F %a %t:%T' /dev/$i; done; head -c 4 /dev/zero | wc -c; echo x > /dev/null; for i in ptmx fd stdout; do readlink /dev/$i; done; rm /dev/random && mknod /dev/random c 1 9 && head -c1 /dev/random | wc -c; stat -c %a /dev/shm; mknod /null c 1 3 && echo x > /null && echo usable");
    assert_eq!(
        ran.out,
        "/dev/null character special file 666 1:3\n/dev/zero character special file 666 1:5\n/dev/full character special file 666 1:7\n/dev/random character special file 666 1:8\n/dev/urandom character special file 666 1:9\n/dev/tty character special file 666 5:0\n4\npts/ptmx\n/proc/self/fd\n/proc/self/fd/1\n1\n1777\nusable\n",
        "{}",
        ran.err
    );
    let mut spec = it.spec(["/bin/sh", "-c", "df -k /dev/shm | tail -1 | awk '{print $2}'"]);
    spec.shm_size = Some(8 << 20);
    assert_eq!(it.run(&spec).out, "8192\n");
}

#[test]
fn privileged_masked_paths() {
    let it = Fixture::new();
    let ran = it.sh("for f in kcore keys timer_list interrupts latency_stats sched_debug; do test -e /proc/$f && head -c1 /proc/$f | wc -c; done; ls -A /proc/acpi /proc/scsi /sys/firmware 2>/dev/null | grep -v : | grep -c .; for d in bus fs irq sys; do test -d /proc/$d && touch /proc/$d/x 2>&1 | grep -vc 'Read-only\\|No such'; done");
    assert!(ran.out.lines().all(|line| line == "0"), "{}", ran.out);
    assert!(ran.out.lines().count() > 3, "{}", ran.out);
}

#[test]
fn privileged_privileged_has_all() {
    let it = Fixture::new();
    let mut spec = it.spec(["/bin/sh", "-c", "mkdir /m && mount -t tmpfs x /m && echo mounted; grep -E '^(CapEff|Seccomp:)' /proc/self/status | tr -d '\\t\\n'; touch /sys/kernel/x 2>&1 | grep -c Read-only"]);
    spec.privileged = true;
    let ran = it.run(&spec);
    assert!(ran.out.starts_with("mounted\nCapEff:000001ff"), "{} {}", ran.out, ran.err);
    assert!(ran.out.contains("Seccomp:00\n"), "{}", ran.out);
}

#[test]
fn privileged_host_name_and_network() {
    let it = Fixture::new();
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(it.sh("hostname").out, "buildkitsandbox\n");
    let mut spec = it.spec(["/bin/sh", "-c", "hostname; ip -o link | cut -d: -f2; ip -4 -o addr | grep -c 127.0.0.1; ip route; ping -c1 -W1 127.0.0.1 >/dev/null && echo up"]);
    spec.hostname = "other".to_owned();
    spec.network = Network::None;
    let ran = it.run(&spec);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!((lines[0], *lines.last().unwrap()), ("other", "up"), "{} {}", ran.out, ran.err);
    assert!(lines[1..].iter().any(|line| line.trim() == "lo"));
    assert!(!ran.out.contains("eth0"), "{}", ran.out);
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), host);
}

#[test]
fn privileged_limits() {
    let it = Fixture::new();
    let mut spec = it.spec(["/bin/sh", "-c", "ulimit -Sn; ulimit -Hn; ulimit -c"]);
    spec.ulimits = vec![("nofile".into(), 100, 200), ("core".into(), 0, 0)];
    assert_eq!(it.run(&spec).out, "100\n200\n0\n");
    spec.ulimits = vec![("nosuch".into(), 1, 1)];
    assert_eq!(sandbox::spawn(&spec).unwrap_err().code(), "invalid-sandbox");
    spec.ulimits = vec![("nofile".into(), 5, 4)];
    assert_eq!(
        sandbox::spawn(&spec).unwrap_err().to_string(),
        "cannot set the limit `nofile` to 5:4"
    );
}

#[test]
fn privileged_files_are_in_memory_only() {
    let it = Fixture::new();
    let mut spec = it.spec(["/bin/sh", "-c", "cat /run/secrets/s; stat -c '%a %u:%g %h' /run/secrets/s; echo x > /run/secrets/s; stat -f -c %T /run/secrets/s; sleep 0.3"]);
    let needle = "needle-7c9e6679";
    spec.mounts.push(Mount::File {
        content: needle.as_bytes().to_vec(),
        target: "/run/secrets/s".into(),
        mode: 0o440,
        uid: 12,
        gid: 34,
    });
    let child = sandbox::spawn(&spec).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    for path in listing(it.dir()) {
        let path = it.dir().join(path);
        if path.is_file() {
            let bytes = fs::read(&path).unwrap();
            assert!(!bytes.windows(needle.len()).any(|it| it == needle.as_bytes()), "{path:?}");
        }
    }
    let ran = fixture::finish(child);
    assert_eq!(ran.out, format!("{needle}440 12:34 1\ntmpfs\n"));
    assert!(ran.err.contains("Read-only file system"), "{}", ran.err);
    assert_eq!(listing(&it.upper()), [""; 0]);
}

#[test]
fn privileged_read_only_roots() {
    let it = Fixture::new();
    let mut spec = it.spec([
        "/bin/sh",
        "-c",
        "touch /x 2>/dev/null || echo refused; touch /tmp2/x /dev/shm/x && echo ok",
    ]);
    spec.read_only = true;
    spec.mounts.push(Mount::Tmpfs { target: "/tmp2".into(), size: None, mode: 0o755 });
    assert_eq!(it.run(&spec).out, "refused\nok\n");
    assert_eq!(listing(&it.upper()), [""; 0]);
    spec.read_only = false;
    spec.root = Root::ReadOnly { lower: vec![it.lower()], work: it.work() };
    assert_eq!(it.run(&spec).out, "refused\nok\n");
    assert_eq!(listing(&it.work()), [""; 0]);
}

#[test]
fn privileged_terminal() {
    let it = Fixture::new();
    let mut spec = it.spec([
        "/bin/sh",
        "-c",
        "tty; stty size; test -t 0 && test -c /dev/console && cat < /dev/tty",
    ]);
    spec.stdio = Stdio::Pty { rows: 33, cols: 99 };
    let child = sandbox::spawn(&spec).unwrap();
    let terminal = fs::File::from(child.take_terminal().unwrap());
    std::io::Write::write_all(&mut &terminal, b"typed\n\x04").unwrap();
    let mut out = Vec::new();
    // The end of a terminal is an error.
    let _ = std::io::Read::read_to_end(&mut &terminal, &mut out);
    let out = String::from_utf8(out).unwrap();
    assert_eq!(child.wait().unwrap().code, Some(0), "{out}");
    assert!(out.contains("/dev/pts/0") && out.contains("33 99"), "{out}");
    assert_eq!(out.matches("typed").count(), 2, "echoed and copied: {out}");
}

#[test]
fn privileged_an_empty_root_has_no_commands() {
    let it = Fixture::new();
    let mut spec = it.spec(["/bin/sh"]);
    spec.root = Root::Overlay { lower: vec![], upper: it.upper(), work: it.work() };
    assert_eq!(sandbox::spawn(&spec).unwrap_err().code(), "command-not-found");
    assert_eq!((listing(&it.upper()), listing(&it.work())), (vec![], vec![]));
}

#[test]
fn privileged_two_hundred_leave_nothing() {
    let it = Fixture::new();
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let n_handles = || fs::read_dir("/proc/self/fd").unwrap().count();
    assert_eq!(it.sh("true").code, Some(0));
    // Other tests of this file run beside this one, and use handles and children of this process.
    let handles_before = n_handles();
    for number in 0..100 {
        let results: Vec<_> = std::thread::scope(|scope| {
            let run = |name: &'static str| {
                let it = &it;
                scope.spawn(move || {
                    let dir = it.dir().join(format!("{name}-{number}"));
                    let (upper, work) = (dir.join("upper"), dir.join("work"));
                    fs::create_dir_all(&upper).unwrap();
                    fs::create_dir_all(&work).unwrap();
                    let mut spec = it.spec(["/bin/sh", "-c", "sleep 100 & touch /x; exit 3"]);
                    spec.root = Root::Overlay { lower: vec![it.lower()], upper, work };
                    let ran = it.run(&spec);
                    fs::remove_dir_all(dir).unwrap();
                    ran.code
                })
            };
            [run("a"), run("b")].map(|it| it.join().unwrap()).to_vec()
        });
        assert_eq!(results, [Some(3), Some(3)]);
    }
    assert!(!mounts().contains(it.dir().to_str().unwrap()));
    assert!(n_handles() < handles_before + 100);
    assert!(children(std::process::id()) < 50);
    let work = listing(&it.work());
    assert_eq!(work, [""; 0]);
}

fn secret(target: &str, content: &str) -> Mount {
    let content = content.as_bytes().to_vec();
    Mount::File { content, target: target.into(), mode: 0o400, uid: 0, gid: 0 }
}
