//! COPY, ADD and WORKDIR: layers written straight from their sources, without mounts and without unpacking what is below.
//!
//! Read in this order: [`gather`] finds what the sources name, [`place`] where it goes, [`archive`] what ADD unpacks,
//! [`owner`] whose it becomes; here the files are hashed for the key and written into a layer.

mod archive;
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
    gather::{Match, Wanted},
    place::{Content, Owning, Placement},
};
use crate::{
    error::ExecutorError,
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
    let mut hasher = blake3::Hasher::new();
    let mut gathered = Gathered { items: Vec::new(), content: [0; 32], n_files: 0, n_bytes: 0 };
    for (tree_idx, (item, tree)) in op.items.iter().zip(trees).enumerate() {
        match item {
            CopyItem::Inline { name, data } => {
                field(&mut hasher, b"inline");
                field(&mut hasher, name.as_bytes());
                field(&mut hasher, data.as_bytes());
                gathered.n_files += 1;
                gathered.n_bytes += data.len() as u64;
                gathered.items.push(GatheredItem::Inline(name.clone(), data.clone()));
            }
            CopyItem::Paths { path, parents, unpack, .. } => {
                let wanted =
                    Wanted { tree, tree_idx, path, parents: parents.as_ref(), unpack: *unpack };
                let matches = gather::gather(&wanted, op)?;
                prefetch(tree, &matches)?;
                field(&mut hasher, b"matches");
                for found in &matches {
                    field(&mut hasher, &found.name);
                    hash_node(&mut hasher, tree, &found.root_path, &found.root, &mut gathered)?;
                    for it in &found.below {
                        field(&mut hasher, &it.path);
                        let path = crate::tree::join(&found.root_path, &it.path);
                        hash_node(&mut hasher, tree, &path, &it.node, &mut gathered)?;
                    }
                }
                gathered.items.push(GatheredItem::Matches(matches));
            }
        }
    }
    gathered.content = hasher.finalize().into();
    Ok(gathered)
}

fn field(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

fn hash_node(
    hasher: &mut blake3::Hasher,
    tree: &Tree,
    path: &[u8],
    node: &Node,
    gathered: &mut Gathered,
) -> Result<(), ExecutorError> {
    gathered.n_files += 1;
    for number in [node.mode, node.uid, node.gid] {
        hasher.update(&number.to_le_bytes());
    }
    match &node.kind {
        Kind::File { size } => {
            gathered.n_bytes += size;
            field(hasher, b"f");
            hasher.update(&tree.content(path, node)?);
        }
        Kind::Directory => field(hasher, b"d"),
        Kind::Symlink { target } => {
            field(hasher, b"l");
            field(hasher, target);
        }
        Kind::Hardlink { target } => {
            field(hasher, b"h");
            field(hasher, target);
        }
        Kind::Fifo => field(hasher, b"p"),
        Kind::CharDevice { major, minor } => {
            field(hasher, b"c");
            hasher.update(&major.to_le_bytes());
            hasher.update(&minor.to_le_bytes());
        }
        Kind::BlockDevice { major, minor } => {
            field(hasher, b"b");
            hasher.update(&major.to_le_bytes());
            hasher.update(&minor.to_le_bytes());
        }
    }
    hasher.update(&(node.xattrs.len() as u64).to_le_bytes());
    for (name, value) in &node.xattrs {
        field(hasher, name);
        field(hasher, value);
    }
    Ok(())
}

/// Hashes the files of a folder of the user's on all processors, so that asking for each digest afterwards is a look-up.
fn prefetch(tree: &Tree, matches: &[Match]) -> Result<(), ExecutorError> {
    if !matches!(tree, Tree::Folder(_)) {
        return Ok(());
    }
    let files: Vec<(Vec<u8>, &Node)> = matches
        .iter()
        .flat_map(|found| {
            found
                .below
                .iter()
                .filter(|it| matches!(it.node.kind, Kind::File { .. }))
                .map(move |it| (crate::tree::join(&found.root_path, &it.path), &it.node))
        })
        .collect();
    let n_threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    if files.len() < 64 || n_threads < 2 {
        return Ok(());
    }
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let work = || -> Result<(), ExecutorError> {
            loop {
                let start = next.fetch_add(32, std::sync::atomic::Ordering::Relaxed);
                let Some(files) = files.get(start..files.len().min(start + 32)) else {
                    return Ok(());
                };
                if files.is_empty() {
                    return Ok(());
                }
                for (path, node) in files {
                    tree.content(path, node)?;
                }
            }
        };
        let threads: Vec<_> = (1..n_threads).map(|_| scope.spawn(work)).collect();
        let mut result = work();
        for thread in threads {
            let other = thread.join().unwrap_or(Ok(()));
            result = result.and(other);
        }
        result
    })
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
    gathered: &Gathered,
    trees: &[Tree],
    below: &Tree,
    (times, options): (Times, &StoreOptions),
    out: W,
) -> Result<(W, LayerIndex), ExecutorError> {
    let owner = match &op.chown {
        Some(text) => Some(owner::chown(text, below)?),
        None => None,
    };
    let owning = Owning { owner, chmod: op.chmod.as_ref(), times };
    let mut placement = Placement::new(below, owning);
    let mut spool = archive::Spool::new()?;
    let dest = parser::encode(op.dest.trim_start_matches('/'));
    for item in &gathered.items {
        match item {
            GatheredItem::Inline(name, data) => {
                placement.inline(&parser::encode(name), parser::encode(data), &dest)?;
            }
            GatheredItem::Matches(matches) => {
                for found in matches {
                    let is_file = matches!(found.root.kind, Kind::File { .. });
                    if found.unpack
                        && is_file
                        && archive::unpack(
                            &trees[found.tree_idx],
                            found,
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
    write_entries(placement, trees, spool, out)
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
    write_entries(placement, &[], archive::Spool::new()?, out)
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
    write_entries(placement, &[], spool, out)
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
    trees: &[Tree],
    mut spool: archive::Spool,
    out: W,
) -> Result<(W, LayerIndex), ExecutorError> {
    let mut writer = IndexedTarWriter::new(out);
    for (entry, content) in placement.finish()? {
        let path = lossy(&entry.path);
        let size = match entry.kind {
            Kind::File { size } => size,
            _ => 0,
        };
        let result = match content {
            Content::Nothing => writer.append(entry, &mut std::io::empty()),
            Content::Inline(bytes) => writer.append(entry, &mut bytes.as_slice()),
            Content::File(_, _) if size == 0 => writer.append(entry, &mut std::io::empty()),
            Content::File(tree_idx, from) => {
                let file = trees[tree_idx].open(&from)?;
                let written = writer.append(entry, &mut file.take(size));
                // Under the key of this copy there must be what the key is made of.
                if let (Ok(()), Tree::Folder(folder), Some(content)) =
                    (&written, &trees[tree_idx], writer.last_content())
                {
                    folder.check(&from, content)?;
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
    Ok(writer.finish()?)
}
