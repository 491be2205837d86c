//! Getting at what is inside a tree whose links nobody vouches for, and which attributes belong to it.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use image::layer::split_path;
use rustix::{
    fs::{Mode, OFlags, ResolveFlags, openat, openat2},
    io::Errno,
};

/// How folders are opened that are only passed through.
pub(crate) const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// How folders are opened to be listed.
pub(crate) const OPEN_FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// How files are made that must not be there.
pub(crate) const NEW_FILE: OFlags = OFlags::WRONLY
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Opens a folder below `root`, links resolved as if `root` were `/`.
pub(crate) fn open_in_root(root: impl AsFd, folder: &[u8]) -> Result<OwnedFd, Errno> {
    let folder = if folder.is_empty() { b"." } else { folder };
    openat2(
        root,
        folder,
        FOLDER,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
}

/// A path that leads to `name` in an open folder, for calls that take no folder. The last part is not followed by what it is used with.
pub(crate) fn through(folder: &OwnedFd, name: &[u8]) -> PathBuf {
    Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(OsStr::from_bytes(name))
}

/// Tells whether an attribute belongs to the content of an image. Others steer the kernel or another program of the host.
pub(crate) fn is_kept(attribute: &[u8]) -> bool {
    const PRIVATE: &[&[u8]] = &[
        b"user.overlay.",
        b"user.containers.",
        b"user.rootlesscontainers",
        b"user.fuseoverlayfs.",
        b"user.kiln.",
    ];
    attribute == b"security.capability"
        || attribute.starts_with(b"system.posix_acl_")
        || attribute.starts_with(b"user.") && !PRIVATE.iter().any(|it| attribute.starts_with(it))
}

/// Opens a file of a tree for reading; links in its path are resolved inside the tree, the last part is not followed.
pub(crate) fn open_in_tree(tree: impl AsFd, path: &[u8]) -> io::Result<File> {
    let (folder, name) = split_path(path);
    let folder = open_in_root(tree, folder)?;
    // A pipe or device in place of the file must not block or act.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(openat(&folder, name, flags, Mode::empty())?))
}
