//! Secrets go where they were sent and nowhere else: not into the store, the image, a log, or the environment of a process.
//!
//! What is searched is read as it is and decompressed; a secret is looked for as it is, in halves, in base 16 and in base 64.
//! The control is a build that gives its secret away on purpose.

use std::{
    fs,
    io::{BufReader, Read},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use crate::{
    images::{Layer, Registry, image},
    lab::Lab,
    tars::Tar,
};

/// A secret, which is another one in each run.
fn secret() -> String {
    let mut bytes = [0; 20];
    fs::File::open("/dev/urandom").and_then(|mut it| it.read_exact(&mut bytes)).expect("readable");
    bytes
        .iter()
        .map(|it| char::from(b'a' + it % 26))
        .chain(bytes.iter().map(|it| char::from(b'A' + (it / 10) % 26)))
        .collect()
}

/// Base 64 of whole groups of three bytes, and of what is left.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |n: usize| u32::from(chunk.get(n).copied().unwrap_or(0));
        let all = byte(0) << 16 | byte(1) << 8 | byte(2);
        let letter = |n: usize| match n > chunk.len() {
            true => '=',
            false => char::from(LETTERS[(all >> (18 - 6 * n) & 63) as usize]),
        };
        out.extend((0..4).map(letter));
    }
    out
}

/// All that a secret may look like.
fn needles(secret: &str) -> Vec<Vec<u8>> {
    let bytes = secret.as_bytes();
    let (one, other) = bytes.split_at(bytes.len() / 2);
    let hex: String = bytes.iter().map(|it| format!("{it:02x}")).collect();
    let mut all = vec![
        bytes.to_vec(),
        one.to_vec(),
        other.to_vec(),
        hex.to_uppercase().into_bytes(),
        hex.into_bytes(),
    ];
    // Base 64 in each of its three alignments.
    let whole = |skip: usize| &bytes[skip..skip + (bytes.len() - skip) / 3 * 3];
    all.extend((0..3).map(|skip| base64(whole(skip)).into_bytes()));
    all
}

fn has(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|it| it == needle)
}

/// The files below some places that hold a secret, in their names or in what they hold, compressed or not.
fn search(places: &[PathBuf], secrets: &[&str]) -> Vec<String> {
    let needles: Vec<Vec<u8>> = secrets.iter().flat_map(|it| needles(it)).collect();
    let scratch = tempfile::tempdir().expect("a folder");
    let patterns = scratch.path().join("patterns");
    fs::write(&patterns, needles.join(&b'\n')).expect("written");
    let plain = scratch.path().join("plain");
    fs::create_dir(&plain).expect("made");
    let (mut found, mut names) = (Vec::new(), Vec::new());
    let mut todo = places.to_vec();
    while let Some(path) = todo.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() {
            todo.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|it| it.path()));
        }
        if !metadata.is_file() {
            continue;
        }
        let name = path.display().to_string();
        if needles.iter().any(|it| has(name.as_bytes(), it)) {
            found.push(name.clone());
        }
        let file = BufReader::new(fs::File::open(&path).expect("readable"));
        if let Ok((format, mut reader)) = image::compress::decompress(file)
            && format != image::compress::Detected::Plain
        {
            let mut copy = fs::File::create(plain.join(names.len().to_string())).expect("made");
            // What only looks compressed ends early, and is searched as it is all the same.
            let _ = std::io::copy(&mut reader, &mut copy);
        }
        names.push(name);
    }
    assert!(!names.is_empty(), "nothing was searched");
    let grep = std::process::Command::new("grep")
        .args(["-rlaF", "-f"])
        .arg(&patterns)
        .arg(&plain)
        .args(places.iter().filter(|it| it.exists()))
        .output()
        .expect("grep runs");
    for line in String::from_utf8_lossy(&grep.stdout).lines() {
        let number = line.strip_prefix(&format!("{}/", plain.display()));
        found.push(
            number
                .and_then(|it| names.get(it.parse::<usize>().ok()?))
                .map_or_else(|| line.to_owned(), |it| format!("{it}, decompressed")),
        );
    }
    found
}

/// Processes but these whose environment or arguments hold a secret, and that are none of the command itself.
fn processes(secrets: &[&str], but: &[u32]) -> Vec<String> {
    let needles: Vec<Vec<u8>> = secrets.iter().flat_map(|it| needles(it)).collect();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("readable").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|it| it.parse::<u32>().ok()) else {
            continue;
        };
        if but.contains(&pid) {
            continue;
        }
        for name in ["environ", "cmdline"] {
            let text = fs::read(entry.path().join(name)).unwrap_or_default();
            if needles.iter().any(|it| has(&text, it)) {
                let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                found.push(format!(
                    "{name} of {pid}: {}",
                    String::from_utf8_lossy(&line).replace('\0', " ")
                ));
            }
        }
    }
    found
}

/// What a build leaves that one might look into.
fn places(lab: &Lab) -> Vec<PathBuf> {
    ["store", "out", "out.tar", "oci.tar", "image.tar", "metadata.json", "said"]
        .map(|it| lab.path(it))
        .to_vec()
}

/// Builds, and keeps what was said, with all that commands tell of the image.
fn build(lab: &Lab, text: &str, args: &[&str], env: &[(&str, &str)]) -> Option<i32> {
    fs::create_dir_all(lab.path("context")).expect("made");
    fs::create_dir_all(lab.path("said")).expect("made");
    fs::write(lab.path("context/Dockerfile"), text).expect("written");
    let fixed =
        ["build", "--progress", "plain", "-t", "result", "--metadata-file", "metadata.json"];
    let mut command = lab.kiln(&[&fixed[..], args, &["context"]].concat());
    command.envs(env.iter().copied());
    let ran = lab.finish(command, b"");
    let status = ran.status;
    let mut said = format!("{}{}", ran.out, ran.err);
    // Options of outputs are none of a plan's.
    let inputs: Vec<&str> = args.chunks(2).filter(|it| it[0] != "-o").flatten().copied().collect();
    let mut tell = |args: &[&str]| {
        let mut command = lab.kiln(args);
        command.envs(env.iter().copied());
        let ran = lab.finish(command, b"");
        assert_ne!(ran.status, Some(2), "{args:?}: {}", ran.err);
        said += &format!("{}{}", ran.out, ran.err);
    };
    for format in ["text", "json", "svg", "dot"] {
        let plan = ["plan", "--format", format];
        tell(&[&plan[..], &inputs, &["context"]].concat());
        if format == "text" || format == "json" {
            tell(&[&plan[..], &["--explain"], &inputs, &["context"]].concat());
            tell(&["explain", "--format", format]);
            tell(&["explain", "--format", format, "result"]);
        }
    }
    for call in ["outline", "targets", "check", "context"] {
        tell(&[&["build", "--call", call][..], &inputs, &["context"]].concat());
    }
    for args in [
        &["history", "--no-trunc", "result"][..],
        &["image", "inspect", "result"],
        &["logs"],
        &["logs", "--list"],
        &["system", "df", "-v"],
        &["save", "-o", "image.tar", "result"],
    ] {
        tell(args);
    }
    let n = fs::read_dir(lab.path("said")).expect("readable").count();
    fs::write(lab.path("said").join(n.to_string()), said).expect("written");
    status
}

/// Makes a key for ssh, and returns pieces of its secret part, as they are in the file.
fn ssh_key(path: &Path) -> Vec<String> {
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "rsa", "-b", "2048", "-N", "", "-C", "", "-f"])
        .arg(path)
        .status();
    assert!(made.expect("install openssh-client").success());
    let text = fs::read_to_string(path).expect("written");
    let lines: Vec<&str> = text.lines().filter(|it| !it.starts_with('-')).collect();
    // What comes first is public.
    lines[lines.len() / 2..lines.len() - 2].iter().map(|it| (*it).to_owned()).collect()
}

fn use_all() -> &'static str {
    "FROM box\n\
     RUN --mount=type=secret,id=file --mount=type=secret,id=env,env=GIVEN --mount=type=ssh --mount=type=ssh,id=key \
     [ $(cat /run/secrets/file | wc -c) -gt 30 ] && [ ${#GIVEN} -gt 30 ] && [ -n \"$HTTP_PROXY\" ] && [ -S \"$SSH_AUTH_SOCK\" ] && cat /run/secrets/file > /dev/shm/copy && echo done > /result\n\
     RUN --mount=type=secret,id=file,target=/etc/app/token --mount=type=secret,id=env,target=/root/.token,mode=0444,uid=7 cat /etc/app/token /root/.token | wc -c > /n\n\
     COPY --from=box /etc/passwd /after\n"
}

#[test]
fn privileged_no_secret_is_left_by_a_build() {
    let lab = Lab::with_box();
    let (file, env, proxy) = (secret(), secret(), secret());
    fs::write(lab.path("token"), &file).expect("written");
    let _agent = std::os::unix::net::UnixListener::bind(lab.path("agent")).expect("a socket");
    let key = ssh_key(&lab.path("key"));
    let proxy_arg = format!("HTTP_PROXY=http://user:{proxy}@127.0.0.1:1");
    let of_key = key.iter().map(String::as_str);
    let secrets: Vec<&str> = [file.as_str(), &env, &proxy].into_iter().chain(of_key).collect();
    let args = [
        "--secret",
        "id=file,src=token",
        "--secret",
        "id=env,env=TOKEN",
        "--ssh",
        "default=agent",
        "--ssh",
        "key=key",
        "--build-arg",
        &proxy_arg,
    ];
    let outputs = [
        "-o",
        "type=local,dest=out",
        "-o",
        "type=tar,dest=out.tar",
        "-o",
        "type=oci,dest=oci.tar",
        "-o",
        "type=image,name=result,compression=zstd,force-compression=true",
        "--attest",
        "type=provenance,mode=max",
    ];
    let env_of = [("TOKEN", env.as_str())];
    let status = build(&lab, use_all(), &[&args[..], &outputs].concat(), &env_of);
    assert_eq!(status, Some(0), "{}", fs::read_to_string(lab.path("said/0")).expect("said"));
    assert_eq!(search(&places(&lab), &secrets), Vec::<String>::new(), "after a build");
    // Known, and with other secrets.
    let other = secret();
    fs::write(lab.path("token"), &other).expect("written");
    assert_eq!(build(&lab, use_all(), &args, &env_of), Some(0));
    assert_eq!(
        search(&places(&lab), &[&other, &env, &proxy, &key[0]]),
        Vec::<String>::new(),
        "after another"
    );
    // A step that fails, in the middle of what it does.
    let failing = use_all()
        .replace("echo done > /result", "cp /run/secrets/file /left && rm /left && exit 3");
    assert_eq!(build(&lab, &failing, &args, &env_of), Some(1));
    assert_eq!(
        search(&places(&lab), &[&other, &env, &proxy]),
        Vec::<String>::new(),
        "after a failure"
    );
}

/// The search finds what is there to be found.
#[test]
fn privileged_a_secret_that_a_build_gives_away_is_found() {
    let lab = Lab::with_box();
    let leaks = [
        ("as it is", "cat /run/secrets/s > /leak"),
        ("in base 64", "base64 /run/secrets/s > /leak"),
        ("in base 16", "xxd -p -c 99 /run/secrets/s > /leak"),
        ("half of it", "head -c 20 /run/secrets/s > /leak"),
        ("in what it says", "cat /run/secrets/s"),
        ("compressed", "gzip -c /run/secrets/s > /leak"),
    ];
    for (name, command) in leaks {
        let token = secret();
        fs::write(lab.path("token"), &token).expect("written");
        let text = format!("FROM box\nRUN --mount=type=secret,id=s {command} # {token:.3}\n");
        let args = ["--no-cache", "--secret", "id=s,src=token", "-o", "out"];
        assert_eq!(build(&lab, &text, &args, &[]), Some(0), "{name}");
        assert!(!search(&places(&lab), &[&token]).is_empty(), "a secret {name} is not found");
    }
    // The value of an argument is no secret: docker's history has it too, and the lint says so.
    let token = secret();
    let arg = format!("PASSWORD={token}");
    assert_eq!(
        build(&lab, "FROM box\nARG PASSWORD\nRUN echo x > /x\n", &["--build-arg", &arg], &[]),
        Some(0)
    );
    assert!(!search(&places(&lab), &[&token]).is_empty(), "an argument is not found");
}

#[test]
fn privileged_no_other_process_has_a_secret_while_a_command_runs() {
    let lab = Lab::with_box();
    let (file, env) = (secret(), secret());
    fs::write(lab.path("token"), &file).expect("written");
    fs::create_dir_all(lab.path("context")).expect("made");
    // The command that is given a secret as a variable has it; here it asks for the file only.
    let text = "FROM box\nRUN --mount=type=secret,id=file --mount=type=secret,id=env touch /started && sleep 6543\n";
    fs::write(lab.path("context/Dockerfile"), text).expect("written");
    let args =
        ["build", "--secret", "id=file,src=token", "--secret", "id=env,env=TOKEN", "context"];
    let mut child = lab
        .kiln(&args)
        .env("TOKEN", &env)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("kiln runs");
    let started = Instant::now();
    while !fs::read_dir("/proc").expect("readable").flatten().any(|it| {
        let line = fs::read(it.path().join("cmdline")).unwrap_or_default();
        line.starts_with(b"sleep\x006543")
            || has(&line, b"sleep 6543") && !line.starts_with(env!("CARGO_BIN_EXE_kiln").as_bytes())
    }) {
        assert!(started.elapsed() < Duration::from_secs(30), "the command does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(100));
    // kiln itself was given the variable by its caller.
    let found = processes(&[&file, &env], &[child.id(), std::process::id()]);
    let control = processes(&[&env], &[]);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
    child.wait().expect("it ends");
    assert!(!control.is_empty(), "the control: kiln itself has the variable");
    assert_eq!(found, Vec::<String>::new());
    // Killed in the middle: nothing of it is left after the next command.
    let _ = lab.run(&["system", "df"]);
    assert_eq!(search(&[lab.path("store")], &[&file, &env]), Vec::<String>::new(), "after kill -9");
}

#[test]
fn privileged_credentials_of_registries_and_repositories_are_not_left() {
    let lab = Lab::with_box();
    let (password, token) = (secret(), secret());
    let registry = Registry::new();
    registry.demand("kiln", &password);
    registry.serve("private", &image(&[Layer::gzip(&Tar::new().file("f", "x").end())], |_, _| ()));
    fs::create_dir(lab.path(".docker")).expect("made");
    let auth = registry.authorization().expect("demanded");
    let auth = auth.trim_start_matches("Basic ");
    let config = format!(r#"{{"auths": {{"{}": {{"auth": "{auth}"}}}}}}"#, registry.address);
    fs::write(lab.path(".docker/config.json"), config).expect("written");
    let text = format!("FROM {}/private\nCOPY --from=box /etc/passwd /x\n", registry.address);
    assert_eq!(
        build(&lab, &text, &[], &[]),
        Some(0),
        "{}",
        fs::read_to_string(lab.path("said/0")).expect("said")
    );
    assert!(registry.asked().iter().any(|it| it.contains(auth)), "the credential was used");

    // A git that notes what it is given, and fails.
    fs::create_dir(lab.path("bin")).expect("made");
    let noted = lab.path("noted");
    let script = format!(
        "#!/bin/sh\ncat /proc/$$/environ /proc/$$/cmdline >> {0}\ncat \"$GIT_CONFIG_GLOBAL\" > {0}-config\nexit 128\n",
        noted.display()
    );
    fs::write(lab.path("bin/git"), script).expect("written");
    fs::set_permissions(lab.path("bin/git"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("set");
    let path =
        format!("{}:{}", lab.path("bin").display(), std::env::var("PATH").unwrap_or_default());
    fs::write(lab.path("token"), &token).expect("written");
    let text = format!("FROM scratch\nADD http://user:{password}@127.0.0.1:1/x.git /x\n");
    let args = ["--secret", "id=GIT_AUTH_TOKEN,src=token"];
    assert_eq!(build(&lab, &text, &args, &[("PATH", &path)]), Some(1));
    let file = fs::read_to_string(lab.path("noted-config")).expect("git was run");
    assert!(file.contains("extraheader") && file.contains(&password), "git is told: {file}");
    let secrets = [token.as_str(), &password];
    assert_eq!(
        search(std::slice::from_ref(&noted), &secrets),
        Vec::<String>::new(),
        "git's environment"
    );
    // The Dockerfile itself names the password, and plan and errors show the Dockerfile: what is kept must not.
    assert_eq!(
        search(&[lab.path("store"), lab.path("metadata.json")], &secrets),
        Vec::<String>::new()
    );
    assert_eq!(search(&[lab.path("said/0")], &secrets), Vec::<String>::new());
}

/// Where nothing is to be found is said by a path, not by a file that is missing.
#[test]
fn privileged_the_places_of_the_search_are_there() {
    let lab = Lab::with_box();
    let outputs = [
        "-o",
        "type=local,dest=out",
        "-o",
        "type=tar,dest=out.tar",
        "-o",
        "type=oci,dest=oci.tar",
        "-o",
        "type=image,name=result",
    ];
    assert_eq!(build(&lab, "FROM box\nRUN echo said; echo x > /x\n", &outputs, &[]), Some(0));
    for place in places(&lab) {
        assert!(Path::new(&place).exists(), "{}", place.display());
    }
}
