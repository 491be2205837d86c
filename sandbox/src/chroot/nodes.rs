//! Devices where no node can be made: those of the container around, opened for whoever opens a path of `/dev`.
//!
//! It takes `CAP_MKNOD` to make a node, and a file system that is not mounted `nodev` to open one; a podman container has not the
//! first. So `/dev` of the sandbox has stand-ins, sockets, which cannot be opened, and the thread that answers for `/proc` ([`proc`](super::proc))
//! answers for them, too: by full path only, so a node that is reached by an open directory or a link is none. A process that has such a file open
//! could change mode and owner of the container's own node; they are as before when the sandbox has ended.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, makedev};
use rustix::io::{Errno, Result};

use super::caller::Asking;
use super::calls::What;
use crate::devices;
use crate::sys::notify::{self, FileStatus, Notification, Reply};

/// The nodes of the container that stand for those of a sandbox.
#[derive(Debug)]
pub(crate) struct Nodes(Vec<Node>);

/// One of them.
#[derive(Debug)]
pub(crate) struct Node {
    name: &'static CStr,
    path: CString,
    before: Stat,
}

impl Nodes {
    /// None: the sandbox has its own.
    pub(crate) fn none() -> &'static Self {
        static NONE: Nodes = Nodes(Vec::new());
        &NONE
    }

    /// Those that the container has. Found before the first sandbox can change them.
    pub(crate) fn of_container() -> &'static Self {
        static FOUND: OnceLock<Nodes> = OnceLock::new();
        FOUND.get_or_init(Self::find)
    }

    /// As far as they are what their names say.
    fn find() -> Self {
        let found = devices::NODES.into_iter().filter_map(|(name, major, minor)| {
            let path = CString::new([b"/dev/", name.to_bytes()].concat()).ok()?;
            let before = rustix::fs::lstat(&path).ok()?;
            let is_device = FileType::from_raw_mode(before.st_mode) == FileType::CharacterDevice;
            let is_it = is_device && before.st_rdev == makedev(major, minor);
            is_it.then_some(Node { name, path, before })
        });
        Self(found.collect())
    }

    /// The node at a path, as a process says it.
    pub(super) fn at(&self, path: &[u8]) -> Option<&Node> {
        if self.0.is_empty() || !path.starts_with(b"/") {
            return None;
        }
        let mut names = path.split(|it| *it == b'/').filter(|it| !it.is_empty() && *it != b".");
        let (folder, name, rest) = (names.next()?, names.next()?, names.next());
        let fits = |it: &&Node| it.name.to_bytes() == name;
        self.0.iter().find(fits).filter(|_| folder == b"dev" && rest.is_none())
    }

    /// Undoes what was done to them.
    pub(super) fn restore(&self) {
        for Node { path, before, .. } in &self.0 {
            let Ok(now) = rustix::fs::lstat(path) else { continue };
            if now.st_ino != before.st_ino || now.st_rdev != before.st_rdev {
                continue;
            }
            if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid) {
                let (uid, gid) = (Uid::from_raw(before.st_uid), Gid::from_raw(before.st_gid));
                let _ = rustix::fs::chown(path, Some(uid), Some(gid));
            }
            if now.st_mode != before.st_mode {
                let _ = rustix::fs::chmod(path, Mode::from_raw_mode(before.st_mode & 0o7777));
            }
        }
    }
}

impl Node {
    /// Answers a call about it; `None` if the answer was sent already. `flags` are those of a call that opens it.
    pub(super) fn answer(
        &self,
        listener: BorrowedFd<'_>,
        asked: &Notification,
        what: What,
        flags: u64,
        asking: &Asking,
    ) -> Result<Option<Reply>> {
        let (buffer, mut status) = match what {
            What::Open(_) | What::OpenHow => {
                let flags = OFlags::from_bits_retain(flags as u32);
                let Some(file) = self.open(flags)? else { return Ok(Some(Reply::Continue)) };
                let is_cloexec = flags.contains(OFlags::CLOEXEC);
                return notify::send_fd(listener, asked.id, file.as_fd(), is_cloexec)
                    .map(|()| None);
            }
            What::Access(mode) => {
                self.check(rustix::fs::Access::from_bits_truncate(asked.args[mode] as u32))?;
                return Ok(Some(Reply::Value(0)));
            }
            What::ReadLink(_) => return Err(Errno::INVAL),
            What::Attributes => return Err(Errno::NOTSUP),
            What::Execute => return Err(Errno::ACCESS),
            What::Stat(buffer, _) | What::LinkStat(buffer) => {
                (buffer, FileStatus::stat(&self.path, 0)?)
            }
            What::Statx => (4, FileStatus::statx(&self.path, 0, asked.args[3] as u32)?),
        };
        status.set_owner(0, 0);
        asking.write_memory(asked.args[buffer], status.bytes())?;
        Ok(Some(Reply::Value(0)))
    }

    /// Opens it with the flags of `open`; `None` if what stands in its place is to be opened.
    fn open(&self, wanted: OFlags) -> Result<Option<OwnedFd>> {
        if wanted.contains(OFlags::PATH) {
            return Ok(None);
        }
        if wanted.contains(OFlags::CREATE | OFlags::EXCL) {
            return Err(Errno::EXIST);
        }
        // The terminal of who asks, and it has none.
        if self.name == c"tty" {
            return Err(Errno::NXIO);
        }
        let own = OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NOFOLLOW;
        let flags = (wanted - (OFlags::CREATE | OFlags::TRUNC)) | own;
        let file = rustix::fs::open(&self.path, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&file)?;
        if stat.st_rdev == self.before.st_rdev { Ok(Some(file)) } else { Err(Errno::NXIO) }
    }

    /// Checks whether it may be used so by who this thread is.
    fn check(&self, rights: rustix::fs::Access) -> Result<()> {
        rustix::fs::accessat(rustix::fs::CWD, &self.path, rights, AtFlags::EACCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_found_by_their_full_path() {
        let nodes = Nodes::find();
        let at = |path: &str| nodes.at(path.as_bytes()).map(|it| it.name);
        assert_eq!(at("/dev/null"), Some(c"null"));
        assert_eq!(at("//dev/./zero"), Some(c"zero"));
        for path in
            ["/dev", "/dev/", "/dev/fd/1", "dev/null", "/dev/null/x", "/devnull", "/dev/sda"]
        {
            assert_eq!(at(path), None, "{path}");
        }
        assert!(Nodes::none().at(b"/dev/null").is_none());
    }

    #[test]
    fn nodes_are_opened_as_the_kernel_would() {
        let nodes = Nodes::find();
        let open = |path: &str, flags| nodes.at(path.as_bytes()).unwrap().open(flags);
        let made = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        assert!(open("/dev/null", made).unwrap().is_some());
        assert_eq!(open("/dev/null", made | OFlags::EXCL).unwrap_err(), Errno::EXIST);
        assert_eq!(open("/dev/tty", OFlags::RDWR).unwrap_err(), Errno::NXIO);
        assert!(open("/dev/null", OFlags::PATH).unwrap().is_none());
        let mut byte = [1_u8];
        let zero = open("/dev/zero", OFlags::RDONLY).unwrap().unwrap();
        assert_eq!(rustix::io::read(&zero, &mut byte), Ok(1));
        assert_eq!(byte, [0]);
    }
}
