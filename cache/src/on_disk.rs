//! Small steps of unpacking: questions about what is on the disk, checks of what an entry says, and errors for both.

use std::os::fd::{AsFd, OwnedFd};

use image::entry::{Entry, Time};
use rustix::{
    fs::{AtFlags, FileType, Timespec, Timestamps, statat},
    io::Errno,
};

use crate::{
    below::is_kept,
    error::{IoContext, StoreError, show},
};

pub(crate) fn is_whiteout(folder: impl AsFd, name: &[u8]) -> bool {
    statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|it| {
        FileType::from_raw_mode(it.st_mode) == FileType::CharacterDevice && it.st_rdev == 0
    })
}

pub(crate) fn is_folder(folder: &OwnedFd, name: &[u8]) -> bool {
    statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|it| FileType::from_raw_mode(it.st_mode) == FileType::Directory)
}

pub(crate) fn is_below(path: &[u8], folder: &[u8]) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

pub(crate) fn kept(entry: &Entry) -> impl Iterator<Item = (&[u8], &[u8])> {
    entry
        .xattrs
        .iter()
        .map(|(name, value)| (name.as_slice(), value.as_slice()))
        .filter(|(name, _)| is_kept(name))
}

/// A file system without attributes is no reason to fail; they are still in the index.
pub(crate) fn accept_missing(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::OPNOTSUPP) => Ok(()),
        result => result,
    }
}

/// The kernel's word for an id that a user namespace does not have is "invalid argument".
pub(crate) fn owned(result: Result<(), Errno>, entry: &Entry) -> Result<(), StoreError> {
    match result {
        Err(Errno::INVAL) => Err(StoreError::IdNotMapped {
            entry: show(&entry.path),
            uid: entry.uid,
            gid: entry.gid,
        }),
        result => result.of("set the owner of", &entry.path),
    }
}

pub(crate) fn timestamps(time: Time) -> Timestamps {
    let time = Timespec { tv_sec: time.secs, tv_nsec: time.nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

pub(crate) fn check_path(path: &[u8], entry: &[u8]) -> Result<(), StoreError> {
    let is_bad = |part: &[u8]| part.is_empty() || part == b"." || part == b"..";
    if path.contains(&0) || (!path.is_empty() && path.split(|it| *it == b'/').any(is_bad)) {
        return Err(refuse(entry, "its path leads out of the layer or is malformed"));
    }
    Ok(())
}

pub(crate) fn refuse(entry: &[u8], reason: &str) -> StoreError {
    StoreError::Entry { entry: show(entry), reason: reason.to_owned() }
}
