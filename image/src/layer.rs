//! Layers as tars: writing, reading, and remembering what is in one.
//!
//! A layer is a list of changes to the layers below it, in the form of a tar: entries that are added or replaced, and *whiteouts*, empty
//! files with special names, for what is gone. `dir/.wh.name` removes `dir/name`, and `dir/.wh..wh..opq` removes all that lower
//! layers have in `dir`. Whiteouts never touch entries of their own layer.
//!
//! Read the modules in this order:
//!
//! 1. [`mod@write`] — the one way in which kiln writes a layer; equal changes give equal bytes.
//! 2. [`read`] — reading what anyone has written, and refusing what different programs understand differently.
//! 3. [`index`] — what a layer contains, kept beside it, and the tar made again from that.
//! 4. `sparse` — files with holes, in archives that others made.
//! 5. `encoding` — the index as bytes.

mod encoding;
mod header;
pub mod index;
mod interpret;
mod pax;
pub mod read;
mod sparse;
pub mod write;

pub use index::{Change, IndexedTarReader, IndexedTarWriter, LayerIndex, rewrite};
pub use read::{Limits, Mode, Record, TarReader};
pub use write::TarWriter;

/// What the last part of a whiteout's path begins with.
pub const WHITEOUT_PREFIX: &[u8] = b".wh.";
/// The last part of the path of an opaque whiteout.
pub const OPAQUE_NAME: &[u8] = b".wh..wh..opq";
/// What AUFS called its own files.
const AUFS_PREFIX: &[u8] = b".wh..wh.";

/// The longest path, and the longest target of a link, in bytes. That of Linux.
pub const MAX_PATH: usize = 4096;
/// The longest part of a path, in bytes. That of all common file systems.
pub const MAX_NAME: usize = 255;

/// Splits a path into what stands before its last slash, and what stands behind it.
///
/// # Examples
///
/// ```
/// # use image::layer::split_path;
/// assert_eq!(split_path(b"usr/bin/env"), (&b"usr/bin"[..], &b"env"[..]));
/// assert_eq!(split_path(b"usr"), (&b""[..], &b"usr"[..]));
/// ```
pub fn split_path(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|it| *it == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// Joins a folder and a name; the folder may be the root, which is empty.
pub fn join_path(folder: &[u8], name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(folder.len() + 1 + name.len());
    if !folder.is_empty() {
        out.extend_from_slice(folder);
        out.push(b'/');
    }
    out.extend_from_slice(name);
    out
}

/// Says what keeps `path` from being the path of an [`Entry`](crate::entry::Entry): relative, without `.`, `..`, empty
/// parts and NUL, and not too long. The empty path is good; it is the root.
fn path_problem(path: &[u8]) -> Option<&'static str> {
    if path.is_empty() {
        return None;
    }
    if path.len() > MAX_PATH {
        return Some("the path is too long");
    }
    if path.contains(&0) {
        return Some("the path has a NUL in it");
    }
    path.split(|it| *it == b'/').find_map(|part| match part {
        b"" => Some("the path has an empty part"),
        b"." | b".." => Some("the path has `.` or `..` in it"),
        _ if part.len() > MAX_NAME => Some("a part of the path is too long"),
        _ => None,
    })
}

/// Says what keeps `target` from being the target of a symbolic link.
fn target_problem(target: &[u8]) -> Option<&'static str> {
    match target {
        [] => Some("the link has no target"),
        _ if target.len() > MAX_PATH => Some("the target of the link is too long"),
        _ if target.contains(&0) => Some("the target of the link has a NUL in it"),
        _ => None,
    }
}
