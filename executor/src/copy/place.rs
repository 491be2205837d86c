//! The second half of a copy: where the files go, and what the layer with them says.
//!
//! A [`Placement`] is the tree below plus what this step puts over it. Paths given to it may lead through links of the
//! tree below; entries are kept under real paths.

use std::collections::BTreeMap;

use image::entry::{Entry, Kind, Time};
use planner::mode::Mode;

use super::{Times, gather::Match};
use crate::{
    error::ExecutorError,
    tree::{FileId, Found, Node, Tree, components, join, lossy, parent, push_component, resolve},
};

/// Where the content of a file comes from.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// It has none: a folder, a link, a device.
    Nothing,
    /// Bytes in memory.
    Inline(Vec<u8>),
    /// A file of one of the step's trees, at a real path, with the digest that is in the step's key.
    File(usize, Vec<u8>, Option<[u8; 32]>),
    /// A small file that is read ahead, the next of those.
    Ahead,
    /// A part of a file that was unpacked aside: offset and length.
    Spooled(u64, u64),
}

/// A file to be written.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub node: Node,
    pub content: Content,
}

/// How copied files are owned, what modes and times they get.
#[derive(Debug, Clone)]
pub(crate) struct Owning<'a> {
    /// `--chown`, resolved.
    pub owner: Option<(u32, u32)>,
    /// `--chmod`.
    pub chmod: Option<&'a Mode>,
    /// Their times.
    pub times: Times,
}

/// What a step puts over a tree.
pub(crate) struct Placement<'a> {
    below: &'a Tree,
    owning: Owning<'a>,
    placed: BTreeMap<Vec<u8>, Placed>,
}

impl<'a> Placement<'a> {
    pub(crate) fn new(below: &'a Tree, owning: Owning<'a>) -> Self {
        Self { below, owning, placed: BTreeMap::new() }
    }

    /// Copies one match to `dest`, which ends in a slash if it is a folder.
    pub(crate) fn copy(&mut self, found: &Match, dest: &[u8]) -> Result<(), ExecutorError> {
        self.ensure_folder_of(dest)?;
        let target = self.resolve(dest)?;
        let existing = self.lookup(&target)?;
        if found.root.is_dir() {
            match existing {
                Some(node) if !node.is_dir() => {
                    return Err(ExecutorError::NotAFolder { path: lossy(&target) });
                }
                Some(_) => {}
                None => self.make_folders(&target)?,
            }
            for it in &found.below {
                self.put_found(found, it, &target)?;
            }
            return Ok(());
        }
        let target = match existing {
            Some(node) if node.is_dir() => join(&target, &found.name),
            _ => target,
        };
        let content = match found.root.kind {
            Kind::File { .. } => {
                Content::File(found.tree_idx, found.root_path.clone(), found.root.content)
            }
            _ => Content::Nothing,
        };
        self.put_file(&target, self.owned(&found.root), content)
    }

    /// Writes a file of the Dockerfile's to `dest`.
    pub(crate) fn inline(
        &mut self,
        name: &[u8],
        data: Vec<u8>,
        dest: &[u8],
    ) -> Result<(), ExecutorError> {
        self.ensure_folder_of(dest)?;
        let target = self.resolve(dest)?;
        let target = match self.lookup(&target)? {
            Some(node) if node.is_dir() => join(&target, name),
            _ => target,
        };
        let mut node = self.new_node(Kind::File { size: data.len() as u64 }, 0o644);
        node.mtime = self.owning.times.now;
        self.put_file(&target, node, Content::Inline(data))
    }

    /// Makes the folder `path` and what is missing above it; says whether anything was missing.
    pub(crate) fn make_folder(&mut self, path: &[u8]) -> Result<bool, ExecutorError> {
        let target = self.resolve(path)?;
        match self.lookup(&target)? {
            Some(node) if node.is_dir() => Ok(false),
            Some(_) => Err(ExecutorError::NotAFolder { path: lossy(&target) }),
            None => self.make_folders(&target).map(|()| true),
        }
    }

    /// Puts an entry of an archive below `dest`, as unpacking it there would.
    pub(crate) fn unpacked(
        &mut self,
        dest: &[u8],
        entry: Entry,
        content: Content,
    ) -> Result<(), ExecutorError> {
        let folder = self.resolve(dest)?;
        let parent_path = parent(&entry.path).unwrap_or_default();
        let parent_path = self.resolve(&join(&folder, parent_path))?;
        if self.lookup(&parent_path)?.is_none_or(|it| !it.is_dir()) {
            self.make_folders(&parent_path)?;
        }
        let target = match entry.path.is_empty() {
            true => parent_path,
            false => join(&parent_path, crate::tree::last_name(&entry.path)),
        };
        let (uid, gid) = self.owning.owner.unwrap_or((entry.uid, entry.gid));
        let mut node = Node {
            kind: entry.kind,
            mode: entry.mode,
            uid,
            gid,
            mtime: entry.mtime,
            xattrs: entry.xattrs,
            file_id: None,
            stamp: None,
            content: None,
        };
        if let Kind::Hardlink { target: link } = &node.kind {
            let link = join(&folder, &components(link).collect::<Vec<_>>().join(&b'/'));
            let link = resolve(&link, false, |path| self.link_at(path))?;
            // The file it names becomes the same file: an identity of its own path.
            let id = FileId::First(usize::MAX, link.clone());
            let Some(first) = self.placed.get_mut(&link) else {
                return Err(ExecutorError::BadArchive {
                    message: format!(
                        "hard link `{}` to a file that is not there",
                        lossy(&entry.path)
                    ),
                });
            };
            first.node.file_id.get_or_insert(id);
            let same = first.clone();
            self.placed.insert(target, same);
            return Ok(());
        }
        match self.lookup(&target)? {
            Some(existing) if existing.is_dir() && node.is_dir() => {}
            Some(existing) if existing.is_dir() => self.remove_below(&target),
            _ => {}
        }
        node.file_id = None;
        if !target.is_empty() {
            self.placed.insert(target, Placed { node, content });
        }
        Ok(())
    }

    /// Gives all entries in an order in which parents come first, with the folders above them.
    pub(crate) fn finish(mut self) -> Result<Vec<(Entry, Content)>, ExecutorError> {
        let mut parents = Vec::new();
        for path in self.placed.keys() {
            let mut at = path.as_slice();
            while let Some(above) = parent(at) {
                if above.is_empty() || self.placed.contains_key(above) {
                    break;
                }
                parents.push(above.to_vec());
                at = above;
            }
        }
        for path in parents {
            if let Some(node) = self.below.lookup(&path)? {
                self.placed.entry(path).or_insert(Placed { node, content: Content::Nothing });
            }
        }
        let mut first_names: BTreeMap<(usize, FileId), (Vec<u8>, u64)> = BTreeMap::new();
        let mut entries = Vec::with_capacity(self.placed.len());
        for (path, Placed { node, content }) in self.placed {
            let tree_idx = match &content {
                Content::File(tree_idx, ..) => *tree_idx,
                _ => usize::MAX,
            };
            let mut kind = node.kind;
            let mut content = content;
            if let (Some(id), Kind::File { size }) = (node.file_id, &kind) {
                match first_names.get(&(tree_idx, id.clone())) {
                    Some((first, _)) => {
                        kind = Kind::Hardlink { target: first.clone() };
                        content = Content::Nothing;
                    }
                    None => drop(first_names.insert((tree_idx, id), (path.clone(), *size))),
                }
            }
            let (mode, uid, gid, mtime, xattrs) =
                (node.mode, node.uid, node.gid, node.mtime, node.xattrs);
            let secs = self.owning.times.latest.map_or(mtime.secs, |latest| mtime.secs.min(latest));
            let mtime = Time { secs, nanos: 0 };
            entries.push((Entry { path, kind, mode, uid, gid, mtime, xattrs }, content));
        }
        Ok(entries)
    }

    fn put_found(&mut self, of: &Match, found: &Found, target: &[u8]) -> Result<(), ExecutorError> {
        let path = join(target, &found.path);
        let node = self.owned(&found.node);
        if found.node.is_dir() {
            match self.lookup(&path)? {
                Some(existing) if !existing.is_dir() => {
                    return Err(ExecutorError::NotAFolder { path: lossy(&path) });
                }
                _ => drop(self.placed.insert(path, Placed { node, content: Content::Nothing })),
            }
            return Ok(());
        }
        let content = match found.node.kind {
            Kind::File { .. } => {
                Content::File(of.tree_idx, join(&of.root_path, &found.path), found.node.content)
            }
            _ => Content::Nothing,
        };
        self.put_file(&path, node, content)
    }

    fn put_file(&mut self, path: &[u8], node: Node, content: Content) -> Result<(), ExecutorError> {
        if path.is_empty() || self.lookup(path)?.is_some_and(|it| it.is_dir()) {
            return Err(ExecutorError::FolderInTheWay { path: lossy(path) });
        }
        self.placed.insert(path.to_vec(), Placed { node, content });
        Ok(())
    }

    /// A source's node as it will be owned.
    fn owned(&self, node: &Node) -> Node {
        let mut node = node.clone();
        if let Some((uid, gid)) = self.owning.owner {
            (node.uid, node.gid) = (uid, gid);
        }
        if let Some(mode) = self.owning.chmod
            && !matches!(node.kind, Kind::Symlink { .. })
        {
            node.mode = mode.apply(node.mode, node.is_dir());
        }
        node
    }

    fn new_node(&self, kind: Kind, mode: u32) -> Node {
        let (uid, gid) = self.owning.owner.unwrap_or((0, 0));
        let is_dir = matches!(kind, Kind::Directory);
        let mode = self.owning.chmod.map_or(mode, |it| it.apply(mode, is_dir));
        Node {
            kind,
            mode,
            uid,
            gid,
            mtime: self.owning.times.now,
            xattrs: BTreeMap::new(),
            file_id: None,
            stamp: None,
            content: None,
        }
    }

    /// Makes the folder that `dest` stands in, or `dest` itself if it ends in a slash.
    fn ensure_folder_of(&mut self, dest: &[u8]) -> Result<(), ExecutorError> {
        let folder = match dest.iter().rposition(|it| *it == b'/') {
            Some(slash) => &dest[..slash],
            None => return Ok(()),
        };
        self.make_folder(folder).map(drop)
    }

    /// Makes the folders of a real path that are missing.
    fn make_folders(&mut self, path: &[u8]) -> Result<(), ExecutorError> {
        let mut at = Vec::new();
        for name in components(path) {
            push_component(&mut at, name);
            match self.lookup(&at)? {
                Some(node) if node.is_dir() => {}
                Some(_) => return Err(ExecutorError::NotAFolder { path: lossy(&at) }),
                None => {
                    let node = self.new_node(Kind::Directory, 0o755);
                    self.placed.insert(at.clone(), Placed { node, content: Content::Nothing });
                }
            }
        }
        Ok(())
    }

    fn remove_below(&mut self, path: &[u8]) {
        let prefix = join(path, b"/");
        self.placed.retain(|it, _| !it.starts_with(&prefix[..]) && it != path);
    }

    fn resolve(&self, path: &[u8]) -> Result<Vec<u8>, ExecutorError> {
        resolve(path, true, |path| self.link_at(path))
    }

    fn link_at(&self, path: &[u8]) -> Result<Option<Vec<u8>>, ExecutorError> {
        Ok(match self.lookup(path)? {
            Some(Node { kind: Kind::Symlink { target }, .. }) => Some(target),
            _ => None,
        })
    }

    fn lookup(&self, path: &[u8]) -> Result<Option<Node>, ExecutorError> {
        match self.placed.get(path) {
            Some(placed) => Ok(Some(placed.node.clone())),
            None => self.below.lookup(path),
        }
    }
}
