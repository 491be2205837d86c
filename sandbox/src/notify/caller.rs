//! The thread whose call is answered: its memory, and where the paths lead that it gives.
//!
//! The supervisor has the root of the sandbox as its own root, so that the kernel resolves absolute paths and links for it as it
//! does for the caller, and `/proc` of the machine as its working directory, through which it gets at the working directory and
//! the handles of the caller. A path through `/proc/self` means another process for it; those that matter are rewritten.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};

use crate::sys::notify::{self, Notification};

/// Longest path that the kernel takes, with the zero at its end.
const MAX_PATH: usize = 4096;

/// The handle that means the working directory.
pub(crate) const AT_CWD: i32 = -100;

/// A waiting thread.
#[derive(Clone, Copy)]
pub(crate) struct Caller<'a> {
    pub(crate) listener: BorrowedFd<'a>,
    pub(crate) call: Notification,
    /// Whether a process of this sandbox may have another root than the sandbox.
    pub(crate) may_have_own_root: bool,
}

/// Where a path leads, as the supervisor names it.
#[derive(Debug)]
pub(crate) struct Place {
    path: CString,
    /// Whether a link there is followed.
    pub(crate) follow: bool,
    /// Where the way to it begins.
    start: Start,
    /// Something that `path` names.
    _handle: Option<OwnedFd>,
}

/// Where the way to a file begins.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Start {
    /// The root.
    Root,
    /// A folder that the caller has, by the supervisor's name for it.
    Folder(String),
    /// The file is what the caller has.
    Itself,
}

impl Place {
    /// The name.
    pub(crate) fn path(&self) -> &CStr {
        &self.path
    }

    /// Opens it as a place.
    pub(crate) fn open(&self) -> Result<OwnedFd> {
        let mut flags = OFlags::PATH | OFlags::CLOEXEC;
        if !self.follow {
            flags |= OFlags::NOFOLLOW;
        }
        rustix::fs::openat(CWD, &*self.path, flags, Mode::empty())
    }

    /// The folders that are passed on the way to `file`, which is what was found here. Each is a path from the root.
    pub(crate) fn folders_to(&self, file: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>> {
        let path = rustix::fs::readlinkat(CWD, own_handle(file), Vec::new())?;
        let path = path.as_bytes();
        // A pipe, or a file that was removed, or one that needs no way.
        if !path.starts_with(b"/") || self.start == Start::Itself {
            return Ok(Vec::new());
        }
        let slashes = path.iter().enumerate().filter(|(_, it)| **it == b'/');
        let mut folders: Vec<Vec<u8>> = slashes.map(|(at, _)| path[..at.max(1)].to_vec()).collect();
        if let Start::Folder(start) = &self.start {
            let start = rustix::fs::readlinkat(CWD, start.as_str(), Vec::new())?;
            match folders.iter().position(|it| it == start.as_bytes()) {
                _ if path == start.as_bytes() => folders.clear(),
                Some(at) => drop(folders.drain(..at)),
                // It went up, or by a link.
                None => drop(folders.drain(..folders.len().saturating_sub(1))),
            }
        }
        Ok(folders)
    }

    /// The flag with which calls do as [`follow`](Self::follow) says.
    pub(crate) fn at_flag(&self) -> i32 {
        if self.follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW }
    }
}

/// The name of a handle of the supervisor's.
pub(crate) fn own_handle(fd: BorrowedFd<'_>) -> CString {
    CString::new(format!("self/fd/{}", fd.as_raw_fd())).unwrap_or_default()
}

/// A path as the caller gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) dir: i32,
    pub(crate) path: Vec<u8>,
}

impl Given {
    /// The folder and the name in it, for what is to be made or removed; `None` if the path has no name at its end.
    pub(crate) fn split(&self) -> Option<(Self, &[u8])> {
        let end = self.path.iter().rposition(|it| *it != b'/')? + 1;
        let path = &self.path[..end];
        let start = path.iter().rposition(|it| *it == b'/').map_or(0, |it| it + 1);
        let name = &path[start..];
        if name == b"." || name == b".." {
            return None;
        }
        let parent = match &path[..start] {
            b"" => b".".to_vec(),
            parent => parent.to_vec(),
        };
        Some((Self { dir: self.dir, path: parent }, name))
    }
}

impl Caller<'_> {
    /// An argument of the call.
    pub(crate) fn arg(&self, index: usize) -> u64 {
        self.call.args[index]
    }

    /// An argument that is a number of 32 bits.
    pub(crate) fn int(&self, index: usize) -> i32 {
        self.arg(index) as i32
    }

    /// An argument that is an id.
    pub(crate) fn id(&self, index: usize) -> u32 {
        self.arg(index) as u32
    }

    /// Whether the call still waits.
    pub(crate) fn check(&self) -> Result<()> {
        if notify::is_waiting(self.listener, self.call.id) { Ok(()) } else { Err(Errno::SRCH) }
    }

    /// Reads a path from the caller's memory.
    pub(crate) fn given(&self, dir: i32, path: usize) -> Result<Given> {
        let address = self.arg(path);
        if address == 0 {
            return Err(Errno::FAULT);
        }
        Ok(Given { dir, path: self.string(address)? })
    }

    /// Reads text that ends in zero.
    pub(crate) fn string(&self, address: u64) -> Result<Vec<u8>> {
        let mut buffer = [0; MAX_PATH];
        let n_read = self.read_some(address, &mut buffer)?;
        match buffer[..n_read].iter().position(|it| *it == 0) {
            Some(end) => Ok(buffer[..end].to_vec()),
            None if n_read == MAX_PATH => Err(Errno::NAMETOOLONG),
            None => Err(Errno::FAULT),
        }
    }

    /// Reads from the caller's memory.
    pub(crate) fn read(&self, address: u64, buffer: &mut [u8]) -> Result<()> {
        let n_read = self.read_some(address, buffer)?;
        if n_read == buffer.len() { Ok(()) } else { Err(Errno::FAULT) }
    }

    fn read_some(&self, address: u64, buffer: &mut [u8]) -> Result<usize> {
        // The memory of a process that has not executed its first program is kiln's, and cannot be read.
        notify::read_memory(self.call.tid, address, buffer).map_err(|_| Errno::FAULT)
    }

    /// Writes to the caller's memory.
    pub(crate) fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        self.check()?;
        notify::write_memory(self.call.tid, address, bytes)
    }

    /// The file behind a handle of the caller's.
    pub(crate) fn handle(&self, fd: i32) -> Result<Place> {
        if fd < 0 {
            return Err(Errno::BADF);
        }
        self.named(format!("{}/fd/{fd}", self.call.tid).into_bytes(), true, Start::Itself)
    }

    /// Where a path leads. An empty one is an error.
    pub(crate) fn place(&self, given: &Given, follow: bool) -> Result<Place> {
        let Given { dir, path } = given;
        if path.is_empty() {
            return Err(Errno::NOENT);
        }
        if let Some(fd) = standard_handle(path).filter(|_| follow) {
            return self.handle(fd);
        }
        if self.may_have_own_root && self.has_own_root()? {
            return self.place_in_own_root(given, follow);
        }
        let tid = self.call.tid;
        let start = match (path[0], *dir) {
            (b'/', _) => Start::Root,
            (_, AT_CWD) => Start::Folder(format!("{tid}/cwd")),
            (_, fd) if fd >= 0 => Start::Folder(format!("{tid}/fd/{fd}")),
            _ => return Err(Errno::BADF),
        };
        let mut name = match &start {
            Start::Folder(folder) => format!("{folder}/").into_bytes(),
            _ => Vec::new(),
        };
        name.extend_from_slice(path);
        let place = self.named(name, follow, start)?;
        if follow && let Some(fd) = linked_handle(&place.path) {
            return self.handle(fd);
        }
        Ok(place)
    }

    /// Whether a path means the same to the supervisor as to the caller: `/proc` has other processes in it for the one than for the other,
    /// and `/dev` has links that lead there.
    pub(crate) fn sees_the_same(&self, given: &Given) -> bool {
        if self.may_have_own_root {
            return false;
        }
        let start = match (given.path.first(), given.dir) {
            (Some(b'/'), _) => Ok(Vec::new()),
            (_, AT_CWD) => read_link(&format!("{}/cwd", self.call.tid)),
            (_, fd) => read_link(&format!("{}/fd/{fd}", self.call.tid)),
        };
        let Ok(mut path) = start else { return false };
        path.push(b'/');
        path.extend_from_slice(&given.path);
        !leads_aside(&path)
    }

    /// As [`place`](Self::place), or with an empty path and the flag for it the handle itself.
    pub(crate) fn place_or_handle(&self, given: &Given, flags: i32) -> Result<Place> {
        if given.path.is_empty() && flags & libc::AT_EMPTY_PATH != 0 {
            return match given.dir {
                AT_CWD => {
                    let name = format!("{}/cwd", self.call.tid).into_bytes();
                    self.named(name, true, Start::Itself)
                }
                fd => self.handle(fd),
            };
        }
        self.place(given, flags & libc::AT_SYMLINK_NOFOLLOW == 0)
    }

    fn named(&self, path: Vec<u8>, follow: bool, start: Start) -> Result<Place> {
        let path = CString::new(path).map_err(|_| Errno::INVAL)?;
        Ok(Place { path, follow, start, _handle: None })
    }

    fn has_own_root(&self) -> Result<bool> {
        let root = rustix::fs::readlinkat(CWD, format!("{}/root", self.call.tid), Vec::new())?;
        Ok(root.as_bytes() != b"/")
    }

    /// The way for who has changed its root: everything is resolved below that.
    fn place_in_own_root(&self, given: &Given, follow: bool) -> Result<Place> {
        let tid = self.call.tid;
        let open = |path: String| {
            rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        };
        let root = open(format!("{tid}/root"))?;
        let mut path = Vec::new();
        if given.path[0] != b'/' {
            let start = match given.dir {
                AT_CWD => format!("{tid}/cwd"),
                fd => format!("{tid}/fd/{fd}"),
            };
            let above = rustix::fs::readlinkat(CWD, format!("{tid}/root"), Vec::new())?;
            let start = rustix::fs::readlinkat(CWD, start, Vec::new())?;
            let below = start.as_bytes().strip_prefix(above.as_bytes()).ok_or(Errno::XDEV)?;
            path.extend_from_slice(below);
            path.push(b'/');
        }
        path.extend_from_slice(&given.path);
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        if follow {
            match rustix::fs::openat2(&root, path.as_slice(), flags, Mode::empty(), resolve) {
                Ok(handle) => return Ok(held(handle, b"")),
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        let whole = Given { dir: AT_CWD, path };
        let Some((parent, name)) = whole.split() else {
            let handle =
                rustix::fs::openat2(&root, whole.path.as_slice(), flags, Mode::empty(), resolve)?;
            return Ok(held(handle, b""));
        };
        let parent = rustix::fs::openat2(
            &root,
            parent.path.as_slice(),
            flags | OFlags::DIRECTORY,
            Mode::empty(),
            resolve,
        )?;
        Ok(held(parent, name))
    }
}

/// Whether an absolute path leads through `/proc` or `/dev`, links followed.
fn leads_aside(path: &[u8]) -> bool {
    const MAX_LINKS: usize = 40;
    let names = |path: &[u8]| -> Vec<Vec<u8>> {
        path.split(|it| *it == b'/').rev().map(<[u8]>::to_vec).collect()
    };
    let mut rest = names(path);
    let mut at: Vec<u8> = Vec::new();
    let mut n_links = 0;
    while let Some(name) = rest.pop() {
        match name.as_slice() {
            b"" | b"." => continue,
            b".." => {
                at.truncate(at.iter().rposition(|it| *it == b'/').unwrap_or(0));
                continue;
            }
            name => {
                at.push(b'/');
                at.extend_from_slice(name);
            }
        }
        if at == b"/proc" || at == b"/dev" {
            return true;
        }
        let Ok(target) = rustix::fs::readlinkat(CWD, at.as_slice(), Vec::new()) else { continue };
        n_links += 1;
        if n_links > MAX_LINKS {
            return false;
        }
        let target = target.as_bytes();
        let parent = at.iter().rposition(|it| *it == b'/').unwrap_or(0);
        at.truncate(if target.starts_with(b"/") { 0 } else { parent });
        rest.extend(names(target));
    }
    false
}

fn read_link(path: &str) -> Result<Vec<u8>> {
    Ok(rustix::fs::readlinkat(CWD, path, Vec::new())?.into_bytes())
}

/// What has this name below a handle, or what the handle is itself.
fn held(handle: OwnedFd, name: &[u8]) -> Place {
    use std::os::fd::AsFd;
    let mut path = own_handle(handle.as_fd()).into_bytes();
    if !name.is_empty() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    let path = CString::new(path).unwrap_or_default();
    Place { path, follow: name.is_empty(), start: Start::Root, _handle: Some(handle) }
}

/// The handle that a path names by the process's own folder of `/proc`.
fn standard_handle(path: &[u8]) -> Option<i32> {
    let number = match path {
        b"/dev/stdin" => return Some(0),
        b"/dev/stdout" => return Some(1),
        b"/dev/stderr" => return Some(2),
        path => [&b"/proc/self/fd/"[..], b"/proc/thread-self/fd/", b"/dev/fd/"]
            .into_iter()
            .find_map(|prefix| path.strip_prefix(prefix))?,
    };
    std::str::from_utf8(number).ok()?.parse().ok()
}

/// The handle that a link leads to: `/var/log/access.log` to `/dev/stdout`, for example.
fn linked_handle(path: &CStr) -> Option<i32> {
    match rustix::fs::accessat(CWD, path, rustix::fs::Access::EXISTS, rustix::fs::AtFlags::empty())
    {
        Err(Errno::NOENT) => {}
        _ => return None,
    }
    let target = rustix::fs::readlinkat(CWD, path, Vec::new()).ok()?;
    standard_handle(target.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_names() {
        let split = |path: &str| {
            let given = Given { dir: 3, path: path.into() };
            given.split().map(|(parent, name)| {
                assert_eq!(parent.dir, 3);
                let text = |it: &[u8]| String::from_utf8(it.to_vec()).unwrap();
                (text(&parent.path), text(name))
            })
        };
        let pair = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        assert_eq!(split("a"), pair(".", "a"));
        assert_eq!(split("a/b//"), pair("a/", "b"));
        assert_eq!(split("/a"), pair("/", "a"));
        assert_eq!(split("//a/../b"), pair("//a/../", "b"));
        for path in ["", "/", ".", "a/..", "a/./"] {
            assert_eq!(split(path), None, "{path}");
        }
    }

    #[test]
    fn handles_by_name() {
        assert_eq!(standard_handle(b"/proc/self/fd/12"), Some(12));
        assert_eq!(standard_handle(b"/dev/stdout"), Some(1));
        assert_eq!(standard_handle(b"/proc/self/fd/1/x"), None);
        assert_eq!(standard_handle(b"/proc/self/cwd"), None);
    }
}
