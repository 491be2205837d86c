//! Paths inside a root: taken apart, resolved, and never followed out of it.
//!
//! A tree is untrusted. Its links are resolved here step by step on directory handles, with the
//! tree's own root as the end of every `..` and the start of every absolute link. This is for trees
//! at rest; while a process may change a tree, only [`open`] is used, which asks the kernel to
//! resolve in one call.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};

/// Links followed in one resolution before giving up, as the kernel counts.
const MAX_LINKS: usize = 40;

/// A cleaned path inside a root: its components, without `.`, `..` or empty ones.
pub(crate) type Components = Vec<Vec<u8>>;

/// Takes an absolute path apart; `..` removes the component before it, and nothing at the root.
pub(crate) fn components(path: &Path) -> Components {
    let mut out = Vec::new();
    for part in path.as_os_str().as_bytes().split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                out.pop();
            }
            part => out.push(part.to_vec()),
        }
    }
    out
}

/// Puts components together again, without a leading slash; `.` for none.
pub(crate) fn join(components: &[Vec<u8>]) -> Result<CString> {
    if components.is_empty() {
        return Ok(c".".to_owned());
    }
    CString::new(components.join(&b'/')).map_err(|_| Errno::INVAL)
}

/// The components as a path that starts with a slash, for messages.
pub(crate) fn display(components: &[Vec<u8>]) -> PathBuf {
    let mut bytes = vec![b'/'];
    bytes.extend_from_slice(&components.join(&b'/'));
    PathBuf::from(std::ffi::OsStr::from_bytes(&bytes))
}

/// The components as a relative path, for messages.
pub(crate) fn relative(components: &[Vec<u8>]) -> PathBuf {
    PathBuf::from(std::ffi::OsStr::from_bytes(&components.join(&b'/')))
}

/// Opens a path inside `root` as a place (`O_PATH`), following links inside the root only.
pub(crate) fn open(root: BorrowedFd<'_>, path: impl rustix::path::Arg) -> Result<OwnedFd> {
    open_with(root, path, OFlags::PATH)
}

/// Opens a path inside `root` with other flags than [`open`].
pub(crate) fn open_with(
    root: BorrowedFd<'_>,
    path: impl rustix::path::Arg,
    flags: OFlags,
) -> Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// Opens a directory of the machine as a place.
pub(crate) fn open_dir(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// The type of an open file.
pub(crate) fn file_type(fd: BorrowedFd<'_>) -> Result<FileType> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode))
}

/// Where a path leads.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// The path without links.
    pub(crate) path: Components,
    /// How many of the first components exist.
    pub(crate) n_existing: usize,
    /// What is there, if all of them exist.
    pub(crate) kind: Option<FileType>,
}

/// Follows `path` from `root`. A part that does not exist is not an error; a file in the place of a
/// directory is.
pub(crate) fn resolve(root: BorrowedFd<'_>, path: &[Vec<u8>]) -> Result<Resolved> {
    let mut todo: Vec<Vec<u8>> = path.iter().rev().cloned().collect();
    // The directories above the place we are at, from the root's first child down.
    let mut above: Vec<(Vec<u8>, OwnedFd)> = Vec::new();
    let mut n_links = 0;
    while let Some(name) = todo.pop() {
        match name.as_slice() {
            b"" | b"." => continue,
            b".." => {
                above.pop();
                continue;
            }
            _ => {}
        }
        let here = above.last().map_or(root, |(_, fd)| fd.as_fd());
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(here, name.as_slice(), flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => {
                let mut path: Components = above.into_iter().map(|(name, _)| name).collect();
                let n_existing = path.len();
                path.push(name);
                for name in todo.into_iter().rev() {
                    match name.as_slice() {
                        b"" | b"." => {}
                        b".." if path.len() > n_existing => drop(path.pop()),
                        b".." => return Err(Errno::NOENT),
                        _ => path.push(name),
                    }
                }
                return Ok(Resolved { path, n_existing, kind: None });
            }
            Err(errno) => return Err(errno),
        };
        match file_type(fd.as_fd())? {
            FileType::Symlink => {
                n_links += 1;
                if n_links > MAX_LINKS {
                    return Err(Errno::LOOP);
                }
                let link = rustix::fs::readlinkat(&fd, c"", Vec::new())?;
                let link = link.to_bytes();
                if link.starts_with(b"/") {
                    above.clear();
                }
                todo.extend(link.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
            }
            FileType::Directory => above.push((name, fd)),
            kind => {
                if todo.iter().any(|it| !it.is_empty() && it.as_slice() != b".") {
                    return Err(Errno::NOTDIR);
                }
                let mut path: Components = above.into_iter().map(|(name, _)| name).collect();
                path.push(name);
                return Ok(Resolved { n_existing: path.len(), path, kind: Some(kind) });
            }
        }
    }
    let path: Components = above.into_iter().map(|(name, _)| name).collect();
    Ok(Resolved { n_existing: path.len(), path, kind: Some(FileType::Directory) })
}

/// Creates the directories of `path` that do not exist, mode 0755.
pub(crate) fn create_dirs(root: BorrowedFd<'_>, path: &[Vec<u8>]) -> Result<()> {
    let resolved = resolve(root, path)?;
    match resolved.kind {
        Some(FileType::Directory) => return Ok(()),
        Some(_) => return Err(Errno::NOTDIR),
        None => {}
    }
    for n in resolved.n_existing + 1..=resolved.path.len() {
        let path = join(&resolved.path[..n])?;
        rustix::fs::mkdirat(root, &path, Mode::from_raw_mode(0o755))?;
        // The mode passed above is subject to our umask.
        rustix::fs::chmodat(root, &path, Mode::from_raw_mode(0o755), AtFlags::empty())?;
    }
    Ok(())
}

/// Empties a directory of our own. What is missing is no error.
pub(crate) fn remove_all(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    }
}

/// The current directory's descriptor, under a shorter name.
pub(crate) const HERE: BorrowedFd<'static> = CWD;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn path(text: &str) -> Components {
        components(Path::new(text))
    }

    #[test]
    fn components_are_clean() {
        for (text, want) in [
            ("/", "/"),
            ("", "/"),
            ("/a//b/./c/", "/a/b/c"),
            ("/a/../b", "/b"),
            ("/../../x", "/x"),
            ("../x/..", "/"),
        ] {
            assert_eq!(display(&path(text)), Path::new(want), "{text}");
        }
    }

    #[test]
    fn links_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("usr/etc")).unwrap();
        std::fs::write(at("usr/file"), "").unwrap();
        symlink("usr/etc", at("etc")).unwrap();
        symlink("/../../etc/missing/x", at("out")).unwrap();
        symlink("../usr/etc/../../../file", at("usr/up")).unwrap();
        symlink("loop", at("loop")).unwrap();
        let root = open_dir(dir.path()).unwrap();

        let look = |text: &str| {
            resolve(root.as_fd(), &path(text))
                .map(|it| (display(&it.path).to_str().unwrap().to_owned(), it.n_existing, it.kind))
        };
        let dir_type = Some(FileType::Directory);
        assert_eq!(look("/"), Ok(("/".into(), 0, dir_type)));
        assert_eq!(look("/etc"), Ok(("/usr/etc".into(), 2, dir_type)));
        assert_eq!(look("/etc/a/b"), Ok(("/usr/etc/a/b".into(), 2, None)));
        assert_eq!(look("/out"), Ok(("/usr/etc/missing/x".into(), 2, None)));
        assert_eq!(look("/usr/file"), Ok(("/usr/file".into(), 2, Some(FileType::RegularFile))));
        assert_eq!(look("/usr/up"), Ok(("/file".into(), 0, None)));
        assert_eq!(look("/loop"), Err(Errno::LOOP));
        assert_eq!(look("/usr/file/x"), Err(Errno::NOTDIR));
    }

    #[test]
    fn directories_are_created_through_links() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/data", dir.path().join("app")).unwrap();
        let root = open_dir(dir.path()).unwrap();
        create_dirs(root.as_fd(), &path("/app/x/y")).unwrap();
        assert!(dir.path().join("data/x/y").is_dir());
    }
}
