//! What every source file is like.

use std::path::Path;

use crate::{all_sources, code, is_test, none, read};

/// No file is longer than this, tests aside. It is better to stay below 500.
const MAX_LINES: usize = 800;

#[test]
fn every_file_says_what_it_is() {
    let is_silent = |path: &&std::path::PathBuf| !read(path).starts_with("//! ");
    let wrong: Vec<_> =
        all_sources().iter().filter(is_silent).map(|it| it.display().to_string()).collect();
    none("every file begins with `//!`", &wrong);
}

#[test]
fn files_are_short() {
    let mut wrong = Vec::new();
    for path in all_sources().iter().filter(|it| !is_test(it)) {
        let text = read(path);
        let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let n_lines = text.lines().count();
        if n_lines > MAX_LINES {
            wrong.push(format!("{}: {n_lines} lines", path.display()));
        }
    }
    none("one file, one idea", &wrong);
}

#[test]
fn unsafe_has_one_address() {
    let mut wrong = Vec::new();
    for path in all_sources().iter().filter(|it| !is_house(it)) {
        if path.starts_with("sandbox/src/sys") || path == Path::new("sandbox/src/sys.rs") {
            continue;
        }
        for line in code(path).lines() {
            let words = line.split(|it: char| !it.is_alphanumeric() && it != '_');
            if words.into_iter().any(|it| it == "unsafe") {
                wrong.push(format!("{}: {}", path.display(), line.trim()));
            }
        }
        for allow in ["allow(unsafe_code", "expect(unsafe_code"] {
            if code(path).contains(allow) {
                wrong.push(format!("{}: {allow})", path.display()));
            }
        }
    }
    none("only `sandbox::sys` is unsafe", &wrong);
}

#[test]
fn nothing_is_left_open() {
    let mut wrong = Vec::new();
    for path in all_sources().iter().filter(|it| !is_house(it)) {
        for mark in ["todo!(", "unimplemented!(", "dbg!(", "#[ignore", "FIXME", "XXX:"] {
            if read(path).contains(mark) {
                wrong.push(format!("{}: {mark}", path.display()));
            }
        }
        if code(path).contains("#[allow(") {
            wrong.push(format!("{}: `expect` with a reason instead of `allow`", path.display()));
        }
    }
    none("nothing is left open, and nothing is skipped in silence", &wrong);
}

#[test]
fn names_say_something() {
    let mut wrong = Vec::new();
    for path in all_sources().iter().filter(|it| !is_house(it)) {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if ["util", "utils", "helpers", "misc", "common"].contains(&name.as_str()) && !is_test(path)
        {
            wrong.push(path.display().to_string());
        }
        for line in code(path).lines() {
            let Some(rest) = line.trim_start().strip_prefix("pub ") else { continue };
            let mut words = rest.split(|it: char| !it.is_alphanumeric() && it != '_');
            let (kind, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let is_type = ["struct", "enum", "trait", "type"].contains(&kind);
            if is_type && ["Manager", "Helper", "Handler"].iter().any(|it| name.ends_with(it)) {
                wrong.push(format!("{}: `{name}`", path.display()));
            }
            if kind == "Other" && rest.contains("Other(String") {
                wrong.push(format!("{}: {rest}", path.display()));
            }
        }
    }
    none("a name says what the thing is", &wrong);
}

/// Tests that need privileges say so in their names and stay out of plain `cargo test`.
#[test]
fn privileged_tests_are_called_so() {
    let mut wrong = Vec::new();
    for path in
        all_sources().iter().filter(|it| it.file_stem().is_some_and(|it| it == "privileged"))
    {
        let text = read(path);
        for rest in text.split("#[test]\n").skip(1) {
            let name = rest.trim_start().split('(').next().unwrap_or_default();
            if !name.starts_with("fn privileged_") {
                wrong.push(format!("{}: {name}", path.display()));
            }
        }
        let krate = path.components().next().expect("it is in a crate").as_os_str();
        let manifest = read(Path::new(krate).join("Cargo.toml"));
        if !manifest.contains("required-features = [\"privileged\"]") {
            wrong.push(format!("{}: it needs `required-features`", path.display()));
        }
    }
    none("tests that need root are called `privileged_…`", &wrong);
}

/// These files hold the words they look for.
fn is_house(path: &Path) -> bool {
    path.starts_with("cli/tests/house")
}
