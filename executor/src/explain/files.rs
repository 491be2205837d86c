//! Which files a key was made of: a list that is kept beside the step, to name the files that make another key.
//!
//! A list is `kiln files 1` and a newline, then a record for each file, in the order in which they were found; numbers are
//! little-endian. Long ones are compressed with Zstandard.
//!
//! ```text
//! u16 item · u32 length of the path · path · u8 kind · u32 mode · u32 user · u32 group · 16 bytes content · 8 bytes attributes
//! ```

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io::{self, Read, Write},
};

use image::{
    compress::{Compression, Compressor},
    entry::Kind,
};
use serde::Serialize;

use crate::tree::Node;

const MAGIC: &[u8] = b"kiln files 1\n";
/// Shorter lists are not compressed.
const COMPRESSED_FROM: usize = 4096;
/// Nothing is longer than this when it is unpacked.
const LONGEST: u64 = 1 << 30;

/// Writes a list.
pub(crate) struct FileListWriter(Vec<u8>);

impl FileListWriter {
    pub(crate) fn new() -> Self {
        Self(MAGIC.to_vec())
    }

    /// Adds a file of the `item`-th source. `content` is the digest of its data.
    pub(crate) fn add(&mut self, item: usize, path: &[u8], node: &Node, content: &[u8; 32]) {
        let (kind, digest) = match &node.kind {
            Kind::File { .. } => (b'f', *content),
            Kind::Directory => (b'd', [0; 32]),
            Kind::Symlink { target } => (b'l', blake3::hash(target).into()),
            Kind::Hardlink { target } => (b'h', blake3::hash(target).into()),
            Kind::Fifo => (b'p', [0; 32]),
            Kind::CharDevice { major, minor } => (b'c', numbers(*major, *minor)),
            Kind::BlockDevice { major, minor } => (b'b', numbers(*major, *minor)),
        };
        let numbers = [node.mode, node.uid, node.gid];
        self.record(item, path, kind, numbers, &digest, attributes(&node.xattrs));
    }

    /// Adds a file that is written in the Dockerfile.
    pub(crate) fn add_inline(&mut self, item: usize, name: &[u8], data: &[u8]) {
        self.record(item, name, b'f', [0; 3], blake3::hash(data).as_bytes(), [0; 8]);
    }

    fn record(
        &mut self,
        item: usize,
        path: &[u8],
        kind: u8,
        numbers: [u32; 3],
        digest: &[u8; 32],
        attributes: [u8; 8],
    ) {
        self.0.extend(u16::try_from(item).unwrap_or(u16::MAX).to_le_bytes());
        self.0.extend(u32::try_from(path.len()).unwrap_or(0).to_le_bytes());
        self.0.extend(path);
        self.0.push(kind);
        self.0.extend(numbers.iter().flat_map(|it| it.to_le_bytes()));
        self.0.extend(&digest[..16]);
        self.0.extend(attributes);
    }

    /// Returns the list.
    pub(crate) fn finish(self) -> Vec<u8> {
        if self.0.len() < COMPRESSED_FROM {
            return self.0;
        }
        packed(|out| out.write_all(&self.0)).unwrap_or(self.0)
    }
}

/// Compresses what `write` writes.
pub(super) fn packed(
    write: impl FnOnce(&mut Compressor<Vec<u8>>) -> io::Result<()>,
) -> io::Result<Vec<u8>> {
    let mut out = Compressor::new(Vec::new(), Compression::Zstd { level: 1 }, 1)?;
    write(&mut out)?;
    out.finish()
}

/// Unpacks what was compressed, or was not; nothing if it is damaged.
pub(super) fn unpacked(bytes: &[u8]) -> Option<Vec<u8>> {
    let (_, plain) = image::compress::decompress(bytes).ok()?;
    let mut text = Vec::new();
    plain.take(LONGEST).read_to_end(&mut text).ok()?;
    Some(text)
}

fn numbers(major: u32, minor: u32) -> [u8; 32] {
    let mut digest = [0; 32];
    digest[..4].copy_from_slice(&major.to_le_bytes());
    digest[4..8].copy_from_slice(&minor.to_le_bytes());
    digest
}

fn attributes(xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> [u8; 8] {
    let mut short = [0; 8];
    if !xattrs.is_empty() {
        let mut hasher = blake3::Hasher::new();
        for part in xattrs.iter().flat_map(|(name, value)| [name, value]) {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        short.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    }
    short
}

/// The files of a list, by source and path.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FileList(BTreeMap<(u16, Vec<u8>), Listed>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Listed {
    kind: u8,
    mode: u32,
    uid: u32,
    gid: u32,
    content: [u8; 16],
    attributes: [u8; 8],
}

impl FileList {
    /// Reads a list; nothing if it is damaged.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let text = unpacked(bytes)?;
        let mut rest = text.strip_prefix(MAGIC)?;
        let mut files = BTreeMap::new();
        while !rest.is_empty() {
            let item = u16::from_le_bytes(take(&mut rest)?);
            let length = u32::from_le_bytes(take(&mut rest)?);
            let (path, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            rest = after;
            let [kind] = take(&mut rest)?;
            let mut number = || Some(u32::from_le_bytes(take(&mut rest)?));
            let (mode, uid, gid) = (number()?, number()?, number()?);
            let (content, attributes) = (take(&mut rest)?, take(&mut rest)?);
            let listed = Listed { kind, mode, uid, gid, content, attributes };
            files.insert((item, path.to_vec()), listed);
        }
        Some(Self(files))
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*bytes)
}

/// A file that makes a key another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// Its path in the source; `.` for the source itself.
    pub path: String,
    /// What is different.
    #[serde(flatten)]
    pub change: Difference,
}

/// What is different about a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Difference {
    /// It is new; for a folder, with all that is in it.
    Added,
    /// It is gone; for a folder, with all that was in it.
    Removed,
    /// Its data, or where a link leads.
    Content,
    /// A folder became a file, or the like.
    Kind,
    /// Its mode.
    Mode {
        /// Before, in octal.
        was: String,
        /// Now.
        now: String,
    },
    /// Its owner.
    Owner {
        /// Before, as `user:group`.
        was: String,
        /// Now.
        now: String,
    },
    /// Its extended attributes.
    Attributes,
}

/// Compares two lists: the changes of the `item`-th source, at most `most` of them, and how many there are.
pub(crate) fn compare(
    was: &FileList,
    now: &FileList,
    most: usize,
) -> HashMap<usize, (Vec<FileChange>, u64)> {
    let mut found: HashMap<usize, (Vec<FileChange>, u64)> = HashMap::new();
    let mut whole: HashSet<(u16, Vec<u8>)> = HashSet::new();
    let mut add = |(item, path): &(u16, Vec<u8>), change: Difference, is_folder: bool| {
        let is_in_whole = |folder: &[u8]| whole.contains(&(*item, folder.to_vec()));
        if !whole.is_empty() && folders_above(path).any(is_in_whole) {
            return;
        }
        if is_folder {
            whole.insert((*item, path.clone()));
        }
        let (changes, n_changes) = found.entry(usize::from(*item)).or_default();
        *n_changes += 1;
        if changes.len() < most {
            let path = match path.as_slice() {
                b"" => ".".to_owned(),
                path => String::from_utf8_lossy(path).into_owned(),
            };
            changes.push(FileChange { path, change });
        }
    };
    let (mut old, mut new) = (was.0.iter().peekable(), now.0.iter().peekable());
    loop {
        match (old.peek(), new.peek()) {
            (None, None) => return found,
            (Some((old_path, of)), now) if now.is_none_or(|it| *old_path < it.0) => {
                add(old_path, Difference::Removed, of.kind == b'd');
                old.next();
            }
            (was, Some((new_path, of))) if was.is_none_or(|it| *new_path < it.0) => {
                add(new_path, Difference::Added, of.kind == b'd');
                new.next();
            }
            (Some((path, was)), Some((_, now))) => {
                if let Some(change) = difference(was, now) {
                    add(path, change, false);
                }
                old.next();
                new.next();
            }
            // The guards above take all other pairs.
            _ => return found,
        }
    }
}

/// The folders that a path is in, from the root on.
fn folders_above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let root = (!path.is_empty()).then_some(&path[..0]);
    let slashes = path.iter().enumerate().filter(|(_, it)| **it == b'/');
    root.into_iter().chain(slashes.map(|(at, _)| &path[..at]))
}

fn difference(was: &Listed, now: &Listed) -> Option<Difference> {
    let octal = |it: &Listed| format!("{:04o}", it.mode);
    let owner = |it: &Listed| format!("{}:{}", it.uid, it.gid);
    Some(if was.kind != now.kind {
        Difference::Kind
    } else if was.content != now.content {
        Difference::Content
    } else if was.mode != now.mode {
        Difference::Mode { was: octal(was), now: octal(now) }
    } else if (was.uid, was.gid) != (now.uid, now.gid) {
        Difference::Owner { was: owner(was), now: owner(now) }
    } else if was.attributes != now.attributes {
        Difference::Attributes
    } else {
        return None;
    })
}

#[cfg(test)]
mod tests {
    use image::entry::Time;

    use super::*;

    fn list(files: &[(&str, char, u32, &str)]) -> FileList {
        let mut writer = FileListWriter::new();
        for (path, kind, mode, content) in files {
            let kind = match kind {
                'd' => Kind::Directory,
                'l' => Kind::Symlink { target: content.as_bytes().to_vec() },
                _ => Kind::File { size: 1 },
            };
            let node = Node {
                kind,
                mode: *mode,
                uid: 0,
                gid: 0,
                mtime: Time::default(),
                xattrs: crate::tree::Xattrs::default(),
                file_id: None,
                is_on_disk: false,
                content: None,
            };
            writer.add(0, path.as_bytes(), &node, blake3::hash(content.as_bytes()).as_bytes());
        }
        FileList::read(&writer.finish()).expect("it can be read")
    }

    #[test]
    fn each_difference_has_its_name() {
        let was = list(&[
            ("a", 'f', 0o644, "1"),
            ("b", 'f', 0o644, "1"),
            ("c", 'l', 0o777, "x"),
            ("d", 'f', 0o644, ""),
            ("e", 'd', 0o755, ""),
            ("e-", 'd', 0o755, ""),
            ("e/f", 'f', 0o644, ""),
            ("same", 'f', 0o644, "1"),
        ]);
        let now = list(&[
            ("a", 'f', 0o644, "2"),
            ("b", 'f', 0o755, "1"),
            ("c", 'l', 0o777, "y"),
            ("d", 'd', 0o644, ""),
            ("g", 'f', 0o644, ""),
            ("same", 'f', 0o644, "1"),
        ]);
        let found = compare(&was, &now, 5);
        let (changes, n_changes) = &found[&0];
        assert_eq!(*n_changes, 7);
        let mode = Difference::Mode { was: "0644".to_owned(), now: "0755".to_owned() };
        let expected = [
            ("a", Difference::Content),
            ("b", mode),
            ("c", Difference::Content),
            ("d", Difference::Kind),
            ("e", Difference::Removed),
        ];
        let expected =
            expected.map(|(path, change)| FileChange { path: path.to_owned(), change }).to_vec();
        assert_eq!(*changes, expected);
        assert!(compare(&was, &was, 5).is_empty());
    }

    #[test]
    fn long_lists_are_compressed_and_damaged_ones_are_none() {
        let names: Vec<String> = (0..1000).map(|it| format!("folder/file-{it:05}")).collect();
        let files: Vec<_> = names.iter().map(|it| (it.as_str(), 'f', 0o644, "same")).collect();
        assert_eq!(list(&files).0.len(), 1000);
        assert_eq!(FileList::read(b""), None);
        assert_eq!(FileList::read(b"kiln files 1\n\0"), None);
        assert!(FileList::read(MAGIC).is_some());
    }
}
