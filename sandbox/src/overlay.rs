//! File systems made without a place: mounts that only a handle knows, until the sandbox attaches
//! them.
//!
//! Nothing here touches the mount table of the machine, so nothing is left in it whatever happens.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::io::{Errno, Result};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, OpenTreeFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, open_tree,
};

use crate::error::SandboxError;
use crate::inside;
use crate::sys;
use crate::userns;

/// Longest value that `fsconfig` takes, in bytes.
const MAX_VALUE: usize = 255;

/// One layer below the upper directory.
#[derive(Clone, Copy)]
pub(crate) enum Layer<'a> {
    /// A directory of the machine.
    Path(&'a Path),
    /// A directory that is open and may have no path.
    Handle(BorrowedFd<'a>),
}

/// The layers of an overlay.
pub(crate) struct Layers<'a> {
    /// The base first.
    pub(crate) lower: Vec<Layer<'a>>,
    /// The directory for changes and the work directory, if it can be changed.
    pub(crate) upper: Option<(&'a Path, &'a Path)>,
}

/// The layers, each once. One that comes again, which the kernel refuses, counts where it comes
/// last: there it brings again all that it brought before.
pub(crate) fn distinct(lower: &[PathBuf]) -> Vec<&Path> {
    let mut out: Vec<&Path> = Vec::with_capacity(lower.len());
    for path in lower.iter().rev() {
        if !out.contains(&path.as_path()) {
            out.push(path);
        }
    }
    out.reverse();
    out
}

/// Mounts an overlay. The upper directory is not synced when it goes away (`volatile`).
pub(crate) fn overlay(
    layers: &Layers<'_>,
    attrs: MountAttrFlags,
) -> std::result::Result<OwnedFd, SandboxError> {
    // Handles that the values below name; they must live until the file system exists.
    let mut handles = Vec::new();
    let mut name = |path: &Path| {
        layer_name(path, &mut handles).map_err(|errno| SandboxError::path("open", path, errno))
    };
    let mut lower = Vec::with_capacity(layers.lower.len());
    for layer in layers.lower.iter().rev() {
        lower.push(match layer {
            Layer::Path(path) => (name(path)?, *path),
            Layer::Handle(fd) => (handle_name(*fd), Path::new("a layer in memory")),
        });
    }
    let upper = match layers.upper {
        Some((upper, work)) => Some((name(upper)?, name(work)?)),
        None => None,
    };
    let failed = |errno: Errno| match layers.upper {
        Some((upper, _)) => {
            SandboxError::path("mount an overlay with upper directory", upper, errno)
        }
        None => SandboxError::setup("mount a read-only overlay", errno),
    };

    let fs = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed)?;
    for (index, (value, path)) in lower.iter().enumerate() {
        match fsconfig_set_string(&fs, c"lowerdir+", value) {
            Ok(()) => {}
            Err(Errno::INVAL) if index == 0 => {
                // Before Linux 6.5 all layers are one option string.
                return overlay_by_options(&layers.lower, layers.upper, attrs).map_err(failed);
            }
            Err(errno) => return Err(SandboxError::path("use as an overlay layer", *path, errno)),
        }
    }
    let configure = || {
        if let Some((upper, work)) = &upper {
            fsconfig_set_string(&fs, c"upperdir", upper)?;
            fsconfig_set_string(&fs, c"workdir", work)?;
            fsconfig_set_flag(&fs, c"volatile")?;
        }
        if userns::is_inside() {
            // Both of the others are off then, and saying so is refused.
            fsconfig_set_flag(&fs, c"userxattr")?;
        } else {
            fsconfig_set_string(&fs, c"redirect_dir", c"off")?;
            fsconfig_set_string(&fs, c"metacopy", c"off")?;
        }
        fsconfig_set_string(&fs, c"index", c"off")?;
        fsconfig_create(&fs)?;
        fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attrs)
    };
    configure().map_err(failed)
}

fn handle_name(fd: BorrowedFd<'_>) -> CString {
    CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap_or_default()
}

/// The value that names a layer: its path, or where that is too long or has characters that
/// overlayfs gives a meaning, a handle on it.
fn layer_name(path: &Path, handles: &mut Vec<OwnedFd>) -> Result<CString> {
    let bytes = path.as_os_str().as_bytes();
    let is_plain = bytes.len() <= MAX_VALUE && !bytes.iter().any(|byte| b"\\:,".contains(byte));
    if is_plain && path.is_absolute() {
        return CString::new(bytes).map_err(|_| Errno::INVAL);
    }
    let fd = inside::open_dir(path)?;
    let name = handle_name(fd.as_fd());
    handles.push(fd);
    Ok(name)
}

/// The way before Linux 6.5: `mount(2)`, which needs a place, so it is done in a mount namespace
/// that lives as long as one thread.
fn overlay_by_options(
    lower: &[Layer<'_>],
    upper: Option<(&Path, &Path)>,
    attrs: MountAttrFlags,
) -> Result<OwnedFd> {
    let mount = || {
        sys::unshare(sys::namespace::MOUNT)?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change(c"/", private)?;
        // Opened only now: layers must be in the mount table of the one who mounts. Their short
        // names keep the options below the size of a page.
        let mut handles = Vec::new();
        let mut open = |path: &Path| -> Result<String> {
            let fd = inside::open_dir(path)?;
            let name = format!("/proc/thread-self/fd/{}", fd.as_raw_fd());
            handles.push(fd);
            Ok(name)
        };
        let (mut names, mut place) = (Vec::with_capacity(lower.len()), None);
        for layer in lower.iter().rev() {
            let Layer::Path(path) = layer else { return Err(Errno::INVAL) };
            names.push(open(path)?);
            place = Some(*path);
        }
        let place = upper.map(|(_, work)| work).or(place).ok_or(Errno::INVAL)?;
        let mut options = format!("lowerdir={}", names.join(":"));
        if let Some((upper, work)) = upper {
            options += &format!(",upperdir={},workdir={},volatile", open(upper)?, open(work)?);
        }
        options += match userns::is_inside() {
            true => ",userxattr,index=off",
            false => ",redirect_dir=off,metacopy=off,index=off",
        };
        let options = CString::new(options).map_err(|_| Errno::INVAL)?;
        let flags = MountFlags::empty();
        rustix::mount::mount(c"overlay", place, c"overlay", flags, Some(&*options))?;
        clone_tree(inside::HERE, place, false)
    };
    let mount = std::thread::scope(|scope| scope.spawn(mount).join().unwrap_or(Err(Errno::IO)))?;
    sys::mount_setattr(mount.as_fd(), false, u64::from(attrs.bits()), 0)?;
    Ok(mount)
}

/// A copy of the mount at a path, or of the part of it below the path.
pub(crate) fn clone_tree(
    dir: BorrowedFd<'_>,
    path: impl rustix::path::Arg,
    recursive: bool,
) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(dir, path, flags)
}

/// An empty file system in memory.
pub(crate) fn tmpfs(size: Option<u64>, mode: u32, attrs: MountAttrFlags) -> Result<OwnedFd> {
    let fs = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    if let Some(size) = size {
        fsconfig_set_string(&fs, c"size", format!("{size}"))?;
    }
    fsconfig_set_string(&fs, c"mode", format!("{mode:o}"))?;
    fsconfig_create(&fs)?;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attrs)
}

/// A new instance of a file system that takes only flags and strings. Does not allocate.
pub(crate) fn instance(
    name: &std::ffi::CStr,
    options: &[(&std::ffi::CStr, &std::ffi::CStr)],
    attrs: MountAttrFlags,
) -> Result<OwnedFd> {
    let fs = fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        fsconfig_set_string(&fs, *key, *value)?;
    }
    fsconfig_create(&fs)?;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attrs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_layers_count_once() {
        let lower = ["a", "b", "a", "c", "b"].map(PathBuf::from);
        assert_eq!(distinct(&lower), ["a", "c", "b"].map(Path::new));
        assert!(distinct(&[]).is_empty());
    }
}
