//! What a tree was like before a process changed it, so that what it changed is found without overlay's help.
//!
//! Whoever changes a file changes the time of its inode (`ctime`), which nobody can set. So for each name in the tree its inode and that
//! time are remembered; what has the same afterwards is the same. A folder that was removed and made again is another folder, as it
//! is for overlay, though it may get the number of the old one: that shows in its time of birth.

use std::{
    collections::HashMap,
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    time::Duration,
};

use image::layer::join_path;
use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags, RawDir, Stat, Statx, StatxFlags, Timespec, Timestamps,
        futimens, open, openat, statx,
    },
    io::Errno,
};

use crate::{
    below::OPEN_FOLDER,
    error::{IoContext, StoreError},
};

/// Seconds and nanoseconds.
type Instant = (i64, u32);

/// A tree at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    folders: HashMap<Vec<u8>, Folder>,
}

#[derive(Debug)]
struct Folder {
    inode: u64,
    born: Option<Instant>,
    /// Sorted by name.
    names: Vec<(Box<[u8]>, Known)>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    inode: u64,
    changed: Instant,
}

impl Snapshot {
    /// Looks at all of the tree at `root`, and waits until the clock of its file system has gone on, so that every later change
    /// shows. `probe` is a path on the same file system at which nothing is.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] or [`StoreError::EntryIo`] if the tree cannot be read.
    pub fn take(root: &Path, probe: &Path) -> Result<Self, StoreError> {
        let mut snapshot = Self::default();
        let mut latest = (0, 0);
        let fd = open(root, OPEN_FOLDER, Mode::empty()).at("open", root)?;
        let mut pending = vec![(Vec::new(), fd, Vec::new().into_iter())];
        snapshot.list(&mut pending, &mut latest)?;
        while let Some((path, fd, folders)) = pending.last_mut() {
            let Some(name) = folders.next() else {
                pending.pop();
                continue;
            };
            let name: Vec<u8> = name;
            let path = join_path(path, &name);
            let fd = openat(&*fd, name.as_slice(), OPEN_FOLDER, Mode::empty()).of("open", &path)?;
            pending.push((path, fd, Vec::new().into_iter()));
            snapshot.list(&mut pending, &mut latest)?;
        }
        wait_until_after(latest, probe)?;
        Ok(snapshot)
    }

    /// Remembers the names in the last of `pending`, and which of them are folders.
    fn list(&mut self, pending: &mut [Pending], latest: &mut Instant) -> Result<(), StoreError> {
        let Some((path, fd, folders)) = pending.last_mut() else { return Ok(()) };
        let own = look(&*fd, b".").of("read", path)?;
        let (mut names, mut found) = (Vec::new(), Vec::new());
        let mut buffer = vec![MaybeUninit::uninit(); 32 * 1024];
        let mut listing = RawDir::new(&*fd, &mut buffer);
        while let Some(entry) = listing.next() {
            let entry = entry.of("list", path)?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let status = look(&*fd, name).of("read", &join_path(path, name))?;
            let changed = instant(&status.stx_ctime);
            *latest = changed.max(*latest);
            if FileType::from_raw_mode(status.stx_mode.into()) == FileType::Directory {
                found.push(name.to_vec());
            }
            names.push((name.into(), Known { inode: status.stx_ino, changed }));
        }
        names.sort_unstable_by(|a: &(Box<[u8]>, Known), b| a.0.cmp(&b.0));
        self.folders.insert(path.clone(), Folder { inode: own.stx_ino, born: born(&own), names });
        *folders = found.into_iter();
        Ok(())
    }

    /// The names that were in the folder, sorted.
    pub(crate) fn names(&self, folder: &[u8]) -> impl Iterator<Item = &[u8]> {
        self.folders.get(folder).into_iter().flat_map(|it| &it.names).map(|(name, _)| &**name)
    }

    /// Tells whether what is at this place was there, and is as it was.
    pub(crate) fn is_unchanged(&self, folder: &[u8], name: &[u8], stat: &Stat) -> bool {
        let changed = (stat.st_ctime, u32::try_from(stat.st_ctime_nsec).unwrap_or(0));
        self.find(folder, name).is_some_and(|it| it.inode == stat.st_ino && it.changed == changed)
    }

    /// Tells whether the open folder was at this path.
    pub(crate) fn is_same_folder(&self, path: &[u8], fd: &OwnedFd) -> Result<bool, Errno> {
        let Some(known) = self.folders.get(path) else { return Ok(false) };
        let status = look(fd, b".")?;
        Ok(known.inode == status.stx_ino && known.born == born(&status))
    }

    fn find(&self, folder: &[u8], name: &[u8]) -> Option<Known> {
        let names = &self.folders.get(folder)?.names;
        let at = names.binary_search_by(|(it, _)| it.as_ref().cmp(name)).ok()?;
        Some(names[at].1)
    }
}

/// A folder whose names are known, and those of its folders that were not visited yet.
type Pending = (Vec<u8>, OwnedFd, std::vec::IntoIter<Vec<u8>>);

fn look(folder: impl AsFd, name: &[u8]) -> Result<Statx, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    statx(folder, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)
}

fn instant(time: &rustix::fs::StatxTimestamp) -> Instant {
    (time.tv_sec, time.tv_nsec)
}

fn born(status: &Statx) -> Option<Instant> {
    let is_known = status.stx_mask & StatxFlags::BTIME.bits() != 0;
    is_known.then(|| instant(&status.stx_btime))
}

/// Waits until a change that is made now gets a later time than `latest`.
fn wait_until_after(latest: Instant, probe: &Path) -> Result<(), StoreError> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = open(probe, flags, Mode::RUSR).at("create", probe)?;
    let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    let now = Timestamps { last_access: now, last_modification: now };
    // Clocks of file systems go on every few milliseconds; one that stands behind what it has given out is not waited for.
    for _ in 0..100 {
        futimens(&file, &now).at("set the time of", probe)?;
        let status = statx(&file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS);
        if instant(&status.at("read", probe)?.stx_ctime) > latest {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    rustix::fs::unlink(probe).at("remove", probe)
}
