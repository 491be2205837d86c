//! Writes the entries of one layer into an empty folder, as overlay wants to find them.
//!
//! Layers come from anywhere. So no path of an entry is ever given to the kernel as it is: its folder is opened with
//! `RESOLVE_IN_ROOT`, which resolves links as they would resolve inside the image, and the last part is created there without following
//! anything. Owners, modes, times and attributes are set through the new file or with "do not follow".
//!
//! # What is made of what
//!
//! - A whiteout becomes a character device 0:0, an opaque folder gets overlay's attribute, also if it replaces a whiteout.
//! - Folders that have no entry of their own are made 0755 and owned by root.
//! - Of entries with the same path the last one wins; a folder keeps what is in it if it is a folder again.
//! - Attributes that steer overlay or a security module never reach the disk.
//! - Where there is one id only, owners are noted in an attribute, and an empty file with one stands for a device ([`crate::owners`]).
//! - Devices are left out where they cannot be made: the tree serves as what a RUN stands on, and no layer is ever packed from it as a whole.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Read},
    os::fd::OwnedFd,
    path::Path,
    sync::Arc,
};

use image::{
    entry::{Entry, Kind, Time},
    layer::split_path,
};
use rustix::{
    fs::{
        AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags, chmodat, chownat, fchmod, fchown,
        futimens, linkat, makedev, mkdirat, mknodat, open, openat, readlinkat, setxattr, statat,
        symlinkat, unlinkat, utimensat,
    },
    io::Errno,
    process::geteuid,
};

use crate::{
    below::{FOLDER, NEW_FILE, open_in_root, through},
    error::{IoContext, StoreError},
    on_disk::{
        accept_missing, check_path, is_below, is_folder, is_whiteout, kept, owned, refuse,
        timestamps,
    },
    owners::{self, Record},
    remove::remove_all_at,
};

const BUFFER: usize = 256 * 1024;
/// As many links as the kernel follows.
const MAX_LINKS: usize = 40;
/// What the kernel's device numbers have room for.
const MAX_MAJOR: u32 = (1 << 12) - 1;
const MAX_MINOR: u32 = (1 << 20) - 1;

/// Writes entries into a folder.
pub(crate) struct Unpacker {
    root: Arc<OwnedFd>,
    is_superuser: bool,
    /// The folder used last, by its path as the entry says it.
    last: Option<(Vec<u8>, Arc<OwnedFd>)>,
    /// Modes and times of folders, which are set when nothing more is written into them.
    folders: HashMap<Vec<u8>, (u32, Time)>,
    /// Devices that may not be made here. Nothing is lost: the layer itself has them.
    left_out: HashSet<Vec<u8>>,
    /// The name of overlay's attribute, once it is known which one we may set.
    opaque: &'static str,
    buffer: Vec<u8>,
}

impl Unpacker {
    /// Starts with the empty folder `root`.
    pub(crate) fn new(root: &Path) -> Result<Self, StoreError> {
        let fd = open(root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .at("open", root)?;
        Ok(Self {
            root: Arc::new(fd),
            is_superuser: geteuid().is_root(),
            last: None,
            folders: HashMap::new(),
            left_out: HashSet::new(),
            opaque: "trusted.overlay.opaque",
            buffer: vec![0; BUFFER],
        })
    }

    /// Writes one entry; for a file, all of `data`.
    pub(crate) fn entry(&mut self, entry: &Entry, data: &mut dyn Read) -> Result<(), StoreError> {
        let path = entry.path.as_slice();
        check_path(path, path)?;
        if entry.uid == u32::MAX || entry.gid == u32::MAX {
            return Err(refuse(path, "its owner is not a valid user or group id"));
        }
        if path.is_empty() {
            return self.root_entry(entry);
        }
        let (folder, name) = split_path(path);
        let folder = self.folder(folder, path)?;
        match &entry.kind {
            Kind::Directory => self.directory(&folder, name, entry),
            Kind::File { .. } => self.file(&folder, name, entry, data),
            Kind::Symlink { target } => {
                self.replacing(&folder, name, path, || {
                    symlinkat(target.as_slice(), &folder, name)
                })?;
                self.set_metadata(&folder, name, entry)
            }
            Kind::Hardlink { target } => self.hardlink(&folder, name, entry, target),
            Kind::Fifo => self.node(&folder, name, entry, FileType::Fifo, 0, 0),
            Kind::CharDevice { major: 0, minor: 0 } => {
                Err(refuse(path, "the device 0:0 is how overlay marks removed files"))
            }
            Kind::CharDevice { major, minor } => {
                self.node(&folder, name, entry, FileType::CharacterDevice, *major, *minor)
            }
            Kind::BlockDevice { major, minor } => {
                self.node(&folder, name, entry, FileType::BlockDevice, *major, *minor)
            }
        }
    }

    /// Marks `path` as removed from the layers below.
    pub(crate) fn whiteout(&mut self, path: &[u8]) -> Result<(), StoreError> {
        check_path(path, path)?;
        let (folder, name) = split_path(path);
        if name.is_empty() {
            return Err(refuse(path, "the root cannot be removed"));
        }
        let folder = self.folder(folder, path)?;
        match mknodat(&folder, name, FileType::CharacterDevice, Mode::empty(), makedev(0, 0)) {
            Ok(()) => Ok(()),
            // Whiteouts concern only what is below, but what was a folder below must not show through this one.
            Err(Errno::EXIST) if is_folder(&folder, name) => self.set_opaque(&folder, name, path),
            Err(Errno::EXIST) => Ok(()),
            Err(err) => Err(err).of("mark as removed", path),
        }
    }

    /// Marks that nothing of the folder `path` shows from the layers below.
    pub(crate) fn opaque(&mut self, path: &[u8]) -> Result<(), StoreError> {
        check_path(path, path)?;
        let folder = self.folder(path, path)?;
        self.set_opaque(&folder, b".", path)
    }

    /// Sets modes and times of folders. Nothing may be written afterwards.
    pub(crate) fn finish(mut self) -> Result<(), StoreError> {
        let mut folders: Vec<_> = std::mem::take(&mut self.folders).into_iter().collect();
        // What is deeper comes first: a folder may be one that its owner must not enter.
        folders.sort_unstable_by(|a, b| b.0.cmp(&a.0));
        for (path, (mode, mtime)) in folders {
            let (folder, name) = split_path(&path);
            let name = if name.is_empty() { b"." } else { name };
            let folder = self.folder(folder, &path)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = match openat(&folder, name, flags, Mode::empty()) {
                Ok(fd) => fd,
                // It was reached through a link that points elsewhere by now.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(err) => return Err(err).of("open", &path),
            };
            fchmod(&fd, Mode::from_raw_mode(mode & 0o7777)).of("set the mode of", &path)?;
            futimens(&fd, &timestamps(mtime)).of("set the time of", &path)?;
        }
        Ok(())
    }

    fn root_entry(&mut self, entry: &Entry) -> Result<(), StoreError> {
        if entry.kind != Kind::Directory {
            return Err(refuse(&entry.path, "the root must be a folder"));
        }
        let root = self.root.clone();
        self.set_owner_and_xattrs(&root, b".", entry)?;
        self.folders.insert(Vec::new(), (entry.mode, entry.mtime));
        Ok(())
    }

    fn directory(
        &mut self,
        folder: &OwnedFd,
        name: &[u8],
        entry: &Entry,
    ) -> Result<(), StoreError> {
        let path = &entry.path;
        match mkdirat(folder, name, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) if is_folder(folder, name) => {}
            Err(Errno::EXIST) => {
                let was_whiteout = self.remove(folder, name, path)?;
                mkdirat(folder, name, Mode::RWXU).of("create", path)?;
                if was_whiteout {
                    self.set_opaque(folder, name, path)?;
                }
            }
            Err(err) => return Err(err).of("create", path),
        }
        self.set_owner_and_xattrs(folder, name, entry)?;
        self.folders.insert(path.clone(), (entry.mode, entry.mtime));
        Ok(())
    }

    fn file(
        &mut self,
        folder: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        data: &mut dyn Read,
    ) -> Result<(), StoreError> {
        let path = &entry.path;
        let fd = self.replacing(folder, name, path, || {
            openat(folder, name, NEW_FILE, Mode::RUSR | Mode::WUSR)
        })?;
        loop {
            let n_read = match data.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(n_read) => n_read,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
                Err(err) => return Err(err).of("read", path),
            };
            let mut rest = &self.buffer[..n_read];
            while !rest.is_empty() {
                match rustix::io::write(&fd, rest) {
                    Ok(n_written) => rest = &rest[n_written..],
                    Err(Errno::INTR) => {}
                    Err(err) => return Err(err).of("write", path),
                }
            }
        }
        if owners::are_beside() {
            Record::of(entry).set(&through(folder, name)).of("note the owner of", path)?;
        } else {
            let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
            owned(fchown(&fd, Some(uid), Some(gid)), entry)?;
        }
        let target = through(folder, name);
        for (name, value) in kept(entry) {
            accept_missing(owners::set_attribute(&target, name, value))
                .of("set an attribute of", path)?;
        }
        fchmod(&fd, Mode::from_raw_mode(entry.mode & 0o7777)).of("set the mode of", path)?;
        futimens(&fd, &timestamps(entry.mtime)).of("set the time of", path)
    }

    fn hardlink(
        &mut self,
        folder: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        target: &[u8],
    ) -> Result<(), StoreError> {
        let path = &entry.path;
        check_path(target, path)?;
        let (target_folder, target_name) = split_path(target);
        if target_name.is_empty() {
            return Err(refuse(path, "a hard link to the root is not possible"));
        }
        if self.left_out.contains(target) {
            self.left_out.insert(path.clone());
            return Ok(());
        }
        // Not made if it is missing: then the link has no target either.
        let target_folder =
            open_in_root(&self.root, target_folder).of("find the target of the hard link", path)?;
        let stat = statat(&target_folder, target_name, AtFlags::SYMLINK_NOFOLLOW)
            .of("find the target of the hard link", path)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(refuse(path, "a hard link to a folder is not possible"));
        }
        if let Ok(existing) = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
            && (existing.st_dev, existing.st_ino) == (stat.st_dev, stat.st_ino)
        {
            return Ok(());
        }
        self.replacing(folder, name, path, || {
            linkat(&target_folder, target_name, folder, name, AtFlags::empty())
        })
    }

    fn node(
        &mut self,
        folder: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        file_type: FileType,
        major: u32,
        minor: u32,
    ) -> Result<(), StoreError> {
        if major > MAX_MAJOR || minor > MAX_MINOR {
            return Err(refuse(&entry.path, "its device number is out of range"));
        }
        let mode = Mode::RUSR | Mode::WUSR;
        let mut may_make = true;
        let stands_for_it = owners::are_beside() && file_type != FileType::Fifo;
        let file_type = if stands_for_it { FileType::RegularFile } else { file_type };
        let device = if stands_for_it { 0 } else { makedev(major, minor) };
        self.replacing(folder, name, &entry.path, || {
            match mknodat(folder, name, file_type, mode, device) {
                // In a user namespace nobody makes devices.
                Err(Errno::PERM) if file_type != FileType::Fifo => {
                    may_make = false;
                    Ok(())
                }
                result => result,
            }
        })?;
        if !may_make {
            self.left_out.insert(entry.path.clone());
            return Ok(());
        }
        self.set_metadata(folder, name, entry)
    }

    /// Creates something; if there is something else by that name, removes that first.
    fn replacing<T>(
        &mut self,
        folder: &OwnedFd,
        name: &[u8],
        path: &[u8],
        mut create: impl FnMut() -> Result<T, Errno>,
    ) -> Result<T, StoreError> {
        match create() {
            Err(Errno::EXIST) => {
                self.remove(folder, name, path)?;
                create().of("create", path)
            }
            result => result.of("create", path),
        }
    }

    /// Removes what has this name, and tells whether it was a whiteout.
    fn remove(&mut self, folder: &OwnedFd, name: &[u8], path: &[u8]) -> Result<bool, StoreError> {
        if is_folder(folder, name) {
            self.last = None;
            self.folders.retain(|it, _| !is_below(it, path));
            remove_all_at(folder, name).of("replace", path)?;
            return Ok(false);
        }
        let was_whiteout = is_whiteout(folder, name);
        unlinkat(folder, name, AtFlags::empty()).of("replace", path)?;
        Ok(was_whiteout)
    }

    /// Sets everything on something that is not opened: a link, a pipe, a device.
    fn set_metadata(&self, folder: &OwnedFd, name: &[u8], entry: &Entry) -> Result<(), StoreError> {
        self.set_owner_and_xattrs(folder, name, entry)?;
        if !matches!(entry.kind, Kind::Symlink { .. }) {
            // Just created, with a name nobody else knows: there is no link to follow.
            let mode = Mode::from_raw_mode(entry.mode & 0o7777);
            chmodat(folder, name, mode, AtFlags::empty()).of("set the mode of", &entry.path)?;
        }
        utimensat(folder, name, &timestamps(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .of("set the time of", &entry.path)
    }

    fn set_owner_and_xattrs(
        &self,
        folder: &OwnedFd,
        name: &[u8],
        entry: &Entry,
    ) -> Result<(), StoreError> {
        if owners::are_beside() {
            let target = through(folder, name);
            Record::of(entry).set(&target).of("note the owner of", &entry.path)?;
        } else {
            let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            owned(chownat(folder, name, Some(uid), Some(gid), flags), entry)?;
        }
        let is_plain = matches!(entry.kind, Kind::Directory | Kind::File { .. });
        for (attribute, value) in kept(entry) {
            // Only files and folders can have these; whoever wrote the tar could not have read them from anything else.
            if !is_plain && attribute.starts_with(b"user.") {
                continue;
            }
            accept_missing(owners::set_attribute(&through(folder, name), attribute, value))
                .of("set an attribute of", &entry.path)?;
        }
        Ok(())
    }

    fn set_opaque(&mut self, folder: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), StoreError> {
        let target = through(folder, name);
        match setxattr(&target, self.opaque, b"y", XattrFlags::empty()) {
            Err(Errno::PERM) if self.opaque.starts_with("trusted.") => {
                // In a user namespace overlay goes by its other name.
                self.opaque = "user.overlay.opaque";
                setxattr(&target, self.opaque, b"y", XattrFlags::empty())
            }
            result => result,
        }
        .of("mark as opaque", path)
    }

    /// Opens a folder of the layer, making it and those above it if needed.
    fn folder(&mut self, folder: &[u8], entry: &[u8]) -> Result<Arc<OwnedFd>, StoreError> {
        if folder.is_empty() {
            return Ok(self.root.clone());
        }
        if let Some((path, fd)) = &self.last
            && path == folder
        {
            return Ok(fd.clone());
        }
        let fd = match open_in_root(&self.root, folder) {
            Ok(fd) => Arc::new(fd),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::AGAIN) => self.make_folders(folder, entry)?,
            Err(err) => return Err(err).of("find the folder of", entry),
        };
        self.last = Some((folder.to_vec(), fd.clone()));
        Ok(fd)
    }

    /// Walks to a folder part by part as the kernel would inside the image, and makes what is missing on the way.
    fn make_folders(&mut self, folder: &[u8], entry: &[u8]) -> Result<Arc<OwnedFd>, StoreError> {
        let mut stack = vec![self.root.clone()];
        let mut parts: Vec<Vec<u8>> = folder.rsplit(|it| *it == b'/').map(<[u8]>::to_vec).collect();
        let mut n_links = 0;
        while let Some(part) = parts.pop() {
            let here = stack.last().unwrap_or(&self.root).clone();
            match part.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    stack.truncate((stack.len() - 1).max(1));
                    continue;
                }
                _ => {}
            }
            match openat(&here, part.as_slice(), FOLDER | OFlags::NOFOLLOW, Mode::empty()) {
                Ok(fd) => stack.push(Arc::new(fd)),
                Err(Errno::NOENT) => stack.push(self.make_folder(&here, &part, entry)?),
                Err(Errno::NOTDIR | Errno::LOOP) if is_whiteout(&here, &part) => {
                    unlinkat(&here, part.as_slice(), AtFlags::empty()).of("replace", entry)?;
                    stack.push(self.make_folder(&here, &part, entry)?);
                    self.set_opaque(&here, &part, entry)?;
                }
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    match readlinkat(&here, part.as_slice(), Vec::new()) {
                        Ok(target) => {
                            n_links += 1;
                            if n_links > MAX_LINKS {
                                return Err(Errno::LOOP).of("find the folder of", entry);
                            }
                            let target = target.as_bytes();
                            if target.starts_with(b"/") {
                                stack.truncate(1);
                            }
                            parts.extend(target.rsplit(|it| *it == b'/').map(<[u8]>::to_vec));
                        }
                        Err(Errno::INVAL) => {
                            return Err(refuse(entry, "what should be its folder is a file"));
                        }
                        Err(err) => return Err(err).of("find the folder of", entry),
                    }
                }
                Err(err) => return Err(err).of("find the folder of", entry),
            }
        }
        Ok(stack.pop().unwrap_or_else(|| self.root.clone()))
    }

    fn make_folder(
        &self,
        here: &OwnedFd,
        part: &[u8],
        entry: &[u8],
    ) -> Result<Arc<OwnedFd>, StoreError> {
        mkdirat(here, part, Mode::from_raw_mode(0o755)).of("create the folder of", entry)?;
        // Against the umask, and what a set-group-id folder hands down.
        if self.is_superuser {
            chownat(here, part, Some(Uid::ROOT), Some(Gid::ROOT), AtFlags::SYMLINK_NOFOLLOW)
                .of("set the owner of the folder of", entry)?;
        }
        chmodat(here, part, Mode::from_raw_mode(0o755), AtFlags::empty())
            .of("set the mode of the folder of", entry)?;
        let fd = openat(here, part, FOLDER | OFlags::NOFOLLOW, Mode::empty())
            .of("open the folder of", entry)?;
        Ok(Arc::new(fd))
    }
}
