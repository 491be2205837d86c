//! Parses every Dockerfile in `testdata/parser` and compares the result with the file beside it.
//!
//! `ok/NAME.dockerfile` must parse without diagnostics and `err/NAME.dockerfile` with at least one; both are compared
//! with `NAME.expected`. Run with `BLESS=1` to rewrite the expectations, then read the diff. Files in `trigger` are parsed
//! as `ONBUILD` triggers.

use std::{
    collections::BTreeSet,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use parser::{
    Diagnostic,
    ast::{Directives, Instruction},
    error::CODES,
    span::position,
};

mod common;
use common::check_spans;

#[test]
fn ok() {
    for case in cases("ok") {
        let (rendered, diagnostics) = check(&case);
        assert!(diagnostics.is_empty(), "{}: expected no diagnostics\n{rendered}", case.name);
        case.compare(&rendered);
    }
}

#[test]
fn err() {
    let mut seen = BTreeSet::new();
    for folder in ["err", "trigger"] {
        for case in cases(folder) {
            let (rendered, diagnostics) = check(&case);
            assert!(!diagnostics.is_empty(), "{}: expected a diagnostic\n{rendered}", case.name);
            diagnostics.iter().for_each(|it| check_message(it, &case.name));
            seen.extend(diagnostics.iter().map(Diagnostic::code));
            case.compare(&rendered);
        }
    }
    let unseen: Vec<_> = CODES.iter().filter(|it| !seen.contains(**it)).collect();
    assert!(unseen.is_empty(), "no fixture for {unseen:?}");
    let unknown: Vec<_> = seen.iter().filter(|it| !CODES.contains(it)).collect();
    assert!(unknown.is_empty(), "not in CODES: {unknown:?}");
}

struct Case {
    name: String,
    path: PathBuf,
    text: String,
}

fn cases(folder: &str) -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/parser").join(folder);
    let mut cases = Vec::new();
    let mut expectations = BTreeSet::new();
    for entry in fs::read_dir(&folder).expect("the folder is there") {
        let path = entry.expect("it can be listed").path();
        let name = path.file_stem().expect("it has a name").to_string_lossy().into_owned();
        match path.extension().and_then(|it| it.to_str()) {
            Some("dockerfile") => {
                let text = parser::decode(&fs::read(&path).expect("it can be read"));
                cases.push(Case { name, path, text });
            }
            Some("expected") => _ = expectations.insert(name),
            _ => panic!("{}: no test claims it", path.display()),
        }
    }
    assert!(!cases.is_empty(), "{}: no cases", folder.display());
    for case in &cases {
        expectations.remove(&case.name);
    }
    assert!(expectations.is_empty(), "without a Dockerfile: {expectations:?}");
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    cases
}

impl Case {
    fn compare(&self, rendered: &str) {
        let path = self.path.with_extension("expected");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&path, rendered).expect("it can be written");
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(rendered, expected, "{}: run with BLESS=1 and read the diff", self.name);
    }
}

/// The one place that calls the parser: a change of its API changes this function and no fixture.
fn check(case: &Case) -> (String, Vec<Diagnostic>) {
    let (directives, instructions, diagnostics) =
        if case.path.to_string_lossy().contains("/trigger/") {
            let (instructions, diagnostics) = parser::parse_trigger(&case.text, '\\');
            (Directives::default(), instructions, diagnostics)
        } else {
            let (dockerfile, diagnostics) = parser::parse(&case.text);
            (dockerfile.directives, dockerfile.instructions, diagnostics)
        };
    check_spans(&case.text, &instructions, &diagnostics);
    (render(&case.text, &directives, &instructions, &diagnostics), diagnostics)
}

fn render(
    text: &str,
    directives: &Directives,
    instructions: &[Instruction],
    diagnostics: &[Diagnostic],
) -> String {
    let mut out = String::new();
    let mut line = |it: std::fmt::Arguments<'_>| {
        writeln!(out, "{it}").expect("writing to a String cannot fail");
    };
    if *directives != Directives::default() {
        line(format_args!("{directives:?}"));
    }
    for it in instructions {
        let (first, last) = (it.lines.first, it.lines.last);
        for comment in &it.comments {
            line(format_args!("# {:?} line {}", comment.text, comment.line));
        }
        line(format_args!("{first}-{last} {:?} {:?}", it.span, it.keyword.value));
        if !it.empty_continuations.is_empty() {
            line(format_args!("    empty lines {:?}", it.empty_continuations));
        }
        line(format_args!("    {:?}", it.original));
        line(format_args!("    {:?}", it.kind));
    }
    for it in diagnostics {
        let start = position(text, it.span.start());
        let marked: String = text[it.span.start()..it.span.end()].chars().take(60).collect();
        let (first, last) = (it.lines.first, it.lines.last);
        let at = format!("{}:{} ({first}-{last})", start.line, start.column);
        line(format_args!("error[{}] {at} {marked:?}: {it}", it.code()));
        if let Some(hint) = &it.hint {
            line(format_args!("hint: {hint}"));
        }
    }
    out
}

/// One form of message: a lower-case fragment without a full stop.
fn check_message(it: &Diagnostic, name: &str) {
    for message in [it.to_string(), it.hint.clone().unwrap_or("a".into())] {
        let plain: String = message.split('`').step_by(2).collect();
        assert!(!message.ends_with('.'), "{name}: `{message}` ends with a full stop");
        let first = plain.chars().next();
        assert!(
            message.starts_with("JSON") || !first.is_some_and(char::is_uppercase),
            "{name}: `{message}` starts with a capital"
        );
    }
}
