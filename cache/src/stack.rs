//! What an overlay of a chain of layers stands on: the trees of its layers, or of many of them laid on each other.
//!
//! The kernel takes 500 layers, and looks into each of them for every name. So the trees of a tall stack are laid on each
//! other by sixteens, counted from the bottom, and sixteen of those again: no mount has more than a few dozen, and a layer is
//! laid on others once for each power of sixteen.
//!
//! Such a group is a tree of hard links in the staging folder of this process, and goes with it: nobody else has to know of it, to
//! check it, or to collect it. Folders are made anew, with owner, mode, time and attributes of the uppermost one. A
//! whiteout stays only where something below the group is hidden by it, because overlay would show one in a folder that no other layer has.

use std::{
    collections::HashMap,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use image::{
    DiffId,
    layer::{LayerIndex, join_path},
    view::View,
};
use rustix::{
    fs::{
        AtFlags, FileType, Gid, Mode, OFlags, RawDir, Timespec, Timestamps, Uid, XattrFlags,
        fchmod, fchown, fgetxattr, flistxattr, fremovexattr, fsetxattr, fstat, futimens, linkat,
        mkdirat, open, openat, statat, unlinkat,
    },
    io::Errno,
};

use crate::{
    below::is_kept,
    error::{IoContext, StoreError},
    files,
    on_disk::{accept_missing, is_folder},
    remove::remove_all_at,
    store::{Store, guard},
    tree::is_opaque,
};

/// So many trees are laid on each other.
const GROUP: usize = 16;
/// A stack of so many layers is mounted as it is.
const TALL: usize = 64;
/// What overlay takes.
const MAX_LAYERS: usize = 500;
/// The kernel lists and returns no more than this at once.
const MAX_XATTR: usize = 64 * 1024;
const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What this process has found out for its stacks.
#[derive(Debug, Default)]
pub(crate) struct Stacks {
    /// Groups, by the chain up to their last layer and the number of their layers.
    groups: HashMap<([u8; 32], usize), PathBuf>,
    /// Whether the root of a tree is marked as opaque.
    opaque: HashMap<DiffId, bool>,
}

/// Layers that are all seen, from the bottom up.
#[derive(Default)]
struct Stack {
    indexes: Vec<Arc<LayerIndex>>,
    trees: Vec<PathBuf>,
    /// Of each layer the identity of the chain up to it.
    chains: Vec<[u8; 32]>,
}

impl Store {
    /// Returns the folders that an overlay stands on to be `layers`, from the bottom up. What is not unpacked is, side by side.
    ///
    /// They are there until the store is dropped, or what it has leased is collected.
    ///
    /// # Errors
    ///
    /// Those of [`ensure_tree`](Self::ensure_tree), and [`StoreError::EntryIo`] if the trees of a stack that is too tall for overlay cannot
    /// be laid on each other.
    pub fn stack(&self, layers: &View) -> Result<Vec<PathBuf>, StoreError> {
        let mut indexes = Vec::with_capacity(layers.layers().len());
        for index in layers.layers() {
            if index.hides_all() {
                indexes.clear();
            }
            // Layers that change nothing would only make look-ups longer.
            if !index.changes.is_empty() {
                indexes.push(index.clone());
            }
        }
        self.unpack_all(&indexes)?;
        let mut stacks = guard(&self.inner.stacks);
        let mut stack = Stack::default();
        for index in indexes {
            let tree = self.ensure_tree(&index.diff_id)?;
            if *stacks.opaque.entry(index.diff_id).or_insert_with(|| is_opaque(&tree)) {
                stack = Stack::default();
            }
            stack.push(index, tree);
        }
        if stack.trees.len() <= TALL {
            return Ok(stack.trees);
        }
        match self.grouped(&stack, &mut stacks) {
            // Slower, and right.
            Err(_) if stack.trees.len() <= MAX_LAYERS => Ok(stack.trees),
            result => result,
        }
    }

    fn unpack_all(&self, indexes: &[Arc<LayerIndex>]) -> Result<(), StoreError> {
        let mut missing = Vec::new();
        for index in indexes {
            if !self.has_tree(&index.diff_id)? {
                missing.push(index.diff_id);
            }
        }
        let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(layer) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.ensure_tree(layer)?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                (1..n_threads.min(missing.len())).map(|_| scope.spawn(work)).collect();
            let mut result = work();
            for thread in threads {
                result = result.and(match thread.join() {
                    Ok(result) => result,
                    Err(panic) => std::panic::resume_unwind(panic),
                });
            }
            result
        })
    }

    fn grouped(&self, stack: &Stack, stacks: &mut Stacks) -> Result<Vec<PathBuf>, StoreError> {
        let mut folders = Vec::new();
        let mut start = 0;
        while start < stack.trees.len() {
            let mut n_layers = 1;
            while start % (n_layers * GROUP) == 0 && start + n_layers * GROUP <= stack.trees.len() {
                n_layers *= GROUP;
            }
            folders.push(self.group(stack, start, n_layers, stacks)?);
            start += n_layers;
        }
        Ok(folders)
    }

    /// Returns the folder that stands for `n_layers`, a power of [`GROUP`], from `start` on.
    fn group(
        &self,
        stack: &Stack,
        start: usize,
        n_layers: usize,
        stacks: &mut Stacks,
    ) -> Result<PathBuf, StoreError> {
        if n_layers == 1 {
            return Ok(stack.trees[start].clone());
        }
        let key = (stack.chains[start + n_layers - 1], n_layers);
        if let Some(folder) = stacks.groups.get(&key) {
            return Ok(folder.clone());
        }
        let n_each = n_layers / GROUP;
        let parts = (0..GROUP)
            .map(|nth| self.group(stack, start + nth * n_each, n_each, stacks))
            .collect::<Result<Vec<_>, _>>()?;
        let below = View::new(stack.indexes[..start].to_vec());
        let folder = self.scratch()?;
        files::ensure_dir(&folder, 0o700)?;
        if let Err(error) = lay(&parts, &below, &folder) {
            let _ = files::remove_tree(&folder);
            return Err(error);
        }
        stacks.groups.insert(key, folder.clone());
        Ok(folder)
    }
}

impl Stack {
    fn push(&mut self, index: Arc<LayerIndex>, tree: PathBuf) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.chains.last().map_or(&[], <[u8; 32]>::as_slice));
        hasher.update(index.diff_id.0.as_bytes());
        self.chains.push(hasher.finalize().into());
        self.indexes.push(index);
        self.trees.push(tree);
    }
}

/// Lays trees, which come from the bottom up, on each other in the empty folder `dest`. `below` is what is below all of them.
pub(crate) fn lay(trees: &[PathBuf], below: &View, dest: &Path) -> Result<(), StoreError> {
    let dest = open(dest, FOLDER, Mode::empty()).at("open", dest)?;
    let mut layer = Layer { below, buffer: vec![0; MAX_XATTR] };
    for tree in trees {
        let from = open(tree, FOLDER, Mode::empty()).at("open", tree)?;
        layer.lay(from, dest.try_clone().at("open", tree)?)?;
    }
    Ok(())
}

/// What a name of a tree is to an overlay.
#[derive(Clone, Copy)]
enum What {
    Folder,
    Whiteout,
    Other,
}

/// A folder that is gone through.
struct Level {
    path: Vec<u8>,
    names: std::vec::IntoIter<(Vec<u8>, What)>,
    /// Nothing of what is below the group is seen here.
    is_closed: bool,
}

struct Layer<'a> {
    below: &'a View,
    buffer: Vec<u8>,
}

impl Layer<'_> {
    /// Lays one tree on what is there. It may be deeper than there are handles, so the way back is `..`.
    fn lay(&mut self, mut from: OwnedFd, mut to: OwnedFd) -> Result<(), StoreError> {
        let names = list(&from).of("list", b"")?.into_iter();
        let mut levels = vec![Level { path: Vec::new(), names, is_closed: false }];
        while let Some(level) = levels.last_mut() {
            let Some((name, what)) = level.names.next() else {
                self.dress(&from, &to).of("set the attributes of", &level.path)?;
                levels.pop();
                if let Some(above) = levels.last() {
                    from = openat(&from, "..", FOLDER, Mode::empty()).of("open", &above.path)?;
                    to = openat(&to, "..", FOLDER, Mode::empty()).of("open", &above.path)?;
                }
                continue;
            };
            let (path, is_closed) = (join_path(&level.path, &name), level.is_closed);
            match what {
                What::Folder => {
                    from =
                        openat(&from, name.as_slice(), FOLDER, Mode::empty()).of("open", &path)?;
                    let is_opaque = has_opaque_mark(&from);
                    let is_closed;
                    (to, is_closed) = self.folder(&to, &name, &path, level.is_closed, is_opaque)?;
                    let names = list(&from).of("list", &path)?.into_iter();
                    levels.push(Level { path, names, is_closed });
                }
                What::Whiteout if is_closed || self.below.lookup(&path).is_none() => {
                    remove(&to, &name).of("remove", &path)?;
                }
                What::Whiteout | What::Other => link(&from, &to, &name).of("link", &path)?,
            }
        }
        Ok(())
    }

    /// Opens a folder of the group, and makes it if it is not there. `is_opaque` says that what was there is not seen.
    fn folder(
        &self,
        to: &OwnedFd,
        name: &[u8],
        path: &[u8],
        is_closed: bool,
        is_opaque: bool,
    ) -> Result<(OwnedFd, bool), StoreError> {
        let mut hides_below = is_opaque;
        match mkdirat(to, name, Mode::RWXU) {
            Err(Errno::EXIST) if !is_opaque && is_folder(to, name) => {
                let folder = openat(to, name, FOLDER, Mode::empty()).of("open", path)?;
                let is_closed = is_closed || has_opaque_mark(&folder);
                return Ok((folder, is_closed));
            }
            Err(Errno::EXIST) => {
                hides_below = true;
                remove(to, name).of("replace", path)?;
                mkdirat(to, name, Mode::RWXU).of("create", path)?;
            }
            made => made.of("create", path)?,
        }
        let folder = openat(to, name, FOLDER, Mode::empty()).of("open", path)?;
        if !hides_below || is_closed || self.below.lookup(path).is_none() {
            return Ok((folder, is_closed));
        }
        match fsetxattr(&folder, OPAQUE[0], b"y", XattrFlags::empty()) {
            // In a user namespace overlay goes by its other name.
            Err(Errno::PERM) => fsetxattr(&folder, OPAQUE[1], b"y", XattrFlags::empty()),
            result => result,
        }
        .of("mark as opaque", path)?;
        Ok((folder, true))
    }

    /// Makes a folder what another one is, but for what is in it.
    fn dress(&mut self, from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
        let stat = fstat(from)?;
        fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
        for name in self.attributes(to)? {
            fremovexattr(to, name.as_slice())?;
        }
        for name in self.attributes(from)? {
            let n_bytes = fgetxattr(from, name.as_slice(), self.buffer.as_mut_slice())?;
            let value = &self.buffer[..n_bytes];
            accept_missing(fsetxattr(to, name.as_slice(), value, XattrFlags::empty()))?;
        }
        fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
        let time =
            |tv_sec, tv_nsec: u64| Timespec { tv_sec, tv_nsec: tv_nsec.try_into().unwrap_or(0) };
        let times = Timestamps {
            last_access: time(stat.st_mtime, stat.st_mtime_nsec),
            last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
        };
        futimens(to, &times)
    }

    /// The attributes that belong to the content of an image, and those that kiln keeps with it.
    fn attributes(&mut self, fd: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
        let n_bytes = match flistxattr(fd, self.buffer.as_mut_slice()) {
            Err(Errno::OPNOTSUPP) => 0,
            result => result?,
        };
        let names = self.buffer[..n_bytes].split(|it| *it == 0);
        let is_ours = |it: &&[u8]| is_kept(it) || it.starts_with(b"user.kiln.");
        Ok(names.filter(is_ours).map(<[u8]>::to_vec).collect())
    }
}

/// Overlay's mark, by the name that root's overlays go by, and by that of a user's.
const OPAQUE: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];

fn has_opaque_mark(folder: &OwnedFd) -> bool {
    OPAQUE.iter().any(|name| {
        let mut value = [0; 8];
        fgetxattr(folder, *name, value.as_mut_slice()).is_ok_and(|it| value[..it] == *b"y")
    })
}

fn list(folder: &OwnedFd) -> Result<Vec<(Vec<u8>, What)>, Errno> {
    let mut names = Vec::new();
    let mut buffer = [MaybeUninit::uninit(); 32 * 1024];
    let mut listing = RawDir::new(folder, &mut buffer);
    while let Some(entry) = listing.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let mut what = entry.file_type();
        let mut is_whiteout = false;
        if matches!(what, FileType::Unknown | FileType::CharacterDevice) {
            let stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
            what = FileType::from_raw_mode(stat.st_mode);
            is_whiteout = what == FileType::CharacterDevice && stat.st_rdev == 0;
        }
        let what = match what {
            FileType::Directory => What::Folder,
            _ if is_whiteout => What::Whiteout,
            _ => What::Other,
        };
        names.push((name.to_vec(), what));
    }
    Ok(names)
}

/// Gives what is no folder a second name, in the place of whatever has that.
fn link(from: &OwnedFd, to: &OwnedFd, name: &[u8]) -> std::io::Result<()> {
    let link = || linkat(from, name, to, name, AtFlags::empty());
    match link() {
        Err(Errno::EXIST) => {
            remove(to, name)?;
            Ok(link()?)
        }
        result => Ok(result?),
    }
}

fn remove(folder: &OwnedFd, name: &[u8]) -> std::io::Result<()> {
    match unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => remove_all_at(folder, name),
        Err(errno) => Err(errno.into()),
    }
}
