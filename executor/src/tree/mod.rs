//! File trees that COPY, mounts and exports read: a folder of the user's, or the layers of an image.
//!
//! A [`Tree`] answers what is at a path *without following links*; following is done here, component by component and
//! clipped at the root, so that it means the same for every kind of tree. Paths are bytes, relative, without leading or
//! trailing slash; the root is the empty path.

mod folder;
mod layers;
mod scan;
mod stat_cache;

use std::{collections::BTreeMap, io::Read, ops::Deref, sync::Arc};

use image::entry::{Kind, Time};

pub(crate) use self::folder::Folder;
pub(crate) use self::layers::{Chain, KnownChains, Layers};
pub(crate) use self::stat_cache::CopyId;
use crate::error::ExecutorError;

/// What is at a path.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub kind: Kind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    pub xattrs: Xattrs,
    /// Equal for two names of one file.
    pub file_id: Option<Box<FileId>>,
    /// It is a file on disk, and not a socket, which becomes an empty file.
    pub is_on_disk: bool,
    /// The BLAKE3 of a file, where that is known without reading it.
    pub content: Option<[u8; 32]>,
}

/// Extended attributes by name. Nearly no file has any, and of files there are many.
#[derive(Debug, Clone, Default)]
#[expect(clippy::box_collection, reason = "two thirds of its size, in each of many files")]
pub(crate) struct Xattrs(Option<Box<BTreeMap<Vec<u8>, Vec<u8>>>>);

impl Xattrs {
    pub(crate) fn into_map(self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.0.map(|it| *it).unwrap_or_default()
    }
}

impl From<BTreeMap<Vec<u8>, Vec<u8>>> for Xattrs {
    fn from(map: BTreeMap<Vec<u8>, Vec<u8>>) -> Self {
        Self(if map.is_empty() { None } else { Some(Box::new(map)) })
    }
}

impl Deref for Xattrs {
    type Target = BTreeMap<Vec<u8>, Vec<u8>>;

    fn deref(&self) -> &Self::Target {
        static NONE: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        self.0.as_deref().unwrap_or(&NONE)
    }
}

/// What is at a path below a folder.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// The path below that folder.
    pub path: Vec<u8>,
    /// What it is.
    pub node: Node,
}

/// What a walk does with a path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice {
    /// It is found. A folder also is if something below it is.
    pub keep: bool,
    /// What is below it may be found.
    pub enter: bool,
}

/// What changes when the content of a file on disk does. Times in nanoseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub size: u64,
    pub mtime: u64,
    pub ctime: u64,
    pub inode: u64,
}

/// Identifies a file that has more than one name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum FileId {
    /// Device and inode.
    Inode(u64, u64),
    /// Layer and the path of its first name.
    First(usize, Vec<u8>),
}

impl Node {
    pub(crate) fn is_dir(&self) -> bool {
        matches!(self.kind, Kind::Directory)
    }

    pub(crate) fn is_file(&self) -> bool {
        matches!(self.kind, Kind::File { .. })
    }

    /// Whether it is a file on disk that has to be read for its digest.
    fn is_unknown_file(&self) -> bool {
        self.is_on_disk && self.content.is_none()
    }
}

/// A tree of files.
#[derive(Clone)]
pub(crate) enum Tree {
    Empty,
    Folder(Arc<Folder>),
    Layers(Arc<Layers>),
}

impl Tree {
    /// Whether there is nothing at all, not even one layer without entries: `FROM scratch`.
    pub(crate) fn is_scratch(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Folder(_) => false,
            Self::Layers(layers) => layers.is_scratch(),
        }
    }

    /// What is at `path`; links are not followed.
    pub(crate) fn lookup(&self, path: &[u8]) -> Result<Option<Node>, ExecutorError> {
        match self {
            Self::Empty => Ok(path.is_empty().then(empty_root)),
            Self::Folder(folder) => folder.lookup(path),
            Self::Layers(layers) => Ok(layers.lookup(path)),
        }
    }

    /// What is in the folder at `path`, sorted by name.
    pub(crate) fn children(&self, path: &[u8]) -> Result<Vec<(Vec<u8>, Node)>, ExecutorError> {
        match self {
            Self::Empty => Ok(Vec::new()),
            Self::Folder(folder) => folder.children(path),
            Self::Layers(layers) => Ok(layers.children(path)),
        }
    }

    /// Finds what is below the folder at `root`, which is a real path, and chosen by `choose`: it gets a path below that folder,
    /// and whether a folder is there. Folders come before what is in them, names are sorted, and files have their digest.
    pub(crate) fn walk(
        &self,
        root: &[u8],
        choose: &(dyn Fn(&[u8], bool) -> Choice + Sync),
    ) -> Result<Vec<Found>, ExecutorError> {
        let mut found = self.list(root, choose)?;
        if let Self::Folder(folder) = self {
            folder.hash(root, &mut found)?;
        }
        Ok(found)
    }

    /// Does what [`walk`](Self::walk) does, without reading any file: digests that are not known are not there.
    pub(crate) fn list(
        &self,
        root: &[u8],
        choose: &(dyn Fn(&[u8], bool) -> Choice + Sync),
    ) -> Result<Vec<Found>, ExecutorError> {
        match self {
            Self::Empty => Ok(Vec::new()),
            Self::Folder(folder) => folder.list(root, choose),
            Self::Layers(layers) => {
                let mut found = Vec::new();
                layers.walk(root, b"", choose, &mut found);
                Ok(found)
            }
        }
    }

    /// The BLAKE3 of the file at `path`, which is a real path.
    pub(crate) fn content(&self, path: &[u8], node: &Node) -> Result<[u8; 32], ExecutorError> {
        if let Some(content) = node.content {
            return Ok(content);
        }
        if let Kind::File { size: 0 } = node.kind {
            return Ok(*blake3::hash(b"").as_bytes());
        }
        match self {
            Self::Empty => Ok([0; 32]),
            Self::Folder(folder) => folder.content(path, node),
            Self::Layers(layers) => layers.content(path),
        }
    }

    /// Opens the file at `path`, which is a real path.
    pub(crate) fn open(&self, path: &[u8]) -> Result<Box<dyn Read + Send>, ExecutorError> {
        match self {
            Self::Empty => Ok(Box::new(std::io::empty())),
            Self::Folder(folder) => Ok(Box::new(folder.open(path)?)),
            Self::Layers(layers) => layers.open_file(path),
        }
    }

    /// Follows the links of `path`; what is missing at its end is kept as written.
    pub(crate) fn resolve(&self, path: &[u8], follow_last: bool) -> Result<Vec<u8>, ExecutorError> {
        resolve(path, follow_last, |path| {
            Ok(match self.lookup(path)? {
                Some(Node { kind: Kind::Symlink { target }, .. }) => Some(target),
                _ => None,
            })
        })
    }

    /// Reads a small file, or nothing if it is missing, no regular file, or longer than `limit`.
    pub(crate) fn read_small(
        &self,
        path: &[u8],
        limit: u64,
    ) -> Result<Option<Vec<u8>>, ExecutorError> {
        let path = self.resolve(path, true)?;
        match self.lookup(&path)? {
            Some(Node { kind: Kind::File { size }, .. }) if size <= limit => {
                let mut bytes = Vec::new();
                let mut reader = self.open(&path)?.take(limit);
                reader
                    .read_to_end(&mut bytes)
                    .map_err(|source| ExecutorError::Read { path: lossy(&path), source })?;
                Ok(Some(bytes))
            }
            _ => Ok(None),
        }
    }
}

/// Follows links from the root down; `link_at` returns the target of the link at a real path, if there is one.
pub(crate) fn resolve(
    path: &[u8],
    follow_last: bool,
    mut link_at: impl FnMut(&[u8]) -> Result<Option<Vec<u8>>, ExecutorError>,
) -> Result<Vec<u8>, ExecutorError> {
    let mut todo: Vec<Vec<u8>> = components(path).map(<[u8]>::to_vec).rev().collect();
    let mut real: Vec<u8> = Vec::new();
    let mut n_links = 0;
    while let Some(name) = todo.pop() {
        if name == b".." {
            truncate_to_parent(&mut real);
            continue;
        }
        let parent_len = real.len();
        push_component(&mut real, &name);
        if todo.is_empty() && !follow_last {
            break;
        }
        if let Some(target) = link_at(&real)? {
            n_links += 1;
            if n_links > 255 {
                return Err(ExecutorError::TooManyLinks { path: lossy(path) });
            }
            real.truncate(parent_len);
            if target.starts_with(b"/") {
                real.clear();
            }
            todo.extend(
                components(&target).map(<[u8]>::to_vec).collect::<Vec<_>>().into_iter().rev(),
            );
        }
    }
    Ok(real)
}

/// The names of a path, without empty ones and `.`.
pub(crate) fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|it| *it == b'/').filter(|it| !it.is_empty() && *it != b".")
}

/// Adds a name to a path.
pub(crate) fn push_component(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

/// `parent/name`, or whichever of them is not empty.
pub(crate) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = parent.to_vec();
    if !name.is_empty() {
        push_component(&mut path, name);
    }
    path
}

/// The path of the folder that `path` is in; nothing for the root.
pub(crate) fn parent(path: &[u8]) -> Option<&[u8]> {
    if path.is_empty() {
        return None;
    }
    Some(path.iter().rposition(|it| *it == b'/').map_or(&[][..], |slash| &path[..slash]))
}

/// The last name of a path.
pub(crate) fn last_name(path: &[u8]) -> &[u8] {
    path.iter().rposition(|it| *it == b'/').map_or(path, |slash| &path[slash + 1..])
}

fn truncate_to_parent(path: &mut Vec<u8>) {
    let len = parent(path).map_or(0, <[u8]>::len);
    path.truncate(len);
}

/// A path as text for messages.
pub(crate) fn lossy(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path))
}

fn empty_root() -> Node {
    Node {
        kind: Kind::Directory,
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        xattrs: Xattrs::default(),
        file_id: None,
        is_on_disk: false,
        content: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(path: &str, follow_last: bool, links: &[(&str, &str)]) -> String {
        let real = resolve(path.as_bytes(), follow_last, |at| {
            let found = links.iter().find(|(from, _)| from.as_bytes() == at);
            Ok(found.map(|(_, to)| to.as_bytes().to_vec()))
        });
        real.map_or_else(|error| error.to_string(), |it| String::from_utf8_lossy(&it).into_owned())
    }

    #[test]
    fn links_are_followed_and_never_leave_the_root() {
        let links = [
            ("var/run", "/run"),
            ("a", "../../.."),
            ("loop", "loop"),
            ("run/x", "y"),
            ("deep", "a/b/../c"),
        ];
        assert_eq!(resolved("/var/run/x", true, &links), "run/y");
        assert_eq!(resolved("/var/run/x", false, &links), "run/x");
        assert_eq!(resolved("a/etc/passwd", true, &links), "etc/passwd");
        assert_eq!(resolved("../../x/./y/", true, &links), "x/y");
        assert_eq!(resolved("deep/z", true, &links), "c/z");
        assert!(resolved("loop/x", true, &links).contains("too many"));
    }
}
