//! The second half of a copy: where the files go, and what the layer with them says.
//!
//! A [`Placement`] is the tree below plus what this step puts over it. Paths given to it may lead through links of the
//! tree below; entries are kept under real paths.

use std::collections::{BTreeMap, btree_map};

use image::entry::{Entry, Kind, Time};
use planner::mode::Mode;

use super::{Times, gather::Match};
use crate::{
    error::ExecutorError,
    tree::{
        FileId, Found, Node, Tree, Xattrs, components, join, lossy, parent, push_component, resolve,
    },
};

/// Where the content of a file comes from.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// It has none: a folder, a link, a device.
    Nothing,
    /// Bytes in memory.
    Inline(Vec<u8>),
    /// A file of one of the step's trees.
    File(Origin),
    /// A part of a file that was unpacked aside: offset and length.
    Spooled(u64, u64),
}

/// Where a file is that is copied. Its path is not kept twice: that of the copy ends like it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    /// Which tree of the step it is in.
    pub tree_idx: usize,
    /// Which of the matches it belongs to.
    found: usize,
    /// Where the part of the copy's path begins that is its path below the match; none for the match itself.
    below: Option<usize>,
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
    /// The real paths of the matches, see [`Origin`].
    matches: Vec<Vec<u8>>,
    placed: BTreeMap<Vec<u8>, Box<Placed>>,
}

/// All that a layer holds, in an order in which parents come first. Each is let go of when it is taken.
pub(crate) struct Entries {
    placed: btree_map::IntoIter<Vec<u8>, Box<Placed>>,
    latest: Option<i64>,
    origins: Origins,
}

/// The real paths of the matches: what leads from an [`Origin`] to a path.
#[derive(Default)]
pub(crate) struct Origins(Vec<Vec<u8>>);

/// One of the entries.
pub(crate) struct Item {
    pub entry: Entry,
    pub content: Content,
    /// The BLAKE3 of a file: that in the step's key, or that of what was read.
    pub digest: Option<[u8; 32]>,
}

impl Origins {
    /// The real path of what was copied to `path`.
    pub(crate) fn path(&self, origin: Origin, path: &[u8]) -> Vec<u8> {
        let found = self.0.get(origin.found).map_or(&[][..], Vec::as_slice);
        match origin.below {
            Some(start) => join(found, path.get(start..).unwrap_or_default()),
            None => found.to_vec(),
        }
    }
}

impl Entries {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.placed.len()
    }

    /// What leads to their files.
    pub(crate) fn take_origins(&mut self) -> Origins {
        std::mem::take(&mut self.origins)
    }
}

impl Iterator for Entries {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        let (path, placed) = self.placed.next()?;
        let Placed { node, content } = *placed;
        let Node { kind, mode, uid, gid, mtime, xattrs, content: digest, .. } = node;
        let mtime = Time { secs: mtime.secs.min(self.latest.unwrap_or(i64::MAX)), nanos: 0 };
        let xattrs = xattrs.into_map();
        Some(Item { entry: Entry { path, kind, mode, uid, gid, mtime, xattrs }, content, digest })
    }
}

impl<'a> Placement<'a> {
    pub(crate) fn new(below: &'a Tree, owning: Owning<'a>) -> Self {
        Self { below, owning, matches: Vec::new(), placed: BTreeMap::new() }
    }

    /// Copies one match to `dest`, which ends in a slash if it is a folder.
    pub(crate) fn copy(&mut self, found: Match, dest: &[u8]) -> Result<(), ExecutorError> {
        let Match { tree_idx, name, root, root_path, below, .. } = found;
        self.ensure_folder_of(dest)?;
        let target = self.resolve(dest)?;
        let existing = self.lookup(&target)?;
        let origin = Origin { tree_idx, found: self.matches.len(), below: None };
        self.matches.push(root_path);
        if root.is_dir() {
            match existing {
                Some(node) if !node.is_dir() => {
                    return Err(ExecutorError::NotAFolder { path: lossy(&target) });
                }
                Some(_) => {}
                None => self.make_folders(&target)?,
            }
            for it in below {
                self.put_found(origin, it, &target)?;
            }
            return Ok(());
        }
        let target = match existing {
            Some(node) if node.is_dir() => join(&target, &name),
            _ => target,
        };
        let content = match root.kind {
            Kind::File { .. } => Content::File(origin),
            _ => Content::Nothing,
        };
        self.put_file(target, self.owned(root), content)
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
        self.put_file(target, node, Content::Inline(data))
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

    /// Makes the folder `path` that an archive is unpacked in, as `make_folder`, but without `--chmod`.
    pub(crate) fn make_archive_folder(&mut self, path: &[u8]) -> Result<Vec<u8>, ExecutorError> {
        let chmod = self.owning.chmod.take();
        let made = self.make_folder(path);
        self.owning.chmod = chmod;
        made?;
        self.resolve(path)
    }

    /// Puts an entry of an archive below the real path `folder`, as unpacking it there would. To the archive `folder` is
    /// the root: that is where absolute links lead, and what no `..` leads out of.
    pub(crate) fn unpacked(
        &mut self,
        folder: &[u8],
        entry: Entry,
        content: Content,
    ) -> Result<(), ExecutorError> {
        // `./` says nothing of the folder that the archive is unpacked in.
        if entry.path.is_empty() {
            return Ok(());
        }
        let parent_path = parent(&entry.path).unwrap_or_default();
        let parent_path = join(folder, &self.resolve_in(folder, parent_path, true)?);
        self.make_implied_folders(&parent_path)?;
        let target = join(&parent_path, crate::tree::last_name(&entry.path));
        let (uid, gid) = self.owning.owner.unwrap_or((entry.uid, entry.gid));
        let mut node = Node {
            kind: entry.kind,
            mode: entry.mode,
            uid,
            gid,
            mtime: entry.mtime,
            xattrs: entry.xattrs.into(),
            file_id: None,
            is_on_disk: false,
            content: None,
        };
        if let Kind::Hardlink { target: link } = &node.kind {
            let link = join(folder, &self.resolve_in(folder, link, false)?);
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
            first.node.file_id.get_or_insert(Box::new(id));
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
        self.placed.insert(target, Box::new(Placed { node, content }));
        Ok(())
    }

    /// Adds the folders above what was placed, and makes links of further names of a file.
    pub(crate) fn finish(mut self) -> Result<Entries, ExecutorError> {
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
                let placed = Placed { node, content: Content::Nothing };
                self.placed.entry(path).or_insert_with(|| Box::new(placed));
            }
        }
        let mut first_names: BTreeMap<(usize, FileId), Vec<u8>> = BTreeMap::new();
        for (path, placed) in &mut self.placed {
            let Placed { node, content } = &mut **placed;
            let tree_idx = match content {
                Content::File(origin) => origin.tree_idx,
                _ => usize::MAX,
            };
            if let (Some(id), Kind::File { .. }) = (node.file_id.take(), &node.kind) {
                let id = (tree_idx, *id);
                match first_names.get(&id) {
                    Some(first) => {
                        node.kind = Kind::Hardlink { target: first.clone() };
                        *content = Content::Nothing;
                    }
                    None => drop(first_names.insert(id, path.clone())),
                }
            }
        }
        let origins = Origins(self.matches);
        Ok(Entries { placed: self.placed.into_iter(), latest: self.owning.times.latest, origins })
    }

    /// Puts what was found in a folder of a tree into the folder `target`.
    fn put_found(
        &mut self,
        origin: Origin,
        found: Found,
        target: &[u8],
    ) -> Result<(), ExecutorError> {
        let path = join(target, &found.path);
        let content = match found.node.kind {
            Kind::File { .. } => {
                let below = Some(path.len() - found.path.len());
                Content::File(Origin { below, ..origin })
            }
            _ => Content::Nothing,
        };
        let node = self.owned(found.node);
        if node.is_dir() {
            match self.lookup(&path)? {
                Some(existing) if !existing.is_dir() => {
                    return Err(ExecutorError::NotAFolder { path: lossy(&path) });
                }
                _ => drop(self.placed.insert(path, Box::new(Placed { node, content }))),
            }
            return Ok(());
        }
        self.put_file(path, node, content)
    }

    fn put_file(
        &mut self,
        path: Vec<u8>,
        node: Node,
        content: Content,
    ) -> Result<(), ExecutorError> {
        if path.is_empty() || self.lookup(&path)?.is_some_and(|it| it.is_dir()) {
            return Err(ExecutorError::FolderInTheWay { path: lossy(&path) });
        }
        self.placed.insert(path, Box::new(Placed { node, content }));
        Ok(())
    }

    /// A source's node as it will be owned.
    fn owned(&self, mut node: Node) -> Node {
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
            xattrs: Xattrs::default(),
            file_id: None,
            is_on_disk: false,
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

    /// Makes the folders of a real path that an archive has files in, but no entries of: they are root's.
    fn make_implied_folders(&mut self, path: &[u8]) -> Result<(), ExecutorError> {
        let (owner, chmod) = (self.owning.owner.take(), self.owning.chmod.take());
        let made = self.make_folders(path);
        (self.owning.owner, self.owning.chmod) = (owner, chmod);
        made
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
                    let placed = Placed { node, content: Content::Nothing };
                    self.placed.insert(at.clone(), Box::new(placed));
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

    /// The real path below the real path `root`, which is the root to it.
    fn resolve_in(
        &self,
        root: &[u8],
        path: &[u8],
        follow_last: bool,
    ) -> Result<Vec<u8>, ExecutorError> {
        resolve(path, follow_last, |path| self.link_at(&join(root, path)))
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
