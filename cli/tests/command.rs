//! Runs the binary on the command lines of `testdata/cli/*.case` and compares what it says with the `.expected` beside each.
//!
//! A case is a list of lines:
//!
//! ```text
//! # a comment
//! file NAME TEXT      makes a file, `\n` in TEXT is a newline
//! link NAME TARGET    makes a symbolic link
//! env NAME=VALUE      sets a variable for the commands that follow
//! stdin TEXT          is the standard input of the next command
//! kiln ARG…           runs a command; 'an argument in quotes' may hold blanks
//! ```
//!
//! Commands run in a folder of their own, with a cleared environment, their own home and store. Run with `BLESS=1` to rewrite the
//! expectations, then read the diff.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

#[test]
fn commands_say_what_they_should() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/cli");
    let mut n_cases = 0;
    let mut wrong = Vec::new();
    for entry in fs::read_dir(&folder).expect("testdata/cli is there") {
        let path = entry.expect("it can be listed").path();
        let known = path.extension().is_some_and(|it| it == "case" || it == "expected");
        assert!(known, "{}: no test claims this file", path.display());
        if path.extension().is_none_or(|it| it != "case") {
            assert!(
                path.with_extension("case").exists(),
                "{}: there is no case for it",
                path.display()
            );
            continue;
        }
        n_cases += 1;
        let found = check(&fs::read_to_string(&path).expect("a case is text"));
        let expected = path.with_extension("expected");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&expected, &found).expect("the expectation can be written");
        } else if fs::read_to_string(&expected).unwrap_or_default() != found {
            wrong.push(format!("{}:\n{found}", path.display()));
        }
    }
    assert_ne!(n_cases, 0, "there are no cases");
    assert!(wrong.is_empty(), "not as expected:\n\n{}", wrong.join("\n"));
}

/// Runs one case and returns what is to be compared.
fn check(case: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut env, mut stdin, mut out) = (Vec::new(), String::new(), String::new());
    for line in case.lines().filter(|it| !it.is_empty() && !it.starts_with('#')) {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb {
            "file" => {
                let (name, text) = rest.split_once(' ').unwrap_or((rest, ""));
                let path = folder.path().join(name);
                fs::create_dir_all(path.parent().expect("it is in the folder")).expect("made");
                fs::write(path, text.replace("\\n", "\n")).expect("written");
            }
            "link" => {
                let (name, target) = rest.split_once(' ').expect("NAME TARGET");
                let path = folder.path().join(name);
                fs::create_dir_all(path.parent().expect("it is in the folder")).expect("made");
                std::os::unix::fs::symlink(target, path).expect("made");
            }
            "env" => env.push(rest.split_once('=').expect("NAME=VALUE")),
            "stdin" => stdin = rest.replace("\\n", "\n"),
            "kiln" => {
                out.push_str(&run(folder.path(), line, rest, &env, &std::mem::take(&mut stdin)))
            }
            _ => panic!("no such line: {line}"),
        }
    }
    out
}

fn run(folder: &Path, line: &str, args: &str, env: &[(&str, &str)], stdin: &str) -> String {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kiln"))
        .args(words(args))
        .current_dir(folder)
        .env_clear()
        .env("HOME", folder.join("home"))
        .env("KILN_ROOT", folder.join("store"))
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kiln runs");
    // A command that does not read its input closes it.
    let _ = child.stdin.take().expect("piped").write_all(stdin.as_bytes());
    let output = child.wait_with_output().expect("kiln ends");
    let mut out = format!("$ {line}\n");
    for (name, bytes) in [("out", &output.stdout), ("err", &output.stderr)] {
        let text = String::from_utf8_lossy(bytes).replace(&*folder.to_string_lossy(), "$DIR");
        let text = text
            .replace(env!("CARGO_PKG_VERSION"), "$VERSION")
            .replace(&image::Platform::host().format_all(), "$PLATFORM");
        for line in text.lines() {
            out.push_str(format!("{name}| {line}").trim_end());
            out.push('\n');
        }
    }
    match output.status.code() {
        Some(status) => out.push_str(&format!("status {status}\n\n")),
        None => out.push_str(&format!("{}\n\n", output.status)),
    }
    out
}

fn words(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    for (n, piece) in text.split('\'').enumerate() {
        match n % 2 {
            0 => out.extend(piece.split_whitespace().map(str::to_owned)),
            _ => out.push(piece.to_owned()),
        }
    }
    out
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kiln"))
        .args(["completions", "bash"])
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kiln runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("kiln ends");
    assert!(output.status.success(), "{}", output.status);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
