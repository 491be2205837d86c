//! Places to mount on that the root does not have.
//!
//! In an overlay they are made in a layer of their own, between the caller's layers and the upper
//! directory. So nothing is ever created in the upper directory, nothing has to be removed from a
//! tree that a process has changed meanwhile (CVE-2024-23652), and a `/proc` that is a link or a file
//! is hidden by the directory above it. Directories of that layer that exist below carry the
//! metadata of the original, because the top one is what a process sees.
//!
//! A plain directory has no such layer: there they are made in place and removed afterwards, each
//! from the directory handle it was made with and only if it is empty.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::{Errno, Result};

use crate::inside::{self, Components, Resolved};

/// A place that a mount needs.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Where.
    pub(crate) path: Components,
    /// Whether a directory is needed, or a file.
    pub(crate) is_dir: bool,
    /// Whether what is there in another form is hidden rather than refused.
    pub(crate) mask: bool,
}

/// What is missing for a place.
#[derive(Debug)]
pub(crate) struct Stub {
    path: Components,
    n_existing: usize,
    is_dir: bool,
}

/// Compares what is needed with what there is.
///
/// # Errors
///
/// `ENOTDIR` or `EISDIR` if something else is in a place and must not be hidden, `EXDEV` if a link leads to where the
/// standard file systems are mounted, which would hide what is mounted there before.
pub(crate) fn missing(root: BorrowedFd<'_>, place: &Place) -> Result<Option<Stub>> {
    // `/proc` itself must be a directory, not a link to one; others are followed.
    let found = if place.mask && place.is_dir { look_at(root, place) } else { None };
    let found = match found {
        Some(found) => found,
        None => match inside::resolve(root, &place.path) {
            Ok(found) => found,
            Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) if place.mask => {
                Resolved { path: place.path.clone(), n_existing: 0, kind: None }
            }
            Err(errno) => return Err(errno),
        },
    };
    let found = match found.path.first() {
        Some(first) if is_system(first) && Some(first) != place.path.first() => {
            if !place.mask {
                return Err(Errno::XDEV);
            }
            Resolved { path: place.path.clone(), n_existing: 0, kind: None }
        }
        _ => found,
    };
    let fits = match found.kind {
        None => false,
        Some(kind) => (kind == FileType::Directory) == place.is_dir,
    };
    match found.kind {
        _ if fits => Ok(None),
        Some(_) if !place.mask => Err(if place.is_dir { Errno::NOTDIR } else { Errno::ISDIR }),
        _ => {
            Ok(Some(Stub { path: found.path, n_existing: found.n_existing, is_dir: place.is_dir }))
        }
    }
}

fn is_system(name: &[u8]) -> bool {
    matches!(name, b"dev" | b"proc" | b"sys")
}

fn look_at(root: BorrowedFd<'_>, place: &Place) -> Option<Resolved> {
    let path = inside::join(&place.path).ok()?;
    let stat = rustix::fs::statat(root, &path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    Some(Resolved { path: place.path.clone(), n_existing: 0, kind: Some(kind) })
}

/// Fills an empty directory with the stubs, to be used as the layer above all others.
pub(crate) fn make_layer(
    root: BorrowedFd<'_>,
    layer: BorrowedFd<'_>,
    stubs: &[Stub],
) -> Result<()> {
    let mut copies: Vec<Components> = vec![vec![]];
    for stub in stubs {
        let n_dirs = stub.path.len() - usize::from(!stub.is_dir);
        for n in 1..=n_dirs {
            let here = inside::join(&stub.path[..n])?;
            match rustix::fs::mkdirat(layer, &here, Mode::from_raw_mode(0o755)) {
                Ok(()) => {
                    rustix::fs::chmodat(layer, &here, Mode::from_raw_mode(0o755), AtFlags::empty())?
                }
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
            if n < stub.path.len() && !copies.iter().any(|it| *it == stub.path[..n]) {
                copies.push(stub.path[..n].to_vec());
            }
        }
        if !stub.is_dir {
            make_file(layer, &inside::join(&stub.path)?)?;
        }
    }
    // Deepest first, because making an entry changes the time of its directory.
    copies.sort_by_key(|path| std::cmp::Reverse(path.len()));
    for path in &copies {
        let path = inside::join(path)?;
        copy_metadata(root, layer, &path)?;
    }
    Ok(())
}

fn make_file(dir: BorrowedFd<'_>, path: &std::ffi::CStr) -> Result<()> {
    let mode = Mode::from_raw_mode(0o644);
    match rustix::fs::mknodat(dir, path, FileType::RegularFile, mode, 0) {
        Ok(()) => rustix::fs::chmodat(dir, path, mode, AtFlags::empty()),
        Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Gives a directory of the layer the owner, mode, extended attributes and times of the original,
/// if there is one.
fn copy_metadata(from: BorrowedFd<'_>, to: BorrowedFd<'_>, path: &std::ffi::CStr) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let original = match rustix::fs::openat(from, path, flags, Mode::empty()) {
        Ok(original) => original,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    let copy = rustix::fs::openat(to, path, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&original)?;
    let uid = rustix::fs::Uid::from_raw(stat.st_uid);
    let gid = rustix::fs::Gid::from_raw(stat.st_gid);
    rustix::fs::fchown(&copy, Some(uid), Some(gid))?;
    rustix::fs::fchmod(&copy, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    copy_xattrs(&original, &copy)?;
    rustix::fs::futimens(&copy, &times(&stat))
}

fn copy_xattrs(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let n_bytes = match rustix::fs::flistxattr_query(from) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(()),
        Ok(n_bytes) => n_bytes,
        Err(errno) => return Err(errno),
    };
    let mut names = vec![0; n_bytes];
    let n_bytes = rustix::fs::flistxattr(from, names.as_mut_slice())?;
    for name in names[..n_bytes].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        let n_bytes = rustix::fs::fgetxattr_query(from, name)?;
        let mut value = vec![0; n_bytes];
        let n_bytes = rustix::fs::fgetxattr(from, name, value.as_mut_slice())?;
        match rustix::fs::fsetxattr(to, name, &value[..n_bytes], rustix::fs::XattrFlags::empty()) {
            // Memory takes attributes of users since Linux 6.6 only, and those of security modules from root only.
            Ok(()) | Err(Errno::NOTSUP | Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn times(stat: &rustix::fs::Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
    }
}

/// Stubs made in place, and what it takes to remove them.
#[derive(Debug, Default)]
pub(crate) struct InPlace {
    made: Vec<Made>,
}

#[derive(Debug)]
struct Made {
    parent: OwnedFd,
    times: Timestamps,
    name: Vec<u8>,
    is_dir: bool,
}

impl InPlace {
    /// Makes what is missing for one place.
    pub(crate) fn make(&mut self, root: BorrowedFd<'_>, stub: &Stub) -> Result<()> {
        for n in stub.n_existing + 1..=stub.path.len() {
            let parent = inside::join(&stub.path[..n - 1])?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let parent = rustix::fs::openat(root, &parent, flags, Mode::empty())?;
            let times = times(&rustix::fs::fstat(&parent)?);
            let name = stub.path[n - 1].clone();
            let is_dir = n < stub.path.len() || stub.is_dir;
            if is_dir {
                rustix::fs::mkdirat(&parent, name.as_slice(), Mode::from_raw_mode(0o755))?;
            } else {
                make_file(parent.as_fd(), &inside::join(std::slice::from_ref(&name))?)?;
            }
            self.made.push(Made { parent, times, name, is_dir });
        }
        Ok(())
    }

    /// Removes what is still as it was made and gives the directories their times back.
    pub(crate) fn remove(&mut self) {
        while let Some(made) = self.made.pop() {
            let name = made.name.as_slice();
            let is_ours = match rustix::fs::statat(&made.parent, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if made.is_dir => FileType::from_raw_mode(stat.st_mode).is_dir(),
                Ok(stat) => FileType::from_raw_mode(stat.st_mode).is_file() && stat.st_size == 0,
                Err(_) => false,
            };
            let flags = if made.is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            // A directory that the process has put something into stays, and so does its time.
            if is_ours && rustix::fs::unlinkat(&made.parent, name, flags).is_ok() {
                let _ = rustix::fs::futimens(&made.parent, &made.times);
            }
        }
    }
}
