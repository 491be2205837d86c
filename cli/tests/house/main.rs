//! The rules of the house, as tests over the workspace itself: its crates, its sources, its words.
//!
//! - [`crates`] — who may depend on whom, and who touches nothing.
//! - [`sources`] — what every source file is like.
//! - [`messages`] — the form of error messages, and a test for each code.
//! - [`words`] — what README.md and ARCHITECTURE.md name is there.

mod crates;
mod messages;
mod sources;
mod words;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The crates, as folders of the workspace.
const CRATES: [&str; 9] =
    ["parser", "planner", "image", "cache", "registry", "sandbox", "executor", "runtime", "cli"];

/// The folder of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the workspace").into()
}

/// Reads a file of the workspace.
fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files below a folder of the workspace that end like this, sorted, as paths from the workspace.
fn files(folder: &str, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("a folder can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(end) {
                found.push(path.strip_prefix(root()).expect("it is below").to_owned());
            }
        }
    }
    found.sort();
    found
}

/// The sources of all crates, tests and examples included.
fn all_sources() -> Vec<PathBuf> {
    let found: Vec<_> = CRATES.iter().flat_map(|it| files(it, ".rs")).collect();
    assert!(found.len() > 100, "the sources are found");
    found
}

/// Whether a file holds tests only.
fn is_test(path: &Path) -> bool {
    let is_folder = path.components().any(|it| it.as_os_str() == "tests");
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    is_folder || name == "tests" || name.ends_with("_tests")
}

/// A source without comments and without the tests at its end.
fn code(path: &Path) -> String {
    let text = read(path);
    let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = text.lines().filter(|it| !it.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Fails with a list of what is wrong.
#[track_caller]
fn none(rule: &str, wrong: &[String]) {
    assert!(wrong.is_empty(), "{rule}:\n  {}", wrong.join("\n  "));
}
