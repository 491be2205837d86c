//! A folder of the user's: the build context, or a named one.
//!
//! Files are opened below the root's file descriptor and never through a link. Everything is root's, as every
//! builder has it; an ignore file hides what it matches. What was hashed is remembered by size, times and inode, so
//! that a second build reads nothing.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::File,
    io::Read,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::Mutex,
    time::{SystemTime, UNIX_EPOCH},
};

use image::{
    DiffId,
    entry::{Kind, Time},
};
use planner::ignore::Patterns;
use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, StatxFlags},
    io::Errno,
};

use super::{
    FileId, Found, Node, Stamp, Xattrs, join, lossy, scan,
    stat_cache::{CopyId, Known, KnownFiles, StatCache},
};
use crate::error::ExecutorError;

/// A local folder as a tree.
pub(crate) struct Folder {
    root: OwnedFd,
    path: PathBuf,
    ignore: Patterns,
    patterns: Vec<String>,
    cache: StatCache,
    /// What this build has hashed. Which of it may be trusted is decided when it is saved: see [`Folder::save`].
    hashed: Mutex<Vec<(Vec<u8>, Known)>>,
    /// The layers that copies of this build have made.
    made: Mutex<Vec<(CopyId, DiffId)>>,
    opened_at: u64,
    keeps_owners: bool,
}

/// The one attribute that a copy keeps.
const CAPABILITY: &str = "security.capability";

/// More than the kernel gives it.
const MAX_CAPABILITY: usize = 256;

const STAMP_WANTED: StatxFlags = StatxFlags::BASIC_STATS;

/// Files changed less than this before a scan are not remembered: a clock tick could hide another change.
const TICK: u64 = 20_000_000;

impl Folder {
    /// Opens `path`; `patterns` of an ignore file hide files, `cache` is what [`Folder::save`] returned after an earlier build.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::OpenContext`] if it is no folder that can be opened, [`ExecutorError::Patterns`].
    pub(crate) fn open_root(
        path: &Path,
        patterns: Vec<String>,
        cache: Option<Vec<u8>>,
    ) -> Result<Self, ExecutorError> {
        let ignore = Patterns::new(&patterns)?;
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::PATH;
        let root = rustix::fs::open(path, flags, Mode::empty()).map_err(|source| {
            ExecutorError::OpenContext { path: path.to_owned(), source: source.into() }
        })?;
        let cache = cache.map(StatCache::open).unwrap_or_default();
        let hashed = Mutex::default();
        Ok(Self {
            root,
            path: path.to_owned(),
            ignore,
            patterns,
            cache,
            hashed,
            made: Mutex::default(),
            opened_at: now(),
            keeps_owners: false,
        })
    }

    /// Opens a folder of kiln's own, whose owners count.
    pub(crate) fn open_owned(path: &Path) -> Result<Self, ExecutorError> {
        Ok(Self { keeps_owners: true, ..Self::open_root(path, Vec::new(), None)? })
    }

    /// The folder's path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The patterns that hide files.
    pub(crate) fn ignore(&self) -> &Patterns {
        &self.ignore
    }

    /// The pattern that hides a path.
    pub(crate) fn ignored_by(&self, path: &[u8]) -> Option<String> {
        self.patterns.get(self.ignore.which(path)?).cloned()
    }

    /// Returns the cache of hashes to keep for the next build; nothing if it did not change.
    pub(crate) fn save(&self) -> Option<Vec<u8>> {
        let mut files = std::mem::take(&mut *self.hashed.lock().ok()?);
        let mut made = std::mem::take(&mut *self.made.lock().ok()?);
        made.retain(|(copy, diff_id)| self.cache.made(copy) != Some(*diff_id));
        if files.is_empty() && made.is_empty() {
            return None;
        }
        files.retain(|(_, it)| it.stamp.ctime.max(it.stamp.mtime) + TICK < self.opened_at);
        self.cache.merged(files, made)
    }

    /// The layer that a copy made in an earlier build.
    pub(crate) fn made(&self, copy: &CopyId) -> Option<DiffId> {
        self.cache.made(copy)
    }

    /// Remembers the layer that a copy made.
    pub(crate) fn note_made(&self, copy: CopyId, diff_id: DiffId) {
        if let Ok(mut made) = self.made.lock() {
            made.push((copy, diff_id));
        }
    }

    /// What is known of the files in the folder at `path`.
    pub(super) fn known_files(&self, path: &[u8]) -> KnownFiles<'_> {
        self.cache.files(path)
    }

    /// Finds what is below the folder at `root` and chosen by `choose`.
    pub(super) fn list(
        &self,
        root: &[u8],
        choose: scan::Choose<'_>,
    ) -> Result<Vec<Found>, ExecutorError> {
        scan::scan(self, root, choose)
    }

    /// Hashes what [`list`](Self::list) found, all that is not known from an earlier build.
    pub(super) fn hash(&self, root: &[u8], found: &mut [Found]) -> Result<(), ExecutorError> {
        let n_unknown = found.iter().filter(|it| it.node.is_unknown_file()).count();
        if n_unknown == 0 {
            return Ok(());
        }
        if let Ok(mut hashed) = self.hashed.lock() {
            hashed.reserve_exact(n_unknown);
        }
        scan::hash(self, root, found)
    }

    pub(super) fn lookup(&self, path: &[u8]) -> Result<Option<Node>, ExecutorError> {
        let at = if path.is_empty() { b"." } else { path };
        let (parent, name) = match at.iter().rposition(|it| *it == b'/') {
            Some(slash) => (&at[..slash], &at[slash + 1..]),
            None => (&b"."[..], at),
        };
        let parent = match self.open_beneath(parent, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(parent) => parent,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(source) => return Err(self.read_error(path, source)),
        };
        let known = || self.cache.file(path);
        let Some(node) = self.node(&parent, name, path, true, known)? else { return Ok(None) };
        Ok(self.is_visible(path, &node)?.then_some(node))
    }

    pub(super) fn children(&self, path: &[u8]) -> Result<Vec<(Vec<u8>, Node)>, ExecutorError> {
        let mut found = Vec::new();
        let mut error = None;
        self.each_child(path, &mut |name, node| {
            let child = join(path, &name);
            match self.is_visible(&child, &node) {
                Ok(true) => found.push((name, node)),
                Ok(false) => {}
                Err(it) => error = Some(it),
            }
            error.is_none()
        })?;
        match error {
            Some(error) => Err(error),
            None => {
                found.sort_by(|a, b| a.0.cmp(&b.0));
                Ok(found)
            }
        }
    }

    /// The digest of a file that is not known from an earlier build.
    pub(super) fn content(&self, path: &[u8], node: &Node) -> Result<[u8; 32], ExecutorError> {
        self.read(path, &node.xattrs).map(|(content, _)| content)
    }

    /// Digest and attributes of a file that [`list`](Self::list) found and that is not known from an earlier build.
    pub(super) fn read_new(&self, path: &[u8], node: &mut Node) -> Result<(), ExecutorError> {
        let (content, xattrs) = self.read(path, &Xattrs::default())?;
        (node.content, node.xattrs) = (Some(content), xattrs);
        Ok(())
    }

    /// Digest and attributes of a file; those that are given, if any are.
    fn read(&self, path: &[u8], known: &Xattrs) -> Result<([u8; 32], Xattrs), ExecutorError> {
        let mut file = self.open(path)?;
        let mut value = [0_u8; MAX_CAPABILITY];
        let xattrs = match rustix::fs::fgetxattr(&file, CAPABILITY, &mut value[..]) {
            Ok(len) if known.is_empty() => {
                BTreeMap::from([(CAPABILITY.into(), value[..len].to_vec())]).into()
            }
            _ => known.clone(),
        };
        // The time of what is read, not of what was seen earlier.
        let status = rustix::fs::statx(&file, "", AtFlags::EMPTY_PATH, STAMP_WANTED)
            .map_err(|source| self.read_error(path, source))?;
        let stamp = stamp_of(&status);
        let content = hash_file(&mut file)
            .map_err(|source| ExecutorError::Read { path: lossy(path), source })?;
        if let Ok(mut hashed) = self.hashed.lock() {
            let has_capability = !xattrs.is_empty();
            hashed.push((path.to_vec(), Known { stamp, content, has_capability }));
        }
        Ok((content, xattrs))
    }

    pub(super) fn open(&self, path: &[u8]) -> Result<File, ExecutorError> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let failed = |source| self.read_error(path, source);
        let file = match self.open_beneath(path, flags) {
            // What was a file is gone, or a link or a folder by now.
            Err(Errno::LOOP | Errno::NOTDIR | Errno::NOENT | Errno::NXIO) => {
                return Err(ExecutorError::Changed { path: lossy(path) });
            }
            file => file.map_err(failed)?,
        };
        match FileType::from_raw_mode(rustix::fs::fstat(&file).map_err(failed)?.st_mode) {
            FileType::RegularFile => Ok(File::from(file)),
            _ => Err(ExecutorError::Changed { path: lossy(path) }),
        }
    }

    pub(super) fn open_beneath(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(
            &self.root,
            OsStr::from_bytes(path),
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        )
    }

    /// Calls `each` for what is in a folder, hidden or not, until it returns false.
    fn each_child(
        &self,
        path: &[u8],
        each: &mut dyn FnMut(Vec<u8>, Node) -> bool,
    ) -> Result<(), ExecutorError> {
        let fd = self
            .open_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(|source| self.read_error(path, source))?;
        let mut entries = Dir::read_from(&fd).map_err(|source| self.read_error(path, source))?;
        while let Some(entry) = entries.read() {
            let entry = entry.map_err(|source| self.read_error(path, source))?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            // A file that vanished since is no error: it is not there.
            let known = || self.cache.file(&join(path, name));
            if let Some(node) = self.node(&fd, name, &join(path, name), true, known)?
                && !each(name.to_vec(), node)
            {
                break;
            }
        }
        Ok(())
    }

    /// Looks at `name` in the folder `parent`. A file that is not known has its attributes only if they are asked for. `known` says what is known of `path`, which is its path below the root.
    pub(super) fn node<'a>(
        &self,
        parent: &OwnedFd,
        name: impl rustix::path::Arg + Copy + 'a,
        path: &[u8],
        with_xattrs: bool,
        known: impl FnOnce() -> Option<Known>,
    ) -> Result<Option<Node>, ExecutorError> {
        let status = match rustix::fs::statx(parent, name, AtFlags::SYMLINK_NOFOLLOW, STAMP_WANTED)
        {
            Ok(status) => status,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(source) => return Err(self.read_error(path, source)),
        };
        let file_type = FileType::from_raw_mode(u32::from(status.stx_mode));
        let (major, minor) = (status.stx_rdev_major, status.stx_rdev_minor);
        let kind = match file_type {
            FileType::RegularFile => Kind::File { size: status.stx_size },
            FileType::Directory => Kind::Directory,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(parent, name, Vec::new())
                    .map_err(|source| self.read_error(path, source))?;
                Kind::Symlink { target: target.into_bytes() }
            }
            FileType::Fifo => Kind::Fifo,
            FileType::CharacterDevice => Kind::CharDevice { major, minor },
            FileType::BlockDevice => Kind::BlockDevice { major, minor },
            // A layer cannot hold a socket. As with BuildKit, an empty file stands for it.
            FileType::Socket => Kind::File { size: 0 },
            _ => return Ok(None),
        };
        let is_file = file_type == FileType::RegularFile;
        let is_shared = status.stx_nlink > 1 && is_file;
        let device = u64::from(status.stx_dev_major) << 32 | u64::from(status.stx_dev_minor);
        let stamp = is_file.then(|| stamp_of(&status));
        let known = stamp.and_then(|stamp| known().filter(|it| it.stamp == stamp));
        let xattrs = match known {
            Some(Known { has_capability: false, .. }) => Xattrs::default(),
            Some(_) => xattrs(parent, super::last_name(path)),
            None if is_file && with_xattrs => xattrs(parent, super::last_name(path)),
            _ => Xattrs::default(),
        };
        let (uid, gid) = match self.keeps_owners {
            true => (status.stx_uid, status.stx_gid),
            false => (0, 0),
        };
        Ok(Some(Node {
            kind,
            mode: u32::from(status.stx_mode) & 0o7777,
            uid,
            gid,
            mtime: Time { secs: status.stx_mtime.tv_sec, nanos: status.stx_mtime.tv_nsec },
            xattrs,
            file_id: is_shared.then(|| Box::new(FileId::Inode(device, status.stx_ino))),
            is_on_disk: is_file,
            content: known.map(|it| it.content),
        }))
    }

    /// Whether the ignore file lets `path` be seen; a hidden folder is seen if something below it is.
    fn is_visible(&self, path: &[u8], node: &Node) -> Result<bool, ExecutorError> {
        if path.is_empty() || self.ignore.is_empty() || !self.ignore.matches(path) {
            return Ok(true);
        }
        Ok(node.is_dir() && self.ignore.may_descend(path) && self.has_visible(path)?)
    }

    fn has_visible(&self, folder: &[u8]) -> Result<bool, ExecutorError> {
        let mut found = Ok(false);
        self.each_child(folder, &mut |name, node| {
            found = self.is_visible(&join(folder, &name), &node);
            matches!(found, Ok(false))
        })?;
        found
    }

    pub(super) fn read_error(&self, path: &[u8], source: Errno) -> ExecutorError {
        ExecutorError::Read {
            path: self.path.join(OsStr::from_bytes(path)).to_string_lossy().into_owned(),
            source: source.into(),
        }
    }
}

/// The attributes of a file that a copy keeps. By way of the open folder: its path may lead elsewhere by now.
fn xattrs(folder: &OwnedFd, name: &[u8]) -> Xattrs {
    let mut full = format!("/proc/self/fd/{}/", folder.as_raw_fd()).into_bytes();
    full.extend_from_slice(name);
    let mut value = [0_u8; MAX_CAPABILITY];
    match rustix::fs::lgetxattr(full.as_slice(), CAPABILITY, &mut value[..]) {
        Ok(len) => BTreeMap::from([(CAPABILITY.into(), value[..len].to_vec())]).into(),
        Err(_) => Xattrs::default(),
    }
}

/// The BLAKE3 of all of a file.
pub(crate) fn hash_file(file: &mut impl Read) -> std::io::Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = [0_u8; 64 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().into()),
            n => hasher.update(&buffer[..n]),
        };
    }
}

fn stamp_of(status: &rustix::fs::Statx) -> Stamp {
    let nanos = |time: &rustix::fs::StatxTimestamp| {
        u64::try_from(time.tv_sec).unwrap_or(0).wrapping_mul(1_000_000_000)
            + u64::from(time.tv_nsec)
    };
    Stamp {
        size: status.stx_size,
        mtime: nanos(&status.stx_mtime),
        ctime: nanos(&status.stx_ctime),
        inode: status.stx_ino,
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
