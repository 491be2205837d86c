//! What a person sees of a mistake in a Dockerfile: message, line, and a caret under the right bytes.
//!
//! The binary builds every Dockerfile of `testdata/carets/cases` and every wrong one of `testdata/parser/err`, in a folder of
//! its own, and what it writes to standard error is compared with `testdata/carets/FOLDER/NAME.expected`. Lines of a
//! Dockerfile that begin with `#:` set the case up, and are comments to everybody else:
//!
//! ```text
//! #: file PATH TEXT     a file of the context; `\n` and `\xNN` in TEXT are escapes
//! #: option ARG…        options of `kiln build`
//! ```
//!
//! Run with `BLESS=1` to rewrite the expectations, then look at each caret in the diff.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Mistakes that are not in the Dockerfile, so that there is nothing to point at.
const WITHOUT_PLACE: [&str; 1] = ["cases/context-folder-missing"];

#[test]
fn carets_are_under_the_right_bytes() {
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata");
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for (folder, dockerfiles) in [("parser", "parser/err"), ("cases", "carets/cases")] {
        let expectations = testdata.join("carets").join(folder);
        let mut names = BTreeSet::new();
        for path in files(&testdata.join(dockerfiles), "dockerfile") {
            let name = path.file_stem().expect("it has a name").to_string_lossy().into_owned();
            let found = check(&path);
            let expected = expectations.join(format!("{name}.expected"));
            if std::env::var_os("BLESS").is_some() {
                fs::write(&expected, &found).expect("it can be written");
            }
            let case = format!("{folder}/{name}");
            if fs::read_to_string(&expected).unwrap_or_default() != found {
                wrong.push(format!("{case}:\n{found}"));
            }
            let has_caret = found.lines().any(|it| it.contains('^'));
            if has_caret == WITHOUT_PLACE.contains(&case.as_str()) {
                wrong.push(format!("{case} has a caret: {has_caret}\n{found}"));
            }
            seen.extend(found.lines().filter(|it| it.starts_with("error[")).map(str::to_owned));
            names.insert(name);
        }
        for path in files(&expectations, "expected") {
            let name = path.file_stem().expect("it has a name").to_string_lossy().into_owned();
            assert!(names.contains(&name), "{}: there is no case for it", path.display());
        }
    }
    assert!(wrong.is_empty(), "not as expected:\n\n{}", wrong.join("\n"));
    assert!(seen.len() >= 120, "only {} mistakes differ", seen.len());
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the folder is there")
        .map(|it| it.expect("it can be listed").path())
        .filter(|it| it.extension().is_some_and(|it| it == extension))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "{}: nothing there", folder.display());
    found
}

/// Builds one Dockerfile and returns what was said, and the status.
fn check(dockerfile: &Path) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let context = folder.path().join("context");
    fs::create_dir(&context).expect("made");
    let bytes = fs::read(dockerfile).expect("it can be read");
    fs::write(context.join("Dockerfile"), &bytes).expect("written");
    let mut options = Vec::new();
    for line in String::from_utf8_lossy(&bytes).lines().filter_map(|it| it.strip_prefix("#: ")) {
        match line.split_once(' ').expect("a word and what follows") {
            ("file", rest) => {
                let (name, text) = rest.split_once(' ').unwrap_or((rest, ""));
                let path = context.join(name);
                fs::create_dir_all(path.parent().expect("it is in the folder")).expect("made");
                fs::write(path, unescaped(text)).expect("written");
            }
            ("option", rest) => options.extend(rest.split(' ').map(str::to_owned)),
            (word, _) => panic!("{}: no such line: {word}", dockerfile.display()),
        }
    }
    let output = Command::new(env!("CARGO_BIN_EXE_kiln"))
        .args(["build", "--progress=quiet"])
        .args(options)
        .arg(".")
        .current_dir(&context)
        .env_clear()
        .env("HOME", folder.path().join("home"))
        .env("KILN_ROOT", folder.path().join("store"))
        .stdin(Stdio::null())
        .output()
        .expect("kiln runs");
    let text = String::from_utf8_lossy(&output.stderr);
    let text = text.replace(&*context.to_string_lossy(), "$CONTEXT");
    let mut out = text.replace(&*folder.path().to_string_lossy(), "$DIR");
    match output.status.code() {
        Some(status) => out.push_str(&format!("status {status}\n")),
        None => out.push_str(&format!("{}\n", output.status)),
    }
    out
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let (byte, n_bytes) = match (first, tail) {
            (b'\\', [b'n', ..]) => (b'\n', 2),
            (b'\\', [b'x', high, low, ..]) => {
                let digit = |it: &u8| char::from(*it).to_digit(16).expect("a digit") as u8;
                (digit(high) * 16 + digit(low), 4)
            }
            _ => (first, 1),
        };
        out.push(byte);
        rest = &rest[n_bytes..];
    }
    out
}
