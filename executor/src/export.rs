//! File trees out of the store: into a folder, or as a plain tar.

use std::{
    collections::HashMap,
    fs,
    io::{self, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
};

use image::{
    entry::{Entry, Kind, Time},
    layer::TarWriter,
};
use rustix::fs::{CWD, FileType, Mode, Timespec, Timestamps};

use crate::{
    error::ExecutorError,
    tree::{FileId, Node, Tree, join, last_name, lossy},
};

/// Writes what is in the folder `path` of a tree (or the file at `path`) into the folder `dest`. Owners are kept with
/// `keep_owners`, else everything is the caller's. Times later than `latest` are brought down to it.
pub(crate) fn write_folder(
    tree: &Tree,
    path: &[u8],
    dest: &Path,
    keep_owners: bool,
    latest: Option<i64>,
) -> Result<(), ExecutorError> {
    let root = tree.resolve(path, true)?;
    let Some(node) = tree.lookup(&root)? else {
        return Err(ExecutorError::NotFound { path: lossy(&root) });
    };
    let mut writer = FolderWriter { tree, keep_owners, latest, first_names: HashMap::new() };
    if node.is_dir() {
        fs::create_dir_all(dest).map_err(|source| failed(dest, source))?;
        writer.children(&root, dest)
    } else {
        writer.one(&root, &node, &dest.join(std::ffi::OsStr::from_bytes(last_name(&root))))
    }
}

fn failed(path: &Path, source: io::Error) -> ExecutorError {
    ExecutorError::Write { path: path.to_owned(), source }
}

struct FolderWriter<'a> {
    tree: &'a Tree,
    keep_owners: bool,
    latest: Option<i64>,
    first_names: HashMap<FileId, PathBuf>,
}

impl FolderWriter<'_> {
    fn children(&mut self, path: &[u8], dest: &Path) -> Result<(), ExecutorError> {
        for (name, node) in self.tree.children(path)? {
            self.one(&join(path, &name), &node, &dest.join(std::ffi::OsStr::from_bytes(&name)))?;
        }
        Ok(())
    }

    fn one(&mut self, path: &[u8], node: &Node, dest: &Path) -> Result<(), ExecutorError> {
        let failed = |source| failed(dest, source);
        let existing = fs::symlink_metadata(dest).ok();
        // What is there already gives way, but for a folder that stays one. Links are never followed.
        match existing {
            Some(it) if it.is_dir() && node.is_dir() => {}
            Some(it) if it.is_dir() => fs::remove_dir_all(dest).map_err(failed)?,
            Some(_) => fs::remove_file(dest).map_err(failed)?,
            None => {}
        }
        match &node.kind {
            Kind::Directory => {
                if !dest.is_dir() {
                    fs::create_dir(dest).map_err(failed)?;
                }
                self.children(path, dest)?;
            }
            Kind::File { .. } => {
                if let Some(id) = &node.file_id {
                    if let Some(first) = self.first_names.get(id) {
                        return fs::hard_link(first, dest).map_err(failed);
                    }
                    self.first_names.insert(id.clone(), dest.to_owned());
                }
                let mut from = self.tree.open(path)?;
                let mut to = fs::File::create_new(dest).map_err(failed)?;
                io::copy(&mut from, &mut to).map_err(failed)?;
            }
            Kind::Symlink { target } => {
                symlink(std::ffi::OsStr::from_bytes(target), dest).map_err(failed)?
            }
            Kind::Hardlink { .. } => return Ok(()),
            Kind::Fifo => node_at(dest, FileType::Fifo, 0, 0).map_err(failed)?,
            // Devices are made where that is allowed, and left out where it is not, as BuildKit does.
            Kind::CharDevice { major, minor } => {
                drop(node_at(dest, FileType::CharacterDevice, *major, *minor))
            }
            Kind::BlockDevice { major, minor } => {
                drop(node_at(dest, FileType::BlockDevice, *major, *minor))
            }
        }
        if fs::symlink_metadata(dest).is_err() {
            return Ok(());
        }
        if self.keep_owners {
            cache::owners::give(dest, node.uid, node.gid).map_err(failed)?;
        }
        if !matches!(node.kind, Kind::Symlink { .. }) {
            fs::set_permissions(dest, fs::Permissions::from_mode(node.mode)).map_err(failed)?;
        }
        set_time(dest, clamped(node.mtime, self.latest)).map_err(failed)
    }
}

fn node_at(path: &Path, kind: FileType, major: u32, minor: u32) -> io::Result<()> {
    let device = rustix::fs::makedev(major, minor);
    Ok(rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), device)?)
}

/// A time, or the latest that is allowed.
fn clamped(time: Time, latest: Option<i64>) -> Time {
    match latest {
        Some(latest) if time.secs >= latest => Time { secs: latest, nanos: 0 },
        _ => time,
    }
}

fn set_time(path: &Path, time: Time) -> io::Result<()> {
    let stamp = Timespec { tv_sec: time.secs, tv_nsec: i64::from(time.nanos) };
    let times = Timestamps { last_access: stamp, last_modification: stamp };
    Ok(rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Writes a whole tree as one tar; names get `prefix` in front, times later than `latest` are brought down to it.
pub(crate) fn write_tar<W: Write>(
    tree: &Tree,
    prefix: &[u8],
    latest: Option<i64>,
    writer: &mut TarWriter<W>,
) -> Result<(), ExecutorError> {
    let mut first_names = HashMap::new();
    tar_children(tree, b"", prefix, latest, writer, &mut first_names)
}

fn tar_children<W: Write>(
    tree: &Tree,
    path: &[u8],
    prefix: &[u8],
    latest: Option<i64>,
    writer: &mut TarWriter<W>,
    first_names: &mut HashMap<FileId, Vec<u8>>,
) -> Result<(), ExecutorError> {
    for (name, node) in tree.children(path)? {
        let path = join(path, &name);
        let written = join(prefix, &path);
        let is_dir = node.is_dir();
        let mut kind = node.kind.clone();
        if let (Kind::File { .. }, Some(id)) = (&kind, &node.file_id) {
            match first_names.get(id) {
                Some(first) => kind = Kind::Hardlink { target: first.clone() },
                None => drop(first_names.insert(id.clone(), written.clone())),
            }
        }
        let entry = Entry {
            path: written.clone(),
            kind,
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            mtime: Time { nanos: 0, ..clamped(node.mtime, latest) },
            xattrs: node.xattrs.clone(),
        };
        let mut data: Box<dyn io::Read + Send> = match entry.kind {
            Kind::File { .. } => tree.open(&path)?,
            _ => Box::new(io::empty()),
        };
        writer.append(&entry, &mut data)?;
        if is_dir {
            tar_children(tree, &path, prefix, latest, writer, first_names)?;
        }
    }
    Ok(())
}
