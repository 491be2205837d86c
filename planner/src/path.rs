//! Paths as text: what `.`, `..` and doubled slashes come to, without asking any file system.

use alloc::{borrow::ToOwned, string::String, vec::Vec};

/// Removes `.`, doubled and trailing slashes, and `..` together with what stands before it.
///
/// A `..` that leads above the start stays in a relative path and is dropped from an absolute one. Nothing left is `.`.
///
/// # Source
///
/// Go's `path.Clean`.
pub fn clean(path: &str) -> String {
    let is_absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|it| *it != "..") => {
                parts.pop();
            }
            ".." if is_absolute => {}
            _ => parts.push(part),
        }
    }
    let mut cleaned = String::with_capacity(path.len());
    if is_absolute {
        cleaned.push('/');
    }
    cleaned.push_str(&parts.join("/"));
    if cleaned.is_empty() { ".".to_owned() } else { cleaned }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleans_like_go() {
        for (path, cleaned) in [
            ("", "."),
            ("/", "/"),
            ("//a//b/", "/a/b"),
            ("a/../..", ".."),
            ("../../a", "../../a"),
            ("/../a", "/a"),
            ("./a/./b", "a/b"),
            ("a/..", "."),
        ] {
            assert_eq!(clean(path), cleaned, "{path}");
        }
    }
}
