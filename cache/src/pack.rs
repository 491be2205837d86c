//! What a RUN changed, as a layer: overlay's upper folder is walked, fd by fd, and compared with what lies below.
//!
//! # What goes in
//!
//! - Whiteouts come first in their folder, only for what is there below, one for a whole folder. Opaque folders are made explicit: one whiteout for
//!   each name that is gone.
//! - Folders above a change are written with their real metadata; folders that overlay copied up and nobody changed are not. The time of a
//!   folder alone is no change.
//! - Files that overlay copied up and nobody changed, content included, are not written.
//! - Names of one inode are hard links of the first of them. Sockets are left out, and so are attributes that belong to the host.
//! - Times are whole seconds.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{self, Read, Seek, Write},
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::Path,
    rc::Rc,
};

use image::{
    entry::{Entry, Kind, Time},
    error::LayerError,
    layer::{IndexedTarWriter, LayerIndex, join_path, split_path},
    view::{Node, View},
};
use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags, RawDir, Stat, flistxattr, fstat, lgetxattr, llistxattr,
        major, minor, open, openat, readlinkat, statat,
    },
    io::Errno,
};

use crate::{
    below::{OPEN_FOLDER, is_kept, through},
    error::{IoContext, StoreError, show},
    owners::{self, LinkOwners, Record},
    snapshot::Snapshot,
};

/// The kernel lists and returns no more than this at once.
const MAX_XATTR: usize = 64 * 1024;

/// How an upper folder is packed.
#[derive(Debug, Clone, Default)]
pub struct PackOptions {
    /// No time is later than this, in seconds since the Unix epoch: `SOURCE_DATE_EPOCH`.
    pub latest_mtime: Option<i64>,
    /// Owners of what can have no attribute, where owners are kept in attributes. What is not among them was copied up with
    /// the owner it had.
    pub link_owners: LinkOwners,
}

/// Packs what is in overlay's upper folder `upper` as a layer on top of `lower`, and writes it to `out`.
///
/// Nothing may change the folder meanwhile. Overlay must have been mounted without `redirect_dir` and `metacopy`.
///
/// # Errors
///
/// - [`StoreError::EntryIo`] if something in the folder cannot be read.
/// - [`StoreError::Entry`] if it cannot be part of a layer.
/// - [`StoreError::Layer`] if `out` fails.
pub fn pack_upper(
    upper: &Path,
    lower: &View,
    options: &PackOptions,
    out: impl Write,
) -> Result<LayerIndex, StoreError> {
    pack(upper, None, lower, options, out)
}

/// Packs what was changed in `tree` since the snapshot `before` was taken of it, when it was all of `lower`. The layer is the one
/// that [`pack_upper`] makes of the same changes.
///
/// Names of one file that the tree had before must be files of their own: overlay makes them so when one of them is changed.
///
/// # Errors
///
/// Those of [`pack_upper`].
pub fn pack_changed(
    tree: &Path,
    before: &Snapshot,
    lower: &View,
    options: &PackOptions,
    out: impl Write,
) -> Result<LayerIndex, StoreError> {
    pack(tree, Some(before), lower, options, out)
}

fn pack(
    tree: &Path,
    before: Option<&Snapshot>,
    lower: &View,
    options: &PackOptions,
    out: impl Write,
) -> Result<LayerIndex, StoreError> {
    let root = open(tree, OPEN_FOLDER, Mode::empty()).at("open", tree)?;
    let mut packer = Packer {
        before,
        lower,
        options,
        writer: IndexedTarWriter::new(out),
        stack: Vec::new(),
        first_names: HashMap::new(),
        xattr_buffer: vec![0; MAX_XATTR],
    };
    let is_opaque = before.is_none() && packer.is_opaque(&root, b".", b"")?;
    packer.enter(root, Vec::new(), None, is_opaque)?;
    while let Some(folder) = packer.stack.last_mut() {
        match folder.names.next() {
            Some((name, stat)) => {
                let path = join_path(&folder.path, &name);
                let place =
                    Place { folder: folder.fd.clone(), name, path, is_opaque: folder.is_opaque };
                packer.visit(place, stat)?;
            }
            None => {
                packer.stack.pop();
            }
        }
    }
    let (_, index) = packer.writer.finish().map_err(failed)?;
    Ok(index)
}

/// A folder that is being walked.
struct Folder {
    fd: Rc<OwnedFd>,
    path: Vec<u8>,
    names: std::vec::IntoIter<Listed>,
    /// Its own entry, until it is written.
    entry: Option<Entry>,
    /// Nothing of the layers below shows here.
    is_opaque: bool,
}

/// A name in a folder, and what is there, unless it is a file that is going to be opened.
type Listed = (Vec<u8>, Option<Stat>);

/// Where something is.
struct Place {
    folder: Rc<OwnedFd>,
    name: Vec<u8>,
    path: Vec<u8>,
    /// Nothing of the layers below shows in its folder.
    is_opaque: bool,
}

/// The first name of what has several.
struct FirstName {
    path: Vec<u8>,
    uid: u32,
    gid: u32,
}

struct Packer<'a, W: Write> {
    /// What the whole tree was like, if it is not overlay's upper folder.
    before: Option<&'a Snapshot>,
    lower: &'a View,
    options: &'a PackOptions,
    writer: IndexedTarWriter<W>,
    stack: Vec<Folder>,
    /// By device and inode.
    first_names: HashMap<(u64, u64), FirstName>,
    xattr_buffer: Vec<u8>,
}

impl<W: Write> Packer<'_, W> {
    /// Starts with a folder: lists it, and writes what is gone from it.
    fn enter(
        &mut self,
        fd: OwnedFd,
        path: Vec<u8>,
        entry: Option<Entry>,
        is_opaque: bool,
    ) -> Result<(), StoreError> {
        // A snapshot tells without opening it whether a file is to be read.
        let mut names = list(&fd, &path, self.before.is_some())?;
        names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let (whiteouts, names): (Vec<_>, Vec<_>) = names
            .into_iter()
            .partition(|it| self.before.is_none() && it.1.as_ref().is_some_and(is_whiteout));
        // All names that may be gone, sorted.
        let marked: Vec<&[u8]> = match self.before {
            _ if is_opaque => self.lower.children(&path).into_iter().map(|it| it.0).collect(),
            Some(before) => before.names(&path).collect(),
            None => whiteouts.iter().map(|(name, _)| name.as_slice()).collect(),
        };
        let is_here =
            |name: &[u8]| names.binary_search_by(|(it, _)| it.as_slice().cmp(name)).is_ok();
        let gone: Vec<Vec<u8>> = marked
            .into_iter()
            .filter(|name| !is_here(name))
            .map(|name| join_path(&path, name))
            .filter(|path| self.lower.lookup(path).is_some())
            .collect();
        self.stack.push(Folder {
            fd: Rc::new(fd),
            path,
            names: names.into_iter(),
            entry,
            is_opaque,
        });
        if !gone.is_empty() {
            self.write_folders()?;
        }
        for path in gone {
            self.writer.whiteout(&path).map_err(failed)?;
        }
        Ok(())
    }

    /// Writes the folders that lead here and were not written yet.
    fn write_folders(&mut self) -> Result<(), StoreError> {
        for folder in &mut self.stack {
            if let Some(entry) = folder.entry.take() {
                self.writer.append(entry, &mut io::empty()).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Packs one name of the innermost folder.
    fn visit(&mut self, place: Place, stat: Option<Stat>) -> Result<(), StoreError> {
        let Place { folder, name, path, is_opaque: parent_is_opaque } = place;
        let open_file = || {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            openat(&folder, name.as_slice(), flags, Mode::empty()).of("open", &path)
        };
        let mut content: Option<File> = None;
        let stat = match stat {
            Some(stat) => stat,
            None => {
                let file = open_file()?;
                let stat = fstat(&file).of("read", &path)?;
                content = Some(file.into());
                stat
            }
        };
        let file_type = FileType::from_raw_mode(stat.st_mode);
        if file_type == FileType::Socket {
            return Ok(());
        }
        let is_untouched = !parent_is_opaque
            && self.before.is_some_and(|it| it.is_unchanged(split_path(&path).0, &name, &stat));
        if is_untouched && file_type != FileType::Directory {
            return Ok(());
        }
        if file_type == FileType::RegularFile && content.is_none() {
            content = Some(open_file()?.into());
        }
        // Nearly all files have none, and of one that is open the kernel says so at once.
        let buffer = self.xattr_buffer.as_mut_slice();
        let has_none =
            content.as_ref().is_some_and(|file| matches!(flistxattr(file, buffer), Ok(0)));
        let xattrs = match has_none {
            true => BTreeMap::new(),
            false => self.xattrs(&folder, &name, &path)?,
        };
        let lower = self.lower;
        let below = if parent_is_opaque { None } else { lower.lookup(&path) };

        if file_type == FileType::Directory {
            let fd =
                openat(&folder, name.as_slice(), OPEN_FOLDER, Mode::empty()).of("open", &path)?;
            // Of a new folder nothing can show but what is in it.
            let is_opaque = parent_is_opaque
                || below.is_none()
                || match self.before {
                    Some(before) => !before.is_same_folder(&path, &fd).of("read", &path)?,
                    None => self.is_opaque(&folder, &name, &path)?,
                };
            let mut entry = self.entry(path.clone(), Kind::Directory, &stat, xattrs);
            self.true_owner(&folder, &name, &mut entry, below.as_ref())?;
            let is_changed = !is_untouched && below.is_none_or(|it| !is_same_folder(&it, &entry));
            self.enter(fd, path, Some(entry), is_opaque)?;
            return if is_changed { self.write_folders() } else { Ok(()) };
        }

        let inode = (stat.st_dev, stat.st_ino);
        let has_more_names = stat.st_nlink > 1;
        if has_more_names && let Some(first) = self.first_names.get(&inode) {
            let kind = Kind::Hardlink { target: first.path.clone() };
            let entry = self.entry(path, kind, &stat, BTreeMap::new());
            let entry = Entry { uid: first.uid, gid: first.gid, ..entry };
            self.write_folders()?;
            return self.writer.append(entry, &mut io::empty()).map_err(failed);
        }

        let kind = match file_type {
            FileType::RegularFile => Kind::File { size: u64::try_from(stat.st_size).unwrap_or(0) },
            FileType::Symlink => {
                let target = readlinkat(&folder, name.as_slice(), Vec::new()).of("read", &path)?;
                Kind::Symlink { target: target.into_bytes() }
            }
            FileType::Fifo => Kind::Fifo,
            FileType::CharacterDevice => {
                Kind::CharDevice { major: major(stat.st_rdev), minor: minor(stat.st_rdev) }
            }
            FileType::BlockDevice => {
                Kind::BlockDevice { major: major(stat.st_rdev), minor: minor(stat.st_rdev) }
            }
            _ => return Err(refuse(&path, "it is of an unknown type")),
        };
        let mut entry = self.entry(path, kind, &stat, xattrs);
        self.true_owner(&folder, &name, &mut entry, below.as_ref())?;
        if !matches!(entry.kind, Kind::File { .. }) {
            content = None;
        }
        // With several names it is written even if this one is as before: the others are links to it.
        if !has_more_names
            && let Some(below) = below
            && is_same_file(&below, &entry, content.as_mut(), self.options)?
        {
            return Ok(());
        }
        if has_more_names {
            let (path, uid, gid) = (entry.path.clone(), entry.uid, entry.gid);
            self.first_names.insert(inode, FirstName { path, uid, gid });
        }
        self.write_folders()?;
        let mut content: Box<dyn Read> = match content {
            Some(file) => Box::new(file),
            None => Box::new(io::empty()),
        };
        self.writer.append(entry, &mut content).map_err(failed)
    }

    fn entry(
        &self,
        path: Vec<u8>,
        kind: Kind,
        stat: &Stat,
        xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    ) -> Entry {
        Entry {
            path,
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: Time { secs: self.options.clamp(stat.st_mtime), nanos: 0 },
            xattrs,
        }
    }

    /// Corrects owner and kind of an entry where the kernel does not know them.
    fn true_owner(
        &self,
        folder: &OwnedFd,
        name: &[u8],
        entry: &mut Entry,
        below: Option<&Node<'_>>,
    ) -> Result<(), StoreError> {
        if !owners::are_beside() {
            return Ok(());
        }
        let target = through(folder, name);
        if matches!(entry.kind, Kind::Symlink { .. } | Kind::Fifo) {
            let inode = owners::inode(&target).of("read", &entry.path)?;
            let same = below.filter(|it| same_variant(&it.entry.kind, &entry.kind));
            let before = same.map_or((0, 0), |it| (it.entry.uid, it.entry.gid));
            let owner = self.options.link_owners.get(&inode).copied();
            (entry.uid, entry.gid) = owner.unwrap_or(before);
            return Ok(());
        }
        let record = Record::get(&target).of("read the owner of", &entry.path)?;
        (entry.uid, entry.gid) = (record.uid, record.gid);
        if let (Kind::File { .. }, Some(device)) = (&entry.kind, record.device) {
            entry.kind = device.kind();
        }
        Ok(())
    }

    /// Reads the attributes that belong to the content of an image.
    fn xattrs(
        &mut self,
        folder: &OwnedFd,
        name: &[u8],
        path: &[u8],
    ) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, StoreError> {
        let mut xattrs = BTreeMap::new();
        let target = through(folder, name);
        let n_bytes = match llistxattr(&target, self.xattr_buffer.as_mut_slice()) {
            Ok(n_bytes) => n_bytes,
            Err(Errno::OPNOTSUPP) => 0,
            Err(err) => return Err(err).of("list the attributes of", path),
        };
        if n_bytes == 0 {
            return Ok(xattrs);
        }
        let names = self.xattr_buffer[..n_bytes].to_vec();
        for attribute in names.split(|it| *it == 0).filter(|it| !it.is_empty()) {
            if [b"overlay.redirect".as_slice(), b"overlay.metacopy"]
                .iter()
                .any(|it| attribute.ends_with(it))
            {
                return Err(refuse(
                    path,
                    "overlay was mounted with options whose result cannot be packed",
                ));
            }
            let shown = owners::stands_for(attribute);
            if !is_kept(shown) {
                continue;
            }
            let n_bytes = lgetxattr(&target, attribute, self.xattr_buffer.as_mut_slice())
                .of("read an attribute of", path)?;
            let mut value = self.xattr_buffer[..n_bytes].to_vec();
            if attribute == b"security.capability" {
                forget_namespace(&mut value);
            }
            xattrs.insert(shown.to_vec(), value);
        }
        Ok(xattrs)
    }

    /// Tells whether overlay has marked a folder as opaque.
    fn is_opaque(
        &mut self,
        folder: &OwnedFd,
        name: &[u8],
        path: &[u8],
    ) -> Result<bool, StoreError> {
        let target = through(folder, name);
        for attribute in ["trusted.overlay.opaque", "user.overlay.opaque"] {
            match lgetxattr(&target, attribute, self.xattr_buffer.as_mut_slice()) {
                Ok(n_bytes) if self.xattr_buffer[..n_bytes] == *b"y" => return Ok(true),
                Ok(_) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                Err(err) => return Err(err).of("read an attribute of", path),
            }
        }
        Ok(false)
    }
}

/// Lists a folder, with what each name is where `with_files` or where it may be something else than a file.
fn list(fd: &OwnedFd, path: &[u8], with_files: bool) -> Result<Vec<Listed>, StoreError> {
    let mut names = Vec::new();
    let mut buffer = vec![MaybeUninit::uninit(); 32 * 1024];
    let mut listing = RawDir::new(fd, &mut buffer);
    while let Some(entry) = listing.next() {
        let entry = entry.of("list", path)?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let stat = match entry.file_type() {
            FileType::RegularFile if !with_files => None,
            _ => {
                let stat = statat(fd, name, AtFlags::SYMLINK_NOFOLLOW);
                Some(stat.of("read", &join_path(path, name))?)
            }
        };
        names.push((name.to_vec(), stat));
    }
    Ok(names)
}

fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Turns a file capability that a user namespace has written (revision 3, with the namespace's root) into one for everybody.
fn forget_namespace(value: &mut Vec<u8>) {
    const REVISION_2: u8 = 2;
    const REVISION_3: u8 = 3;
    const LEN_3: usize = 24;
    if value.len() == LEN_3 && value[3] == REVISION_3 {
        value[3] = REVISION_2;
        value.truncate(LEN_3 - 4);
    }
}

fn same_variant(a: &Kind, b: &Kind) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}

/// Compares owner, mode and attributes.
fn has_same_rights(below: &Entry, entry: &Entry) -> bool {
    let kept = below.xattrs.iter().filter(|(name, _)| is_kept(name));
    (below.mode, below.uid, below.gid) == (entry.mode, entry.uid, entry.gid)
        && kept.eq(entry.xattrs.iter())
}

fn is_same_folder(below: &Node<'_>, entry: &Entry) -> bool {
    below.entry.kind == Kind::Directory && has_same_rights(below.entry, entry)
}

impl PackOptions {
    fn clamp(&self, secs: i64) -> i64 {
        secs.min(self.latest_mtime.unwrap_or(i64::MAX))
    }
}

/// Compares everything, reading the file if nothing else differs.
fn is_same_file(
    below: &Node<'_>,
    entry: &Entry,
    content: Option<&mut File>,
    options: &PackOptions,
) -> Result<bool, StoreError> {
    let is_same = below.entry.kind == entry.kind
        && has_same_rights(below.entry, entry)
        && options.clamp(below.entry.mtime.secs) == entry.mtime.secs;
    let (true, Some(file)) = (is_same, content) else { return Ok(is_same) };
    let mut hasher = blake3::Hasher::new();
    io::copy(file, &mut hasher).of("read", &entry.path)?;
    file.rewind().of("read", &entry.path)?;
    Ok(below.content == Some(hasher.finalize().into()))
}

fn failed(source: LayerError) -> StoreError {
    StoreError::Layer { what: "what a RUN changed".to_owned(), source }
}

fn refuse(entry: &[u8], reason: &str) -> StoreError {
    StoreError::Entry { entry: show(entry), reason: reason.to_owned() }
}
