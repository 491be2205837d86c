//! P, R and I: what a RUN sees, and what stays of it.

use std::{fs, path::Path, process::Command};

use serde_json::json;

use crate::kiln::*;

#[test]
fn p12_heredocs_run() {
    let built = Kiln::new().build(concat!(
        "FROM box\nENV A=env\n",
        "RUN <<EOF\nB=$A\necho \"$B\" > /one\nEOF\n",
        "RUN <<EOF\n#!/bin/sh\necho \"$0 $A\" > /two\n[ -w /dev/pipes ] || echo no > /three\nEOF\n",
        "RUN <<'EOF' cat > /four; cat <<-two > /five\n$A\nEOF\n\tx\n\ttwo\n",
    ));
    assert_eq!(built.text("one"), "env");
    assert!(built.text("two").starts_with("/dev/pipes/EOF env"), "{}", built.text("two"));
    assert_eq!((built.text("four"), built.text("five")), ("$A".to_owned(), "x".to_owned()));
    assert!(!built.has("dev/pipes"), "nothing stays of it");
}

#[test]
fn r1_directory_user_groups_and_input() {
    let kiln = Kiln::new();
    kiln.base("entry", json!({ "Env": ["PATH=/bin"], "Entrypoint": ["/never"] }));
    let built = kiln.build(concat!(
        "FROM entry\nWORKDIR /tmp\nUSER user\nRUN pwd > a; id -u >> a; id -g >> a; id -G >> a; cat > b\n",
        "RUN [\"touch\", \"$x\"]\n",
    ));
    assert_eq!(built.text("tmp/a"), "/tmp\n1000\n1001\n1001 2000");
    assert_eq!(built.at("tmp/b"), "0644 1000:1001 ", "standard input is empty");
    assert!(built.has("tmp/$x"), "exec form expands nothing");
}

#[test]
fn r2_only_zero_is_success() {
    let log = Kiln::new().fails("FROM box\nRUN true\nRUN echo said; exit 7\n", &[]);
    assert!(log.contains("7") && log.contains("Dockerfile:3"), "{log}");
    assert!(log.contains("said"), "{log}");
}

#[test]
fn r3_hosts_names_and_stubs() {
    let kiln = Kiln::new();
    let built = kiln.build_with(
        "FROM box\nRUN grep -q '10.9.8.7.*far' /etc/hosts && hostname > /name && touch -r /dir /stamp && rm /stamp\n",
        &["--add-host", "far:10.9.8.7"],
    );
    assert_eq!(built.text("name"), "buildkitsandbox");
    assert_eq!(built.last_layer(), ["name"], "no mount point stays");
    assert_eq!(built.names("etc"), ["group", "passwd"]);
    assert_eq!(built.mtime("etc").secs, 1_000_000_000, "folders above get their times back");
    let again = kiln.build_with(
        "FROM box\nRUN grep -q '10.9.8.7.*far' /etc/hosts && hostname > /name && touch -r /dir /stamp && rm /stamp\n",
        &["--add-host", "far:10.9.8.8"],
    );
    assert!(again.cached("RUN grep"), "the addresses are not in the key\n{}", again.log);
}

#[test]
fn r4_bind_mounts() {
    let kiln = Kiln::new();
    kiln.write("a/file", "text");
    let built = kiln.build(concat!(
        "FROM box AS other\nRUN echo other > /o\n",
        "FROM box\nWORKDIR /w\n",
        "RUN --mount=source=a,target=m cp m/file one; touch m/x || echo refused > two\n",
        "RUN --mount=source=a,target=/m,rw echo changed > /m/file; cp /m/file three\n",
        "RUN --mount=source=a/file,target=/f cp /f four\n",
        "RUN --mount=from=other,source=o,target=/o cp /o five\n",
    ));
    let texts = ["one", "two", "three", "four", "five"].map(|it| built.text(&format!("w/{it}")));
    assert_eq!(texts, ["text", "refused", "changed", "text", "other"]);
    assert!(!built.has("w/m") && !built.has("m") && !built.has("f"), "{:?}", built.names("w"));
    assert_eq!(fs::read_to_string(kiln.context("a/file")).expect("it is there"), "text");
    let log = kiln.fails("FROM box\nRUN --mount=source=nope,target=/m true\n", &[]);
    assert!(log.contains("nope"), "{log}");
}

#[test]
fn r5_cache_mounts_outlive_builds() {
    let kiln = Kiln::new();
    let text = |what: &str| {
        format!(
            "FROM box\nRUN --mount=type=cache,target=/c,mode=0711,uid=3,gid=4 echo {what} >> /c/f; cp /c/f /out; stat -c '%a %u:%g' /c > /stat\n"
        )
    };
    let first = kiln.build(&text("one"));
    assert_eq!((first.text("out"), first.text("stat")), ("one".to_owned(), "711 3:4".to_owned()));
    assert!(!first.has("c"), "it is not in the image");
    let second = kiln.build(&text("two").replace("> /stat", "> /stat; chmod 700 /c"));
    assert_eq!(second.text("out"), "one\ntwo");
    assert_eq!(kiln.build(&text("x")).text("stat"), "700 3:4", "only a new one gets a mode");
    // The id is the target as written; another namespace has other caches.
    let other = kiln.build("FROM box\nRUN --mount=type=cache,target=/e touch /e/f\nWORKDIR /w\nRUN --mount=type=cache,target=../e ls /e > /out\n");
    assert_eq!(other.text("out"), "f");
    let spaced = kiln.build_with(&text("three"), &["--build-arg", "BUILDKIT_CACHE_MOUNT_NS=x"]);
    assert_eq!(spaced.text("out"), "three");
    // Neither id nor sharing are in the key.
    let again = kiln.build("FROM box\nRUN --mount=type=cache,target=/c echo same\n");
    assert!(!again.cached("RUN --mount"));
    let again = kiln
        .build("FROM box\nRUN --mount=type=cache,target=/c,id=other,sharing=locked echo same\n");
    assert!(again.cached("RUN --mount"), "{}", again.log);
    // A seed is what a new one starts with.
    let seeded = kiln.build(concat!(
        "FROM box AS seed\nRUN mkdir /s && echo seed > /s/f\nFROM box\n",
        "RUN --mount=type=cache,id=seeded,from=seed,source=s,target=/c cp /c/f /out && echo more > /c/f\n",
    ));
    assert_eq!(seeded.text("out"), "seed");
}

#[test]
fn r5_locked_caches_wait() {
    let built = Kiln::new().build(concat!(
        "FROM box AS a\nRUN --mount=type=cache,id=l,target=/c,sharing=locked ! [ -e /c/lock ] && touch /c/lock && sleep 0.3 && rm /c/lock && touch /a\n",
        "FROM box AS b\nRUN --mount=type=cache,id=l,target=/c,sharing=locked ! [ -e /c/lock ] && touch /c/lock && sleep 0.3 && rm /c/lock && touch /b\n",
        "FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n",
    ));
    assert!(built.has("a") && built.has("b"));
}

#[test]
fn r5_private_caches_are_apart() {
    let built = Kiln::new().build(concat!(
        "FROM box AS a\nRUN --mount=type=cache,id=p,target=/c,sharing=private echo a > /c/f && sleep 0.3 && cp /c/f /a\n",
        "FROM box AS b\nRUN --mount=type=cache,id=p,target=/c,sharing=private echo b > /c/f && sleep 0.3 && cp /c/f /b\n",
        "FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n",
    ));
    assert_eq!((built.text("a"), built.text("b")), ("a".to_owned(), "b".to_owned()));
}

#[test]
fn r6_without_cache_a_cache_mount_is_empty() {
    let kiln = Kiln::new();
    let text = "FROM box\nRUN --mount=type=cache,target=/c ls /c > /out; touch /c/f\n";
    kiln.build(text);
    let built = kiln.build_with(text, &["--no-cache"]);
    assert_eq!(built.text("out"), "");
}

#[test]
fn r7_tmpfs_mounts() {
    let built = Kiln::new().build(concat!(
        "FROM box\nRUN --mount=type=tmpfs,target=/dir,size=64k ls /dir > /a; grep ' /dir ' /proc/mounts > /b; ",
        "dd if=/dev/zero of=/dir/x bs=1k count=128 2>/dev/null || echo full > /c\n",
    ));
    assert_eq!((built.text("a"), built.text("c")), (String::new(), "full".to_owned()));
    assert!(built.text("b").contains("size=64k"), "{}", built.text("b"));
    assert_eq!(built.names("dir"), ["old"]);
}

#[test]
fn r8_secrets() {
    let kiln = Kiln::new();
    fs::write(kiln.path("one.txt"), "first").expect("written");
    let text = concat!(
        "FROM box\nRUN --mount=type=secret,id=s,uid=7,mode=0440 ",
        "sha256sum /run/secrets/s | cut -c1-8 > /a; stat -c '%a %u:%g' /run/secrets/s >> /a\n",
        "RUN --mount=type=secret,id=s,env=E [ \"$E\" = first ] && [ ! -e /run/secrets/s ] && touch /b\n",
        "RUN --mount=type=secret,id=s,env=E,target=/f [ \"$E\" = first ] && [ -s /f ] && touch /c\n",
        "RUN --mount=type=secret,id=none,env=N --mount=type=secret,id=gone [ -z \"$N\" ] && [ \"${N+set}\" = set ] && [ ! -e /run/secrets/gone ] && touch /d\n",
        "RUN --mount=type=secret,id=s,target=/m grep ' /m ' /proc/mounts > /e\n",
    );
    let built = kiln.build_with(text, &["--secret", "id=s,src=one.txt"]);
    let sum = "a7937b64";
    assert_eq!(built.text("a"), format!("{sum}\n440 7:0"));
    assert!(["b", "c", "d"].iter().all(|it| built.has(it)));
    assert!(built.text("e").contains("tmpfs"), "{}", built.text("e"));
    assert!(!built.has("run/secrets") && !built.has("f") && !built.has("m"));
    // Another value is no other step.
    fs::write(kiln.path("one.txt"), "second").expect("written");
    let again = kiln.build_with(text, &["--secret", "id=s,src=one.txt"]);
    assert!(again.cached("id=s,uid=7"), "{}", again.log);
    let log = kiln.fails("FROM box\nRUN --mount=type=secret,id=s,required true\n", &[]);
    assert!(log.contains("`s`") || log.contains("secret s"), "{log}");
    let default = kiln.build_with(
        "FROM box\nRUN --mount=type=secret,id=s stat -c '%a %u:%g' /run/secrets/s > /a\n",
        &["--secret", "id=s,src=one.txt"],
    );
    assert_eq!(default.text("a"), "400 0:0");
}

/// Puts a program of this machine and the libraries it needs into the context.
fn add_program(kiln: &Kiln, program: &str) {
    kiln.write(
        program.trim_start_matches('/'),
        fs::read(program).expect("openssh-client is installed"),
    );
    kiln.mode(program.trim_start_matches('/'), 0o755);
    let listed = Command::new("ldd").arg(program).output().expect("it runs").stdout;
    for word in String::from_utf8_lossy(&listed).split_whitespace().filter(|it| it.starts_with('/'))
    {
        kiln.write(word.trim_start_matches('/'), fs::read(word).expect("a library"));
        kiln.mode(word.trim_start_matches('/'), 0o755);
    }
}

/// OpenSSH's own programs use keys from files through the socket in a RUN, and what they signed is verified outside.
#[test]
fn r9_keys_in_files() {
    let kiln = Kiln::new();
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/executor/ssh");
    let names = ["ed25519", "rsa", "ecdsa-256", "ecdsa-384", "ecdsa-521", "rsa-pem"];
    for program in ["/usr/bin/ssh-add", "/usr/bin/ssh-keygen"] {
        add_program(&kiln, program);
    }
    let mut dockerfile = "FROM box\nCOPY usr /usr/\nCOPY lib* /lib/\nCOPY lib64 /lib64/\nRUN mkdir -p /etc && echo root:x:0:0::/: >> /etc/passwd; echo data > /data\nRUN --mount=type=ssh /usr/bin/ssh-add -l > /list; /usr/bin/ssh-add -D 2>/dev/null || touch /refused\n".to_owned();
    for name in names {
        let public = format!("{name}.pub");
        kiln.write(&public, fs::read(keys.join(&public)).expect("a key"));
        dockerfile += &format!(
            "COPY {public} /k/\nRUN --mount=type=ssh /usr/bin/ssh-keygen -q -Y sign -f /k/{public} -n test < /data > /{name}.sig\n"
        );
    }
    let paths: Vec<String> = names.iter().map(|it| keys.join(it).display().to_string()).collect();
    let built = kiln.build_with(&dockerfile, &["--ssh", &format!("default={}", paths.join(","))]);
    assert_eq!(built.text("list").lines().count(), names.len(), "{}", built.text("list"));
    assert!(built.text("list").contains("test of kiln (ED25519)"));
    assert!(built.has("refused"), "keys cannot be removed");
    for name in names {
        kiln.write("sig", built.text(&format!("{name}.sig")) + "\n");
        let public = fs::read_to_string(keys.join(format!("{name}.pub"))).expect("a key");
        kiln.write("allowed", format!("me {public}"));
        let mut verify = Command::new("ssh-keygen");
        verify.args(["-Y", "verify", "-n", "test", "-I", "me", "-f"]).arg(kiln.context("allowed"));
        verify.arg("-s").arg(kiln.context("sig"));
        kiln.write("data", "data\n");
        let data = fs::File::open(kiln.context("data")).expect("it was written");
        let done = verify.stdin(data).output().expect("it runs");
        assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
    }
    for (path, says) in [
        (keys.join("encrypted").display().to_string(), "is protected by a passphrase"),
        (format!("{},/dev/null", keys.join("rsa").display()), "no private key that can be used"),
        ("/nowhere".to_owned(), "cannot read key"),
    ] {
        let log = kiln.fails("FROM box\n", &["--ssh", &format!("default={path}")]);
        assert!(log.contains(says) && log.contains("hint: "), "{log}");
    }
}

#[test]
fn r9_agents() {
    let kiln = Kiln::new();
    let agent = kiln.path("agent");
    let _listener = std::os::unix::net::UnixListener::bind(&agent).expect("a socket");
    let ssh = format!("default={}", agent.display());
    let built = kiln.build_with(
        concat!(
            "FROM box\nRUN --mount=type=ssh,mode=0660,uid=7,gid=8 ",
            "echo $SSH_AUTH_SOCK > /a; stat -c '%F %a %u:%g' $SSH_AUTH_SOCK >> /a\n",
            "RUN --mount=type=ssh,target=/s echo $SSH_AUTH_SOCK > /b\n",
            "RUN --mount=type=ssh,id=none true && [ -z \"$SSH_AUTH_SOCK\" ] && touch /c\n",
        ),
        &["--ssh", &ssh],
    );
    assert_eq!(built.text("a"), "/run/buildkit/ssh_agent.0\nsocket 660 7:8");
    assert_eq!(built.text("b"), "/s");
    assert!(!built.has("run/buildkit") && !built.has("s"));
    let log = kiln.fails("FROM box\nRUN --mount=type=ssh,required true\n", &[]);
    assert!(log.contains("ssh") || log.contains("agent"), "{log}");
}

#[test]
fn r11_networks() {
    let kiln = Kiln::new();
    let links = "ls /sys/class/net | sort | tr '\\n' ' '";
    let text = format!(
        "FROM box\nRUN --network=none {links} > /none; ping -c1 -W1 127.0.0.1 >/dev/null && touch /lo\nRUN --network=host {links} > /host\n"
    );
    let built = kiln.build_with(&text, &["--allow", "network.host"]);
    assert_eq!(built.text("none"), "lo");
    assert!(built.has("lo"), "loopback is there");
    // The interfaces of isolated networks come and go with the tests beside this one.
    let stays = |link: &String| !link.starts_with("kiln");
    let mut host: Vec<_> = fs::read_dir("/sys/class/net")
        .expect("it is there")
        .map(|it| it.expect("a name").file_name().to_string_lossy().into_owned())
        .filter(stays)
        .collect();
    host.sort();
    let seen = built.text("host");
    let seen: Vec<_> = seen.split_whitespace().map(str::to_owned).filter(stays).collect();
    assert_eq!(seen, host);
    let log = kiln.fails(&text, &[]);
    assert!(log.contains("network.host"), "{log}");
}

#[test]
fn r12_insecure_needs_to_be_allowed() {
    let kiln = Kiln::new();
    let text = "FROM box\nRUN grep CapEff /proc/self/status > /a\nRUN --security=insecure grep CapEff /proc/self/status > /b\n";
    let log = kiln.fails(text, &[]);
    assert!(log.contains("security.insecure"), "{log}");
    let built = kiln.build_with(text, &["--allow", "security.insecure"]);
    let value = |path: &str| {
        u64::from_str_radix(built.text(path).trim_start_matches("CapEff:\t"), 16).expect("a mask")
    };
    assert_eq!(value("a"), 0xa804_25fb, "the default set");
    assert!(value("b") > value("a"), "{:x}", value("b"));
}

#[test]
fn r14_limits() {
    let kiln = Kiln::new();
    let text = "FROM box\nRUN ulimit -Sn > /a; ulimit -Hn >> /a; df -k /dev/shm | tail -1 | awk '{print $2}' > /b\n";
    let built = kiln.build_with(text, &["--ulimit", "nofile=100:200", "--shm-size", "1m"]);
    assert_eq!((built.text("a"), built.text("b")), ("100\n200".to_owned(), "1024".to_owned()));
    let other = kiln.build_with(text, &["--ulimit", "nofile=100:201", "--shm-size", "1m"]);
    assert!(!other.cached("RUN ulimit"), "limits of processes are in the key");
}

#[test]
fn r15_the_sandbox() {
    let built = Kiln::new().build(concat!(
        "FROM box\nRUN grep -E 'Seccomp:|NoNewPrivs' /proc/self/status > /a; ",
        "echo x > /proc/sys/kernel/hostname || echo no > /b; cat /proc/kcore | head -c1 | wc -c > /c; ",
        "echo $$ > /d; ls /dev | sort | tr '\\n' ' ' > /e; mount -t tmpfs x /tmp || echo no > /f\n",
    ));
    assert!(built.text("a").contains("Seccomp:\t2"), "{}", built.text("a"));
    assert_eq!(
        (built.text("b"), built.text("c"), built.text("f")),
        ("no".into(), "0".into(), "no".into())
    );
    assert!(built.text("d").parse::<u32>().expect("a number") < 10, "its own processes");
    for name in ["null", "zero", "full", "random", "urandom", "tty", "pts", "shm", "fd"] {
        assert!(built.text("e").split(' ').any(|it| it == name), "{name}: {}", built.text("e"));
    }
}

#[test]
fn r16_programs_of_another_machine_are_named() {
    let kiln = Kiln::new();
    let mut elf = fs::read("/bin/busybox").expect("it is there");
    elf[18..20].copy_from_slice(&[0x16, 0]); // s390
    kiln.write("other", elf);
    kiln.mode("other", 0o755);
    let log = kiln.fails("FROM box\nCOPY other /other\nRUN [\"/other\"]\n", &[]);
    assert!(log.contains("exec format error") || log.contains("binfmt"), "{log}");
}

#[test]
fn i1_workdir_makes_folders_of_the_user() {
    let built = Kiln::new().build("FROM box\nUSER user\nWORKDIR /new/sub\nWORKDIR /dir\nUSER 7\nWORKDIR rel\nRUN pwd > /tmp/out\n");
    assert_eq!(built.at("new"), "d 0755 1000:1001");
    assert_eq!(built.at("new/sub"), "d 0755 1000:1001");
    assert_eq!(built.at("dir"), "d 0750 5:6", "an existing one is left alone");
    assert_eq!(built.text("tmp/out"), "/dir/rel");
}

#[test]
fn i2_users() {
    let kiln = Kiln::new();
    let built = kiln.build(concat!(
        "FROM box\nUSER 1000\nRUN id -g > /tmp/a; id -G >> /tmp/a\nUSER 4242\nRUN id -u > /tmp/b; id -g >> /tmp/b\n",
        "USER user:others\nRUN id -g > /tmp/c\nUSER 3:4\nRUN id -u > /tmp/d; id -g >> /tmp/d\n",
    ));
    let texts = ["a", "b", "c", "d"].map(|it| built.text(&format!("tmp/{it}")));
    assert_eq!(texts, ["1001\n1001 2000", "4242\n0", "8", "3\n4"]);
    let log = kiln.fails("FROM box\nUSER nobody-here\nRUN true\n", &[]);
    assert!(log.contains("nobody-here"), "{log}");
    kiln.build("FROM box\nUSER nobody-here\n");
}

#[test]
fn i8_what_runs_write_into_a_volume_stays() {
    let built = Kiln::new().build("FROM box\nVOLUME /v\nRUN mkdir -p /v && echo x > /v/f\n");
    assert_eq!(built.text("v/f"), "x");
    assert!(built.config.config.volumes.contains_key("/v"));
}
