//! Asks that each row of the tables has a test that names it, or a line that says why not.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

#[test]
fn every_row_has_a_test_or_a_reason() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rows = list(&folder.join("../testdata/rows/rows.txt"));
    let reasons = list(&folder.join("../testdata/rows/not-yet.txt"));
    let mut sources = vec![folder.join("tests/rows_privileged.rs")];
    collect(&folder.join("tests/rows"), &mut sources);
    let mut named = BTreeSet::new();
    for path in &sources {
        let text = fs::read_to_string(path).expect("a test is text");
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines.windows(2).filter(|it| it[0].trim() == "#[test]") {
            let name = pair[1].trim().strip_prefix("fn ").expect("a test is a function");
            named.extend(rows.keys().find(|it| is_of(name, it)));
        }
    }
    assert!(rows.len() > 150, "the list of rows is cut short");
    let mut wrong = Vec::new();
    for row in rows.keys() {
        match (named.contains(row), reasons.get(row)) {
            (false, None) => wrong.push(format!("{row} has no test and no reason")),
            (true, Some(reason)) if !reason.starts_with("partly: ") => {
                wrong.push(format!("{row} has a test, and not-yet.txt does not say `partly: `"));
            }
            _ => {}
        }
    }
    for (row, reason) in &reasons {
        if !rows.contains_key(row) || reason.is_empty() {
            wrong.push(format!("not-yet.txt: {row} is no row, or has no reason"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Says whether a test is one of this row: `P5` is tested by `p5_…`, the rule `UndefinedVar` by `lint_undefined_var_…`.
fn is_of(test: &str, row: &str) -> bool {
    let mut prefix = String::new();
    if row.chars().any(|it| it.is_ascii_digit()) {
        prefix.push_str(&row.to_lowercase());
    } else {
        let row = row.replace("JSON", "Json");
        prefix.push_str("lint");
        for letter in row.chars() {
            if letter.is_uppercase() {
                prefix.push('_');
            }
            prefix.extend(letter.to_lowercase());
        }
    }
    test.strip_prefix(&prefix).is_some_and(|rest| rest.starts_with(['_', '(']))
}

/// Reads a list: an id, a blank, a text; `#` begins a comment.
fn list(path: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(path).expect("the list is there");
    let lines = text.lines().filter(|it| !it.is_empty() && !it.starts_with('#'));
    lines
        .map(|it| it.split_once(' ').unwrap_or((it, "")))
        .map(|(id, rest)| (id.to_owned(), rest.to_owned()))
        .collect()
}

fn collect(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("it can be listed").path();
        match path.is_dir() {
            true => collect(&path, out),
            false => out.push(path),
        }
    }
}
