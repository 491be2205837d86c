//! Owners of what can hold no attribute: symbolic links and pipes, and everything on a file system without attributes.
//!
//! Those of the layers below come from the caller, by path, since no path of a layer below can change without being copied up.
//! What is in the upper directory, or in another mount, is known by its inode. Inode numbers are used again; the time at which
//! an inode was made tells them apart.

use std::collections::HashMap;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, StatxFlags};
use rustix::io::{Errno, Result};

use super::caller::own_handle;

/// A file, whatever its name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Inode {
    /// Its number.
    pub number: u64,
    /// When it was made: seconds and nanoseconds; zero on a file system that does not say.
    pub made: (i64, u32),
}

/// Owners of links and pipes of an upper directory: user and group.
pub type LinkOwners = HashMap<Inode, (u32, u32)>;

/// What is known of all of them.
pub(crate) struct Links {
    /// By path from the root, without a slash in front.
    lower: HashMap<Vec<u8>, (u32, u32)>,
    upper: LinkOwners,
    /// Those outside of the overlay, by device.
    elsewhere: HashMap<(u32, u32, Inode), (u32, u32)>,
    /// The upper directory and the number of the root's mount.
    overlay: Option<(OwnedFd, u64)>,
}

/// Where one of them is kept.
enum Key {
    Lower(Vec<u8>),
    Upper(Inode),
    Elsewhere((u32, u32, Inode)),
}

const WANTED: StatxFlags =
    StatxFlags::BASIC_STATS.union(StatxFlags::BTIME).union(StatxFlags::MNT_ID);

impl Links {
    /// Starts with those of the layers below. `root` is the overlay, `upper` its upper directory.
    pub(crate) fn new(
        lower: impl IntoIterator<Item = (Vec<u8>, (u32, u32))>,
        root: BorrowedFd<'_>,
        upper: Option<OwnedFd>,
    ) -> Result<Self> {
        let overlay = match upper {
            Some(upper) => {
                let root = rustix::fs::statx(root, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
                Some((upper, root.stx_mnt_id))
            }
            None => None,
        };
        let lower = lower.into_iter().collect();
        Ok(Self { lower, upper: HashMap::new(), elsewhere: HashMap::new(), overlay })
    }

    /// Whether nothing is known, so that nothing needs to be looked up.
    pub(crate) fn is_empty(&self) -> bool {
        self.lower.is_empty() && self.upper.is_empty() && self.elsewhere.is_empty()
    }

    /// Whether something of the layers below is known.
    pub(crate) fn has_lower(&self) -> bool {
        !self.lower.is_empty()
    }

    /// The owner of an open file, if it is known.
    pub(crate) fn get(&self, file: BorrowedFd<'_>) -> Result<Option<(u32, u32)>> {
        Ok(match self.key(file)? {
            (Key::Upper(inode), path) => match (self.upper.get(&inode), path) {
                (Some(owner), _) => Some(*owner),
                (None, Some(path)) => self.lower.get(&path).copied(),
                (None, None) => None,
            },
            (Key::Lower(path), _) => self.lower.get(&path).copied(),
            (Key::Elsewhere(key), _) => self.elsewhere.get(&key).copied(),
        })
    }

    /// Remembers the owner of an open file, which is not one of the layers below any more.
    pub(crate) fn set(&mut self, file: BorrowedFd<'_>, owner: (u32, u32)) -> Result<()> {
        match self.key(file)?.0 {
            Key::Upper(inode) => drop(self.upper.insert(inode, owner)),
            Key::Elsewhere(key) => drop(self.elsewhere.insert(key, owner)),
            Key::Lower(_) => return Err(Errno::ROFS),
        }
        Ok(())
    }

    /// Those of the upper directory.
    pub(crate) fn into_upper(self) -> LinkOwners {
        self.upper
    }

    fn key(&self, file: BorrowedFd<'_>) -> Result<(Key, Option<Vec<u8>>)> {
        let stat = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, WANTED)?;
        if let Some((upper, mount)) = &self.overlay
            && stat.stx_mnt_id == *mount
        {
            let path = rustix::fs::readlinkat(rustix::fs::CWD, own_handle(file), Vec::new())?;
            let path = path.as_bytes().strip_prefix(b"/").ok_or(Errno::NOENT)?.to_vec();
            return match inode_at(upper.as_fd(), &path) {
                Ok(inode) => Ok((Key::Upper(inode), Some(path))),
                Err(Errno::NOENT | Errno::NOTDIR) => Ok((Key::Lower(path), None)),
                Err(errno) => Err(errno),
            };
        }
        let inode = inode(&stat);
        Ok((Key::Elsewhere((stat.stx_dev_major, stat.stx_dev_minor, inode)), None))
    }
}

fn inode(stat: &rustix::fs::Statx) -> Inode {
    Inode { number: stat.stx_ino, made: (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec) }
}

/// Only overlayfs writes to the upper directory, so no part of the path is a link that it is not in the overlay, too.
fn inode_at(upper: BorrowedFd<'_>, path: &[u8]) -> Result<Inode> {
    let path: &CStr = &std::ffi::CString::new(path).map_err(|_| Errno::INVAL)?;
    rustix::fs::statx(upper, path, AtFlags::SYMLINK_NOFOLLOW, WANTED).map(|stat| inode(&stat))
}
