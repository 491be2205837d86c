//! Files and folders put where a mount would be, and taken away again.
//!
//! What the tree has in such a place is moved aside meanwhile. Directories that this changes get their times back, so that
//! nothing of it can be told from the tree afterwards. All of it goes by handles on directories, in a tree at rest: before the
//! first process starts in it, and after the last has ended.

use std::ffi::CString;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::{Errno, Result};

use crate::inside::{self, Components};

/// Everything that was put into a tree. Taken away when this is dropped.
#[derive(Debug)]
pub(crate) struct Placed {
    root: OwnedFd,
    /// A directory outside of the tree, on the same file system.
    aside: OwnedFd,
    n_aside: usize,
    items: Vec<Item>,
}

#[derive(Debug)]
struct Item {
    parent: OwnedFd,
    name: CString,
    what: What,
    /// The name in `aside` of what was there before.
    saved: Option<CString>,
}

#[derive(Debug)]
enum What {
    /// A directory on the way, which stays if something else is in it by now.
    Way,
    /// Goes with all that is in it. A file is emptied first, in case it has another name by now.
    Own(Option<OwnedFd>),
    /// Goes back where it came from.
    Lent { handle: OwnedFd, from: PathBuf },
}

/// How a place in the tree is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It must be of the right kind, or missing; links are followed.
    Exact,
    /// It may be anything; links are followed.
    Any,
    /// It may be anything, a link too, and is right below the root.
    Top,
}

/// A place that is free.
struct Spot {
    parent: OwnedFd,
    name: CString,
    saved: Option<CString>,
    times: Timestamps,
}

impl Placed {
    /// Starts with nothing in the tree `root`. `aside` is an empty directory outside of it, on the same file system.
    pub(crate) fn new(root: &OwnedFd, aside: &Path) -> Result<Self> {
        let root = root.try_clone().map_err(|_| Errno::MFILE)?;
        let aside = inside::open_dir(aside)?;
        Ok(Self { root, aside, n_aside: 0, items: Vec::new() })
    }

    /// Puts an empty directory in a place.
    pub(crate) fn directory(
        &mut self,
        path: &Components,
        kind: Kind,
        mode: u32,
    ) -> Result<OwnedFd> {
        let spot = self.free(path, kind, true)?;
        let mode = Mode::from_raw_mode(mode);
        rustix::fs::mkdirat(&spot.parent, &spot.name, Mode::RWXU)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&spot.parent, &spot.name, flags, Mode::empty())?;
        rustix::fs::fchmod(&made, mode)?;
        self.keep(spot, What::Own(None))?;
        Ok(made)
    }

    /// Puts a file in a place.
    pub(crate) fn file(
        &mut self,
        path: &Components,
        kind: Kind,
        content: &[u8],
        (mode, uid, gid): (u32, u32, u32),
    ) -> std::io::Result<()> {
        let spot = self.free(path, kind, false)?;
        // No handle that can write stays open: a script could not be executed.
        drop(new_file(spot.parent.as_fd(), &spot.name, content, (mode, uid, gid))?);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&spot.parent, &spot.name, flags, Mode::empty())?;
        Ok(self.keep(spot, What::Own(Some(made)))?)
    }

    /// Moves something from outside of the tree to a place, and back in the end if it is `lent`.
    pub(crate) fn moved(&mut self, path: &Components, from: &Path, lent: bool) -> Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = rustix::fs::open(from, flags, Mode::empty())?;
        let is_dir = inside::file_type(handle.as_fd())? == FileType::Directory;
        let spot = self.free(path, Kind::Exact, is_dir)?;
        rustix::fs::renameat(inside::HERE, from, &spot.parent, &spot.name)?;
        let what = match lent {
            true => What::Lent { handle, from: from.to_owned() },
            false => What::Own(None),
        };
        self.keep(spot, what)
    }

    /// Gives a socket from outside of the tree a name in it.
    pub(crate) fn socket(&mut self, path: &Components, from: &Path) -> Result<()> {
        let spot = self.free(path, Kind::Exact, false)?;
        rustix::fs::linkat(inside::HERE, from, &spot.parent, &spot.name, AtFlags::empty())?;
        self.keep(spot, What::Own(None))
    }

    /// Makes room: moves aside what is there, and makes the directories that lead there.
    fn free(&mut self, path: &Components, kind: Kind, is_dir: bool) -> Result<Spot> {
        let (path, n_existing, found) = match kind {
            Kind::Top => (path.clone(), 0, self.look_at(path)?),
            _ => {
                let resolved = inside::resolve(self.root.as_fd(), path)?;
                (resolved.path, resolved.n_existing, resolved.kind)
            }
        };
        if let (Kind::Exact, Some(found)) = (kind, found)
            && (found == FileType::Directory) != is_dir
        {
            return Err(if is_dir { Errno::NOTDIR } else { Errno::ISDIR });
        }
        let Some((last, above)) = path.split_last() else { return Err(Errno::BUSY) };
        for n in n_existing + 1..=above.len() {
            let (name, parent) = (&path[n - 1], self.open(&path[..n - 1])?);
            let times = times(&parent)?;
            let name = c_name(name)?;
            rustix::fs::mkdirat(&parent, &name, Mode::from_raw_mode(0o755))?;
            rustix::fs::chmodat(&parent, &name, Mode::from_raw_mode(0o755), AtFlags::empty())?;
            self.keep(Spot { parent, name, saved: None, times }, What::Way)?;
        }
        let parent = self.open(above)?;
        let times = times(&parent)?;
        let name = c_name(last)?;
        let mut saved = None;
        if found.is_some() {
            self.n_aside += 1;
            let aside = CString::new(format!("aside{}", self.n_aside)).unwrap_or_default();
            rustix::fs::renameat(&parent, &name, &self.aside, &aside)?;
            saved = Some(aside);
        }
        Ok(Spot { parent, name, saved, times })
    }

    fn look_at(&self, path: &Components) -> Result<Option<FileType>> {
        let path = inside::join(path)?;
        match rustix::fs::statat(&self.root, &path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    fn open(&self, path: &[Vec<u8>]) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        inside::open_with(self.root.as_fd(), inside::join(path)?.as_c_str(), flags)
    }

    fn keep(&mut self, spot: Spot, what: What) -> Result<()> {
        let Spot { parent, name, saved, times } = spot;
        rustix::fs::futimens(&parent, &times)?;
        self.items.push(Item { parent, name, what, saved });
        Ok(())
    }

    /// Takes everything away, the last first. What a process has done to a place in the meantime is no obstacle.
    fn remove(&mut self) {
        while let Some(item) = self.items.pop() {
            let before = times(&item.parent);
            item.remove();
            if let Some(saved) = &item.saved {
                // Fails if the directory is gone; then what was in it is gone, too.
                let _ = rustix::fs::renameat(&self.aside, saved, &item.parent, &item.name);
            }
            if let Ok(before) = before {
                let _ = rustix::fs::futimens(&item.parent, &before);
            }
        }
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        self.remove();
    }
}

impl Item {
    fn remove(&self) {
        let stat = rustix::fs::statat(&self.parent, &self.name, AtFlags::SYMLINK_NOFOLLOW);
        match &self.what {
            What::Way => {
                let _ = rustix::fs::unlinkat(&self.parent, &self.name, AtFlags::REMOVEDIR);
                return;
            }
            What::Own(None) => {}
            What::Own(Some(file)) => {
                let again = format!("/proc/self/fd/{}", file.as_raw_fd());
                let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC;
                let _ = rustix::fs::open(again, flags, Mode::empty());
            }
            What::Lent { handle, from } => {
                let is_same = |stat: &Stat| {
                    rustix::fs::fstat(handle)
                        .is_ok_and(|it| (it.st_dev, it.st_ino) == (stat.st_dev, stat.st_ino))
                };
                if stat.as_ref().is_ok_and(is_same)
                    && rustix::fs::renameat(&self.parent, &self.name, inside::HERE, from).is_ok()
                {
                    return;
                }
            }
        }
        match stat {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                let name = std::os::unix::ffi::OsStrExt::from_bytes(self.name.to_bytes());
                let name: &std::ffi::OsStr = name;
                let folder = format!("/proc/self/fd/{}", self.parent.as_raw_fd());
                let _ = inside::remove_all(&Path::new(&folder).join(name));
            }
            Ok(_) => drop(rustix::fs::unlinkat(&self.parent, &self.name, AtFlags::empty())),
            Err(_) => {}
        }
    }
}

/// Makes a file with exactly this mode and owner.
pub(crate) fn new_file(
    parent: BorrowedFd<'_>,
    name: impl rustix::path::Arg,
    content: &[u8],
    (mode, uid, gid): (u32, u32, u32),
) -> std::io::Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))?;
    let mut file = std::fs::File::from(file);
    file.write_all(content)?;
    if (uid, gid) != (0, 0) {
        std::os::unix::fs::fchown(&file, Some(uid), Some(gid))?;
    }
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777))?;
    Ok(file.into())
}

fn c_name(name: &[u8]) -> Result<CString> {
    CString::new(name).map_err(|_| Errno::INVAL)
}

fn times(fd: &OwnedFd) -> Result<Timestamps> {
    let stat = rustix::fs::fstat(fd)?;
    Ok(Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn path(text: &str) -> Components {
        inside::components(Path::new(text))
    }

    #[test]
    fn what_was_there_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, aside, lent) =
            (dir.path().join("tree"), dir.path().join("aside"), dir.path().join("lent"));
        for it in [&tree.join("etc"), &tree.join("real"), &aside, &lent] {
            std::fs::create_dir_all(it).unwrap();
        }
        std::fs::write(tree.join("etc/hosts"), "old").unwrap();
        std::os::unix::fs::symlink("real", tree.join("link")).unwrap();
        std::os::unix::fs::symlink("/nowhere", tree.join("dev")).unwrap();
        let old = |name: &str| tree.join(name).metadata().unwrap();
        let before = ["", "etc", "real"].map(|it| (old(it).mtime(), old(it).mtime_nsec()));

        let root = inside::open_dir(&tree).unwrap();
        let mut placed = Placed::new(&root, &aside).unwrap();
        placed.directory(&path("/dev"), Kind::Top, 0o755).unwrap();
        placed.file(&path("/dev/x"), Kind::Exact, b"x", (0o600, 0, 0)).unwrap();
        placed.file(&path("/etc/hosts"), Kind::Any, b"new", (0o644, 0, 0)).unwrap();
        placed.file(&path("/run/secrets/a"), Kind::Exact, b"secret", (0o400, 0, 0)).unwrap();
        placed.moved(&path("/link/cache"), &lent, true).unwrap();
        assert_eq!(
            placed.directory(&path("/etc/hosts"), Kind::Exact, 0o755).err(),
            Some(Errno::NOTDIR)
        );
        assert_eq!(std::fs::read(tree.join("etc/hosts")).unwrap(), b"new");
        std::fs::write(tree.join("real/cache/kept"), "").unwrap();
        std::fs::hard_link(tree.join("run/secrets/a"), tree.join("run/stolen")).unwrap();
        drop(placed);

        assert_eq!(std::fs::read(tree.join("etc/hosts")).unwrap(), b"old");
        assert_eq!(std::fs::read_link(tree.join("dev")).unwrap(), Path::new("/nowhere"));
        assert!(lent.join("kept").exists() && !tree.join("real/cache").exists());
        assert!(!tree.join("run/secrets").exists());
        assert_eq!(std::fs::read(tree.join("run/stolen")).unwrap(), b"", "it was emptied");
        assert_eq!(std::fs::read_dir(&aside).unwrap().count(), 0);
        let after = ["", "etc", "real"].map(|it| (old(it).mtime(), old(it).mtime_nsec()));
        assert_eq!(before[1..], after[1..]);
    }
}
