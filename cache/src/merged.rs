//! A chain of layers written out as one tree of files, for a RUN where no overlay can be mounted.
//!
//! Content comes from the tars of the layers, or from their trees where there are any. Each name gets a file of its own, also where
//! several names are one file in the image: overlay, too, takes them apart when one of them is changed. The tree is private to
//! whoever had it written, so that nothing in it can be exchanged meanwhile.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use image::{
    entry::{Entry, Kind, Time},
    layer::{Change, LayerIndex, split_path},
    view::{Node, View},
};
use rustix::{
    fs::{
        AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timestamps, Uid, XattrFlags, chmodat,
        chownat, fchmod, fchown, flistxattr, fremovexattr, fsetxattr, fstat, futimens, makedev,
        mkdirat, mknodat, open, openat, openat2, renameat, statat, symlinkat, unlinkat, utimensat,
    },
    io::Errno,
};

use crate::{
    below::{NEW_FILE, OPEN_FOLDER, is_kept, open_in_tree},
    error::{IoContext, StoreError},
    on_disk::{accept_missing, is_folder, kept, owned, timestamps},
    remove::remove_all_at,
    store::Store,
};

/// Where the content of a layer's files comes from.
enum Source {
    Tree(File),
    Tar(File),
}

/// Writes entries below one folder.
struct Writer<'a> {
    store: &'a Store,
    view: &'a View,
    sources: Vec<Option<Source>>,
}

impl Store {
    /// Writes all of `view` into the empty folder `dest`, whose own mode, owner and time are set, too.
    ///
    /// # Errors
    ///
    /// - Those of [`ensure_readable`](Self::ensure_readable).
    /// - [`StoreError::EntryIo`] if something cannot be written, [`StoreError::IdNotMapped`] if its owner cannot be had here.
    pub fn write_merged(&self, view: &View, dest: &Path) -> Result<(), StoreError> {
        let root = open(dest, OPEN_FOLDER, Mode::empty()).at("open", dest)?;
        let mut writer = Writer::new(self, view);
        // The folders that lead to where we are; each is finished when all in it is written.
        let mut stack: Vec<(Vec<u8>, OwnedFd, Option<&Entry>)> =
            vec![(Vec::new(), root, view.lookup(b"").map(|it| it.entry))];
        for (path, node) in view.walk(b"") {
            let (folder, name) = split_path(&path);
            while stack.last().is_some_and(|(it, ..)| it != folder) {
                finish(stack.pop())?;
            }
            let Some((_, parent, _)) = stack.last() else { break };
            if node.is_folder() {
                mkdirat(parent, name, Mode::RWXU).of("create", &path)?;
                let fd = openat(parent, name, OPEN_FOLDER, Mode::empty()).of("open", &path)?;
                stack.push((path, fd, Some(node.entry)));
            } else {
                writer.write(parent, name, &path, &node)?;
            }
        }
        while let Some(last) = stack.pop() {
            finish(Some(last))?;
        }
        Ok(())
    }

    /// Brings the tree `dest`, which is the first `n_known` layers of `view`, up to all of it. `false` if that takes a new tree; this
    /// one is of no use then.
    ///
    /// # Errors
    ///
    /// Those of [`write_merged`](Self::write_merged).
    pub fn advance_merged(
        &self,
        view: &View,
        n_known: usize,
        dest: &Path,
    ) -> Result<bool, StoreError> {
        let root = open(dest, OPEN_FOLDER, Mode::empty()).at("open", dest)?;
        let mut writer = Writer::new(self, view);
        let layers: Vec<_> = view.layers().skip(n_known).collect();
        let (mut paths, mut folders) = (BTreeSet::new(), BTreeSet::new());
        for change in layers.iter().flat_map(|it| &it.changes) {
            match change {
                Change::Opaque { .. } => return Ok(false),
                change => paths.insert(change.path()),
            };
        }
        for path in paths.into_iter().filter(|it| !it.is_empty()) {
            let (folder, name) = split_path(path);
            let Some(parent) = open_plain(&root, folder).of("open", folder)? else {
                return Ok(false);
            };
            let node = view.lookup(path);
            let is_folder_here = is_folder(&parent, name);
            if !(is_folder_here && node.is_some_and(|it| it.is_folder())) {
                remove(&parent, name).of("replace", path)?;
            }
            folders.insert(folder);
            match node {
                None => {}
                Some(node) if node.is_folder() => {
                    if !is_folder_here {
                        mkdirat(&parent, name, Mode::RWXU).of("create", path)?;
                    }
                    folders.insert(path);
                }
                Some(node) => writer.write(&parent, name, path, &node)?,
            }
        }
        for path in folders.into_iter().rev() {
            // It may have gone with one of those above.
            let Some(node) = view.lookup(path).filter(Node::is_folder) else { continue };
            match open_plain(&root, path).of("open", path)? {
                Some(fd) => finish(Some((path.to_vec(), fd, Some(node.entry))))?,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Makes files of their own of all names that the layer `index` has for one file, in the tree in which it was made.
    ///
    /// # Errors
    ///
    /// [`StoreError::EntryIo`] if one cannot be copied.
    pub fn separate_names(&self, index: &LayerIndex, dest: &Path) -> Result<(), StoreError> {
        let root = open(dest, OPEN_FOLDER, Mode::empty()).at("open", dest)?;
        for change in &index.changes {
            let Change::Entry { entry: Entry { path, kind: Kind::Hardlink { .. }, .. }, .. } =
                change
            else {
                continue;
            };
            let (folder, name) = split_path(path);
            let Some(parent) = open_plain(&root, folder).of("open", folder)? else { continue };
            let times = times(&parent).of("read", folder)?;
            separate(&parent, name).of("copy", path)?;
            futimens(&parent, &times).of("set the time of", folder)?;
        }
        Ok(())
    }
}

impl<'a> Writer<'a> {
    fn new(store: &'a Store, view: &'a View) -> Self {
        Self { store, view, sources: view.layers().map(|_| None).collect() }
    }

    /// Makes what is no folder.
    fn write(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        node: &Node<'_>,
    ) -> Result<(), StoreError> {
        let entry = node.entry;
        let (file_type, device) = match &entry.kind {
            Kind::File { size } => return self.file(parent, name, path, node, *size),
            Kind::Symlink { target } => {
                symlinkat(target.as_slice(), parent, name).of("create", path)?;
                return special(parent, name, path, entry);
            }
            // A link whose target is nowhere.
            Kind::Hardlink { .. } | Kind::Directory => return Ok(()),
            Kind::Fifo => (FileType::Fifo, 0),
            Kind::CharDevice { major, minor } => {
                (FileType::CharacterDevice, makedev(*major, *minor))
            }
            Kind::BlockDevice { major, minor } => (FileType::BlockDevice, makedev(*major, *minor)),
        };
        match mknodat(parent, name, file_type, Mode::RUSR | Mode::WUSR, device) {
            // Devices are left out where they cannot be made; the layer itself has them.
            Err(Errno::PERM) if file_type != FileType::Fifo => return Ok(()),
            made => made.of("create", path)?,
        }
        special(parent, name, path, entry)
    }

    fn file(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        node: &Node<'_>,
        size: u64,
    ) -> Result<(), StoreError> {
        let entry = node.entry;
        let mut file =
            File::from(openat(parent, name, NEW_FILE, Mode::RUSR | Mode::WUSR).of("create", path)?);
        if size > 0 {
            let mut from = self.content(node, path)?;
            let n_bytes = io::copy(&mut from, &mut file).of("write", path)?;
            if n_bytes != size {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof)).of("read", path);
            }
        }
        rights(&file, entry)?;
        futimens(&file, &timestamps(entry.mtime)).of("set the time of", path)
    }

    /// Opens the content of a file, which `io::copy` can have the kernel copy.
    fn content(&mut self, node: &Node<'_>, path: &[u8]) -> Result<io::Take<File>, StoreError> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let index = self.view.layers().nth(node.layer).ok_or_else(missing).of("read", path)?;
        let slot = &mut self.sources[node.layer];
        if slot.is_none() {
            *slot = Some(open_source(self.store, index)?);
        }
        let change = node.change.and_then(|it| index.changes.get(it));
        let (Some(source), Some(Change::Entry { entry, offset, .. })) = (slot.as_ref(), change)
        else {
            return Err(missing()).of("read", path);
        };
        let Kind::File { size } = entry.kind else { return Err(missing()).of("read", path) };
        let file = match source {
            Source::Tree(tree) => open_in_tree(tree, &entry.path).of("open", path)?,
            Source::Tar(tar) => {
                let mut tar = tar.try_clone().of("open", path)?;
                tar.seek(SeekFrom::Start(*offset)).of("read", path)?;
                tar
            }
        };
        Ok(file.take(size))
    }
}

fn open_source(store: &Store, index: &LayerIndex) -> Result<Source, StoreError> {
    let diff_id = &index.diff_id;
    store.ensure_readable(diff_id)?;
    if store.has_blob(&diff_id.0)? {
        return store.open_blob(&diff_id.0).map(Source::Tar);
    }
    let tree = store.ensure_tree(diff_id)?;
    File::open(&tree).at("open", &tree).map(Source::Tree)
}

/// Sets all of a folder in which nothing more is written.
fn finish(folder: Option<(Vec<u8>, OwnedFd, Option<&Entry>)>) -> Result<(), StoreError> {
    let Some((path, fd, Some(entry))) = folder else { return Ok(()) };
    remove_attributes(&fd).of("remove the attributes of", &path)?;
    rights(&fd, entry)?;
    futimens(&fd, &timestamps(entry.mtime)).of("set the time of", &path)
}

/// Sets owner, attributes and mode, in the order in which the kernel takes none of them back.
fn rights(fd: impl AsFd, entry: &Entry) -> Result<(), StoreError> {
    let path = &entry.path;
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    owned(fchown(&fd, Some(uid), Some(gid)), entry)?;
    for (name, value) in kept(entry) {
        accept_missing(fsetxattr(&fd, name, value, XattrFlags::empty()))
            .of("set an attribute of", path)?;
    }
    fchmod(&fd, Mode::from_raw_mode(entry.mode & 0o7777)).of("set the mode of", path)
}

/// Sets owner, mode and time of what is not opened: a link, a pipe, a device.
fn special(parent: &OwnedFd, name: &[u8], path: &[u8], entry: &Entry) -> Result<(), StoreError> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    owned(chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW), entry)?;
    if !matches!(entry.kind, Kind::Symlink { .. }) {
        let mode = Mode::from_raw_mode(entry.mode & 0o7777);
        chmodat(parent, name, mode, AtFlags::empty()).of("set the mode of", path)?;
    }
    utimensat(parent, name, &timestamps(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
        .of("set the time of", path)
}

fn remove_attributes(fd: &OwnedFd) -> Result<(), Errno> {
    let mut buffer = vec![0; 64 * 1024];
    let n_bytes = match flistxattr(fd, buffer.as_mut_slice()) {
        Ok(n_bytes) => n_bytes,
        Err(Errno::OPNOTSUPP) => 0,
        Err(err) => return Err(err),
    };
    for name in buffer[..n_bytes].split(|it| *it == 0).filter(|it| is_kept(it)) {
        fremovexattr(fd, name)?;
    }
    Ok(())
}

/// Opens a folder to which no link leads; `None` if there is something else.
fn open_plain(root: &OwnedFd, path: &[u8]) -> Result<Option<OwnedFd>, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match openat2(root, path, OPEN_FOLDER, Mode::empty(), resolve) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(err) => Err(err),
    }
}

fn remove(parent: &OwnedFd, name: &[u8]) -> io::Result<()> {
    if is_folder(parent, name) {
        return remove_all_at(parent, name);
    }
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(err) => Err(err.into()),
    }
}

/// Puts a copy in the place of a file that has other names.
fn separate(parent: &OwnedFd, name: &[u8]) -> io::Result<()> {
    let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_nlink < 2 {
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut from = File::from(openat(parent, name, flags, Mode::empty())?);
    let copy = [b".kiln-", name.get(..200).unwrap_or(name)].concat();
    let mut to = File::from(openat(parent, copy.as_slice(), NEW_FILE, Mode::RUSR | Mode::WUSR)?);
    io::copy(&mut from, &mut to)?;
    fchown(&to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    copy_attributes(&from, &to)?;
    fchmod(&to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    futimens(&to, &times(&from)?)?;
    renameat(parent, copy.as_slice(), parent, name)?;
    Ok(())
}

fn times(fd: impl AsFd) -> Result<Timestamps, Errno> {
    let stat = fstat(fd)?;
    let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    Ok(timestamps(Time { secs: stat.st_mtime, nanos }))
}

fn copy_attributes(from: &File, to: &File) -> Result<(), Errno> {
    let mut buffer = vec![0; 64 * 1024];
    let n_bytes = match flistxattr(from, buffer.as_mut_slice()) {
        Ok(n_bytes) => n_bytes,
        Err(Errno::OPNOTSUPP) => 0,
        Err(err) => return Err(err),
    };
    let names = buffer[..n_bytes].to_vec();
    for name in names.split(|it| *it == 0).filter(|it| is_kept(it)) {
        let n_bytes = rustix::fs::fgetxattr(from, name, buffer.as_mut_slice())?;
        fsetxattr(to, name, &buffer[..n_bytes], XattrFlags::empty())?;
    }
    Ok(())
}
