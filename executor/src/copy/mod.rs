//! COPY, ADD and WORKDIR: layers written straight from their sources, without mounts and without unpacking what is below.
//!
//! Read in this order: [`gather`] finds what the sources name, [`place`] where it goes, [`archive`] what ADD unpacks,
//! [`owner`] whose it becomes; here the files are hashed for the key and written into a layer, [`ahead`] of time and out of an
//! [`earlier`] layer.

mod ahead;
mod archive;
pub(crate) mod earlier;
mod gather;
mod owner;
mod place;

use std::io::{Read, Write};

use cache::StoreOptions;
use image::{
    entry::{Kind, Time},
    layer::{IndexedTarWriter, LayerIndex},
};
use planner::plan::{CopyItem, CopyOp, MkdirOp};

use self::{
    ahead::Ahead,
    earlier::Earlier,
    gather::{Match, Wanted},
    place::{Content, Item, Owning, Placement},
};
use crate::{
    error::ExecutorError,
    explain::FileListWriter,
    tree::{Node, Tree, lossy},
};

/// Which times the files of a layer get.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Times {
    /// That of what a step makes itself.
    pub now: Time,
    /// No time is later than this, in seconds since the Unix epoch.
    pub latest: Option<i64>,
}

/// How a copy is written.
pub(crate) struct How<'a> {
    pub times: Times,
    pub options: &'a StoreOptions,
    /// Where files that did not change can be read.
    pub earlier: Option<Earlier>,
}

/// What the items of a copy name, with digests.
pub(crate) struct Gathered {
    items: Vec<GatheredItem>,
    /// A digest over all of it: names, modes, owners, attributes, data; no times.
    pub(crate) content: [u8; 32],
    /// How many files, folders and links.
    pub(crate) n_files: u64,
    /// How many bytes of data.
    pub(crate) n_bytes: u64,
}

enum GatheredItem {
    Matches(Vec<Match>),
    Inline(String, String),
}

/// Finds and hashes the sources of a copy. `trees[n]` is the tree of the n-th item, empty for an inline one.
pub(crate) fn gather(op: &CopyOp, trees: &[Tree]) -> Result<Gathered, ExecutorError> {
    let mut hasher = Fields::default();
    let mut gathered = Gathered { items: Vec::new(), content: [0; 32], n_files: 0, n_bytes: 0 };
    for (tree_idx, (item, tree)) in op.items.iter().zip(trees).enumerate() {
        match item {
            CopyItem::Inline { name, data } => {
                hasher.field(b"inline");
                hasher.field(name.as_bytes());
                hasher.field(data.as_bytes());
                gathered.n_files += 1;
                gathered.n_bytes += data.len() as u64;
                gathered.items.push(GatheredItem::Inline(name.clone(), data.clone()));
            }
            CopyItem::Paths { path, parents, unpack, .. } => {
                let wanted =
                    Wanted { tree, tree_idx, path, parents: parents.as_ref(), unpack: *unpack };
                let mut matches = gather::gather(&wanted, op)?;
                hasher.field(b"matches");
                for found in &mut matches {
                    hasher.field(&found.name);
                    if found.root.is_file() {
                        found.root.content = Some(tree.content(&found.root_path, &found.root)?);
                    }
                    let content = || tree.content(&found.root_path, &found.root);
                    hash_node(&mut hasher, &found.root, content, &mut gathered)?;
                    for it in &found.below {
                        hasher.field(&it.path);
                        let path = || crate::tree::join(&found.root_path, &it.path);
                        let content = || tree.content(&path(), &it.node);
                        hash_node(&mut hasher, &it.node, content, &mut gathered)?;
                    }
                }
                gathered.items.push(GatheredItem::Matches(matches));
            }
        }
    }
    gathered.content = hasher.finish();
    Ok(gathered)
}

/// Hashes many short fields: they are collected first, since BLAKE3 is fast on long pieces only.
#[derive(Default)]
struct Fields {
    hasher: blake3::Hasher,
    collected: Vec<u8>,
}

impl Fields {
    const PIECE: usize = 64 * 1024;

    fn field(&mut self, bytes: &[u8]) {
        self.put(&(bytes.len() as u64).to_le_bytes());
        self.put(bytes);
    }

    fn put(&mut self, bytes: &[u8]) {
        self.collected.extend_from_slice(bytes);
        if self.collected.len() >= Self::PIECE {
            self.hasher.update(&self.collected);
            self.collected.clear();
        }
    }

    fn finish(mut self) -> [u8; 32] {
        self.hasher.update(&self.collected);
        self.hasher.finalize().into()
    }
}

fn hash_node(
    hasher: &mut Fields,
    node: &Node,
    content: impl FnOnce() -> Result<[u8; 32], ExecutorError>,
    gathered: &mut Gathered,
) -> Result<(), ExecutorError> {
    gathered.n_files += 1;
    for number in [node.mode, node.uid, node.gid] {
        hasher.put(&number.to_le_bytes());
    }
    match &node.kind {
        Kind::File { size } => {
            gathered.n_bytes += size;
            hasher.field(b"f");
            hasher.put(&content()?);
        }
        Kind::Directory => hasher.field(b"d"),
        Kind::Symlink { target } => {
            hasher.field(b"l");
            hasher.field(target);
        }
        Kind::Hardlink { target } => {
            hasher.field(b"h");
            hasher.field(target);
        }
        Kind::Fifo => hasher.field(b"p"),
        Kind::CharDevice { major, minor } => {
            hasher.field(b"c");
            hasher.put(&major.to_le_bytes());
            hasher.put(&minor.to_le_bytes());
        }
        Kind::BlockDevice { major, minor } => {
            hasher.field(b"b");
            hasher.put(&major.to_le_bytes());
            hasher.put(&minor.to_le_bytes());
        }
    }
    hasher.put(&(node.xattrs.len() as u64).to_le_bytes());
    for (name, value) in node.xattrs.iter() {
        hasher.field(name);
        hasher.field(value);
    }
    Ok(())
}

/// Adds what was gathered to a list; the sources count from `first`.
pub(crate) fn list(
    gathered: &Gathered,
    trees: &[Tree],
    first: usize,
    out: &mut FileListWriter,
) -> Result<(), ExecutorError> {
    for (item_idx, item) in gathered.items.iter().enumerate() {
        let idx = first + item_idx;
        let matches = match item {
            GatheredItem::Inline(name, data) => {
                out.add_inline(idx, name.as_bytes(), data.as_bytes());
                continue;
            }
            GatheredItem::Matches(matches) => matches,
        };
        for found in matches {
            let tree = &trees[found.tree_idx];
            let root = std::iter::once((found.root_path.clone(), &found.root));
            let below = found.below.iter();
            let below = below.map(|it| (crate::tree::join(&found.root_path, &it.path), &it.node));
            for (path, node) in root.chain(below) {
                let content = match node.kind {
                    Kind::File { .. } => tree.content(&path, node)?,
                    _ => [0; 32],
                };
                out.add(idx, &path, node, &content);
            }
        }
    }
    Ok(())
}

/// Fails if a source that is no pattern is not there.
pub(crate) fn check_source(tree: &Tree, path: &str) -> Result<(), ExecutorError> {
    if planner::wildcard::has_wildcards(path) {
        return Ok(());
    }
    let path = parser::encode(path.trim_start_matches('/'));
    let real = tree.resolve(&path, true)?;
    match tree.lookup(&real)? {
        Some(_) => Ok(()),
        None => Err(ExecutorError::NotFound { path: lossy(&path) }),
    }
}

/// Writes the layer of a copy into `out`, over the tree `below`.
pub(crate) fn write_copy<W: Write>(
    op: &CopyOp,
    gathered: Gathered,
    trees: &[Tree],
    below: &Tree,
    how: How<'_>,
    out: W,
) -> Result<(W, LayerIndex), ExecutorError> {
    let How { times, options, earlier } = how;
    let owner = match &op.chown {
        Some(text) => Some(owner::chown(text, below)?),
        None => None,
    };
    let owning = Owning { owner, chmod: op.chmod.as_ref(), times };
    let mut placement = Placement::new(below, owning);
    let mut spool = archive::Spool::new()?;
    let dest = parser::encode(op.dest.trim_start_matches('/'));
    for item in gathered.items {
        match item {
            GatheredItem::Inline(name, data) => {
                placement.inline(&parser::encode(&name), parser::encode(&data), &dest)?;
            }
            GatheredItem::Matches(matches) => {
                for found in matches {
                    let is_file = matches!(found.root.kind, Kind::File { .. });
                    if found.unpack
                        && is_file
                        && archive::unpack(
                            &trees[found.tree_idx],
                            &found,
                            &mut placement,
                            &dest,
                            &mut spool,
                            options,
                        )?
                    {
                        continue;
                    }
                    placement.copy(found, &dest)?;
                }
            }
        }
    }
    write_entries(placement, (trees, earlier.as_ref()), spool, out)
}

/// Writes the layer of a WORKDIR into `out`; its index has no entry if the folder was there.
pub(crate) fn write_mkdir<W: Write>(
    op: &MkdirOp,
    below: &Tree,
    times: Times,
    out: W,
) -> Result<(W, LayerIndex), ExecutorError> {
    let owner = match op.user.as_str() {
        "" => None,
        user => Some(owner::user(user, below)?),
    };
    let mut placement = Placement::new(below, Owning { owner, chmod: None, times });
    placement.make_folder(&parser::encode(op.path.trim_start_matches('/')))?;
    write_entries(placement, (&[], None), archive::Spool::new()?, out)
}

/// Writes all that an archive holds as a layer into `out`.
pub(crate) fn write_archive<W: Write>(
    input: impl Read + Send,
    options: &StoreOptions,
    out: W,
) -> Result<(W, LayerIndex), ExecutorError> {
    let plain = archive::plain(input, "the archive", options)?;
    let below = Tree::Empty;
    let mut placement =
        Placement::new(&below, Owning { owner: None, chmod: None, times: Times::default() });
    let mut spool = archive::Spool::new()?;
    archive::unpack_into(plain, "the archive", &mut placement, b"", &mut spool, options.limits)?;
    write_entries(placement, (&[], None), spool, out)
}

/// Whether the file at `path` is an archive, by its content.
pub(crate) fn is_archive(
    tree: &Tree,
    path: &[u8],
    options: &StoreOptions,
) -> Result<bool, ExecutorError> {
    archive::is_archive(tree, path, options)
}

fn write_entries<W: Write>(
    placement: Placement<'_>,
    (trees, earlier): (&[Tree], Option<&Earlier>),
    mut spool: archive::Spool,
    out: W,
) -> Result<(W, LayerIndex), ExecutorError> {
    let entries = placement.finish()?;
    let mut writer = IndexedTarWriter::new(out);
    writer.expect(entries.len());
    Ahead::new(trees, earlier, entries).write(|items| {
        while let Some(Item { entry, content, digest }) = items.next()? {
            let path = lossy(&entry.path);
            let size = entry.kind.size();
            let result = match content {
                Content::Nothing => writer.append(entry, &mut std::io::empty()),
                Content::Inline(bytes) => match digest {
                    Some(digest) => writer.append_read(entry, &bytes, digest),
                    None => writer.append(entry, &mut bytes.as_slice()),
                },
                Content::File(_) if size == 0 => writer.append(entry, &mut std::io::empty()),
                Content::File(origin) => {
                    let from = items.origin(origin, &entry.path);
                    let file = trees[origin.tree_idx].open(&from)?;
                    let written = writer.append(entry, &mut file.take(size));
                    // Under the key of this copy there must be what the key is made of.
                    let is_same = digest.is_none_or(|it| writer.last_content() == Some(&it));
                    if written.is_ok() && !is_same {
                        return Err(ExecutorError::Changed { path: lossy(&from) });
                    }
                    written
                }
                Content::Spooled(offset, len) => {
                    let part = spool.part(offset, len);
                    let mut part =
                        part.map_err(|source| ExecutorError::Read { path: path.clone(), source })?;
                    writer.append(entry, &mut part)
                }
            };
            result.map_err(|source| ExecutorError::WriteLayer { path, source })?;
        }
        Ok(())
    })?;
    Ok(writer.finish()?)
}
