//! The form of error messages, and a test for each code.

use std::collections::BTreeSet;

use crate::{CRATES, code, files, is_test, none, read};

/// Each message of an error, as written at its variant.
fn templates() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for path in CRATES.iter().flat_map(|it| files(it, ".rs")).filter(|it| !is_test(it)) {
        let code = code(&path);
        for rest in code.split("#[error(").skip(1) {
            let Some(rest) = rest.trim_start().strip_prefix('"') else { continue };
            let mut message = String::new();
            let mut letters = rest.chars();
            while let Some(letter) = letters.next() {
                match letter {
                    '"' => break,
                    '\\' => message.extend(letters.next()),
                    _ => message.push(letter),
                }
            }
            found.push((path.display().to_string(), message));
        }
    }
    assert!(found.len() > 100, "the messages are found");
    found
}

#[test]
fn messages_have_one_form() {
    let mut wrong = Vec::new();
    for (path, message) in templates() {
        let is_capital = message.chars().next().is_some_and(char::is_uppercase);
        // It may begin with a name, `JSON` or `SOURCE_DATE_EPOCH`.
        let first = message.split(' ').next().unwrap_or_default();
        if is_capital && first != first.to_uppercase() {
            wrong.push(format!("{path}: begins with a capital: {message}"));
        }
        if message.ends_with('.') && !message.ends_with('…') {
            wrong.push(format!("{path}: ends with a full stop: {message}"));
        }
        // A message that is nothing but its cause's is fine: `{source}`, or with a name before it.
        let around = message.replace("{source}", "");
        if around != message
            && around.chars().any(|it| it.is_alphabetic())
            && !around.starts_with('{')
        {
            wrong.push(format!("{path}: repeats its cause: {message}"));
        }
    }
    none("a message is a lower-case fragment without full stop", &wrong);
}

/// What the command is expected to say keeps the form as well.
#[test]
fn shown_mistakes_have_one_form() {
    let mut n_seen = 0;
    let mut wrong = Vec::new();
    for path in files("testdata", ".expected") {
        for line in read(&path).lines() {
            let line = line.strip_prefix("err| ").unwrap_or(line);
            let Some(rest) = line.strip_prefix("error[") else { continue };
            let (code, message) = rest.split_once(']').expect("a code ends");
            n_seen += 1;
            let is_code =
                code.chars().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '-');
            if !is_code || message.ends_with('.') {
                wrong.push(format!("{}: {line}", path.display()));
            }
        }
    }
    assert!(n_seen > 100, "mistakes are found");
    none("a mistake has a code and a message", &wrong);
}

/// The codes in a crate's `error.rs`: those of its list, or else those that the function `code` returns.
fn codes(krate: &str) -> BTreeSet<String> {
    let text = code(format!("{krate}/src/error.rs").as_ref());
    let body = match text.split_once("pub const CODES: &[&str] = &[") {
        Some((_, list)) => list.split("];").next(),
        None => text.split("fn code(&self)").nth(1).and_then(|it| it.split("\n    }\n").next()),
    };
    let quoted = body.expect("it has codes").split('"').skip(1).step_by(2);
    quoted.map(ToOwned::to_owned).collect()
}

#[test]
fn codes_have_one_form() {
    for krate in ["parser", "planner", "executor"] {
        let codes = codes(krate);
        assert!(!codes.is_empty(), "{krate} has codes");
        for code in codes {
            let is_code = code.bytes().all(|it| it.is_ascii_lowercase() || it == b'-');
            assert!(is_code, "{krate}: `{code}`");
        }
    }
}

/// Codes of the executor that no test provokes, and why. Everything else is shown by one.
const NEVER_SEEN: &[(&str, &str)] = &[
    ("read-failed", "a file that vanishes between listing and reading"),
    ("changed-while-read", "a file that changes between hashing and copying, see `executor::tree`"),
    ("bad-document", "a document of our own that cannot be read back"),
    ("bad-layer", "a layer in the store that changed behind our back"),
    ("missing-layer", "a registry that loses a layer between two requests"),
    ("runtime", "a machine that cannot start a thread"),
    ("store-full", "a full disk: `scripts/faults` has one"),
    ("write-failed", "a full disk: `scripts/faults` has one"),
    ("store", "what the store says is tested in `cache/tests`"),
    ("registry", "what the registry says is tested in `registry/tests`"),
    ("sandbox", "what the sandbox says is tested in `sandbox/tests`"),
];

#[test]
fn every_code_of_the_executor_is_tested() {
    let mut tested = String::new();
    for (folder, end) in [
        ("executor/tests", ".rs"),
        ("cli/tests", ".rs"),
        ("testdata/cli", ".expected"),
        ("scripts", "faults"),
        ("scripts", "cli"),
    ] {
        for path in files(folder, end).iter().filter(|it| !it.starts_with("cli/tests/house")) {
            tested.push_str(&read(path));
        }
    }
    let codes = codes("executor");
    let wrong: Vec<String> = codes
        .iter()
        .filter(|code| NEVER_SEEN.iter().all(|(it, _)| it != code))
        .filter(|code| {
            !tested.contains(&format!("[{code}]")) && !tested.contains(&format!("\"{code}\""))
        })
        .cloned()
        .collect();
    none("every code is shown by a test, as `[code]` or \"code\"", &wrong);
    for (code, reason) in NEVER_SEEN {
        assert!(codes.contains(*code) && !reason.is_empty(), "`{code}` is no code of the executor");
    }
}
