//! Reading an ignore file (`.dockerignore`): text to patterns. Matching them is the planner's work.

use alloc::{format, string::String, vec::Vec};

/// A pattern of an ignore file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnorePattern {
    /// The pattern, cleaned, with its `!` if it has one.
    pub text: String,
    /// Its line, counted from 1.
    pub line: u32,
}

/// Returns the patterns of an ignore file in their order.
///
/// A line that starts with `#` is a comment, blank lines are nothing. Blanks around a pattern are dropped, then the path
/// is cleaned (`./a//b/../c/` is `a/c`) and a leading `/` is dropped, behind the `!` of an exception.
///
/// # Source
///
/// `github.com/moby/patternmatcher/ignorefile`, `ReadAll`.
///
/// # Examples
///
/// ```
/// let patterns = parser::ignore::read("# build output\n/target/\n!target/keep\n");
/// assert_eq!(patterns[0].text, "target");
/// assert_eq!((patterns[1].text.as_str(), patterns[1].line), ("!target/keep", 3));
/// ```
pub fn read(text: &str) -> Vec<IgnorePattern> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut patterns = Vec::new();
    for (index, line) in text.split('\n').enumerate() {
        if line.starts_with('#') {
            continue;
        }
        let pattern = line.trim();
        if pattern.is_empty() {
            continue;
        }
        let (exception, path) = match pattern.strip_prefix('!') {
            Some(rest) => (true, rest.trim()),
            None => (false, pattern),
        };
        let path = if path.is_empty() { String::new() } else { normal(path) };
        patterns.push(IgnorePattern {
            text: if exception { format!("!{path}") } else { path },
            line: u32::try_from(index + 1).unwrap_or(u32::MAX),
        });
    }
    patterns
}

fn normal(path: &str) -> String {
    let path = clean(path);
    match path.strip_prefix('/') {
        Some(rest) if !rest.is_empty() => rest.into(),
        _ => path,
    }
}

/// The shortest path of the same meaning, by text alone (Go's `filepath.Clean`).
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|it| *it != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            _ => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".into(),
        (false, false) => joined,
    }
}
