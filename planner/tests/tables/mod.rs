//! Reads the conformance tables: arrays of rows, each with a name.

use std::{fs, path::PathBuf};

use serde_json::Value;

/// The folder with the conformance cases.
pub(crate) fn conformance() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance")
}

/// Calls `check` for every row of a table and fails if it found a problem in any.
pub(crate) fn for_each(table: &str, mut check: impl FnMut(&Value, &mut Vec<String>)) {
    let path = conformance().join("tables").join(table);
    let text =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let rows: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert!(!rows.is_empty(), "{table} has rows");
    let mut n_failed = 0;
    for row in &rows {
        let mut problems = Vec::new();
        check(row, &mut problems);
        if !problems.is_empty() {
            n_failed += 1;
            eprintln!("{}: {}", row["name"], problems.join("; "));
        }
    }
    assert_eq!(n_failed, 0, "rows of {table} that differ, of {}", rows.len());
}
