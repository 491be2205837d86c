//! File trees out of the store: into a folder, or as a plain tar.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs,
    io::{self, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use image::{
    digest::HashingBeside,
    entry::{Entry, Kind, Time},
    layer::TarWriter,
};
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps},
    io::Errno,
};

use crate::{
    attest::Subject,
    error::ExecutorError,
    time::Timestamp,
    tree::{FileId, Node, Tree, join, last_name, lossy},
};

/// Writes what is in the folder `path` of a tree (or the file at `path`) into the folder `dest`. Owners are kept with
/// `keep_owners`, else everything is the caller's. Times later than `latest` are brought down to it.
pub(crate) fn write_folder(
    tree: &Tree,
    path: &[u8],
    dest: &Path,
    keep_owners: bool,
    latest: Option<i64>,
) -> Result<(), ExecutorError> {
    let real = tree.resolve(path, true)?;
    let Some(node) = tree.lookup(&real)? else {
        return Err(ExecutorError::NotFound { path: lossy(&real) });
    };
    let failed = |source: io::Error| ExecutorError::Write { path: dest.to_owned(), source };
    if node.is_dir() {
        fs::create_dir_all(dest).map_err(failed)?;
    }
    let root = rustix::fs::open(dest, FOLDER & !OFlags::NOFOLLOW, Mode::empty())
        .map_err(|errno| failed(errno.into()))?;
    let mut writer =
        FolderWriter { tree, dest, root, keep_owners, latest, first_names: HashMap::new() };
    if node.is_dir() {
        writer.below(&real)
    } else {
        let name = last_name(&real).to_vec();
        let root = writer.root.try_clone().map_err(failed)?;
        writer.leaf(&root, &real, &name, &name, &node)
    }
}

const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const NEW_FILE: OFlags = OFlags::WRONLY
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Writes below an open folder and never through a link. A tree may be deeper than a path can say, or a stack.
struct FolderWriter<'a> {
    tree: &'a Tree,
    dest: &'a Path,
    root: OwnedFd,
    keep_owners: bool,
    latest: Option<i64>,
    /// The first name of each file that has several, below `dest`.
    first_names: HashMap<FileId, Vec<u8>>,
}

/// A folder that is being written.
struct Level {
    /// Its place in the tree and below `dest`.
    path: Vec<u8>,
    written: Vec<u8>,
    node: Option<Node>,
    rest: std::vec::IntoIter<(Vec<u8>, Node)>,
}

impl FolderWriter<'_> {
    /// Writes all that is in the folder at `path`.
    fn below(&mut self, path: &[u8]) -> Result<(), ExecutorError> {
        let rest = self.tree.children(path)?.into_iter();
        let mut here = self.root.try_clone().map_err(|source| self.failed(b"", source))?;
        let mut levels = vec![Level { path: path.to_vec(), written: Vec::new(), node: None, rest }];
        while let Some(level) = levels.last_mut() {
            let Some((name, node)) = level.rest.next() else {
                let Some(Level { written, node: Some(node), .. }) = levels.pop() else { break };
                // First, since the mode of a folder may keep its owner from passing through it.
                let above = rustix::fs::openat(&here, "..", FOLDER, Mode::empty());
                let done = above
                    .map_err(io::Error::from)
                    .and_then(|it| self.set_of_folder(&here, &node).map(|()| it));
                here = done.map_err(|it| self.failed(&written, it))?;
                continue;
            };
            let (path, written) = (join(&level.path, &name), join(&level.written, &name));
            if node.is_dir() {
                here = self.folder(&here, &name).map_err(|it| self.failed(&written, it))?;
                let rest = self.tree.children(&path)?.into_iter();
                levels.push(Level { path, written, node: Some(node), rest });
            } else {
                self.leaf(&here, &path, &name, &written, &node)?;
            }
        }
        Ok(())
    }

    fn failed(&self, written: &[u8], source: io::Error) -> ExecutorError {
        let path = self.dest.join(OsStr::from_bytes(written));
        ExecutorError::Write { path, source }
    }

    /// Makes a folder, or takes the one that is there.
    fn folder(&self, here: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
        let name = OsStr::from_bytes(name);
        match rustix::fs::openat(here, name, FOLDER, Mode::empty()) {
            Ok(folder) => return Ok(folder),
            Err(Errno::NOENT) => {}
            Err(Errno::NOTDIR | Errno::LOOP) => {
                rustix::fs::unlinkat(here, name, AtFlags::empty())?;
            }
            Err(errno) => return Err(errno.into()),
        }
        rustix::fs::mkdirat(here, name, Mode::from_raw_mode(0o777))?;
        Ok(rustix::fs::openat(here, name, FOLDER, Mode::empty())?)
    }

    /// Writes what is no folder. What is there already gives way.
    fn leaf(
        &mut self,
        here: &OwnedFd,
        path: &[u8],
        name: &[u8],
        written: &[u8],
        node: &Node,
    ) -> Result<(), ExecutorError> {
        let os_name = OsStr::from_bytes(name);
        let failed = |source| {
            let path = self.dest.join(OsStr::from_bytes(written));
            ExecutorError::Write { path, source }
        };
        let refused = |errno: Errno| failed(errno.into());
        match rustix::fs::unlinkat(here, os_name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => fs::remove_dir_all(through(here, name)).map_err(failed)?,
            Err(errno) => return Err(refused(errno)),
        }
        match &node.kind {
            Kind::File { .. } => {
                if let Some(first) =
                    node.file_id.as_ref().and_then(|it| self.first_names.get(&**it))
                {
                    let first = OsStr::from_bytes(first);
                    match rustix::fs::linkat(&self.root, first, here, os_name, AtFlags::empty()) {
                        // The path of the first name is too long to be said: the file comes twice.
                        Err(Errno::NAMETOOLONG) => {}
                        linked => return linked.map_err(refused),
                    }
                }
                let mut from = self.tree.open(path)?;
                let to = rustix::fs::openat(here, os_name, NEW_FILE, Mode::from_raw_mode(0o666));
                io::copy(&mut from, &mut fs::File::from(to.map_err(refused)?)).map_err(failed)?;
            }
            Kind::Symlink { target } => {
                rustix::fs::symlinkat(OsStr::from_bytes(target), here, os_name).map_err(refused)?;
            }
            Kind::Directory | Kind::Hardlink { .. } => return Ok(()),
            Kind::Fifo => make_node(here, os_name, FileType::Fifo, 0, 0).map_err(refused)?,
            // Devices are made where that is allowed, and left out where it is not, as BuildKit does.
            Kind::CharDevice { major, minor } => {
                if make_node(here, os_name, FileType::CharacterDevice, *major, *minor).is_err() {
                    return Ok(());
                }
            }
            Kind::BlockDevice { major, minor } => {
                if make_node(here, os_name, FileType::BlockDevice, *major, *minor).is_err() {
                    return Ok(());
                }
            }
        }
        self.set(here, os_name, node).map_err(failed)?;
        if let (Kind::File { .. }, Some(id)) = (&node.kind, &node.file_id) {
            self.first_names.entry((**id).clone()).or_insert_with(|| written.to_vec());
        }
        Ok(())
    }

    /// Sets owner, attributes, mode and time of what was made here just now.
    fn set(&self, here: &OwnedFd, name: &OsStr, node: &Node) -> io::Result<()> {
        if self.keep_owners {
            cache::owners::give(&through(here, name.as_bytes()), node.uid, node.gid)?;
        }
        // After the owner, with whom the kernel takes capabilities away.
        cache::owners::dress(&through(here, name.as_bytes()), node.xattrs.iter());
        if !matches!(node.kind, Kind::Symlink { .. }) {
            let mode = Mode::from_raw_mode(node.mode & 0o7777);
            rustix::fs::chmodat(here, name, mode, AtFlags::empty())?;
        }
        Ok(rustix::fs::utimensat(here, name, &self.times(node), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn set_of_folder(&self, folder: &OwnedFd, node: &Node) -> io::Result<()> {
        if self.keep_owners {
            cache::owners::give(&through(folder, b"."), node.uid, node.gid)?;
        }
        cache::owners::dress(&through(folder, b"."), node.xattrs.iter());
        rustix::fs::fchmod(folder, Mode::from_raw_mode(node.mode & 0o7777))?;
        Ok(rustix::fs::futimens(folder, &self.times(node))?)
    }

    fn times(&self, node: &Node) -> Timestamps {
        let time = clamped(node.mtime, self.latest);
        let stamp = Timespec { tv_sec: time.secs, tv_nsec: i64::from(time.nanos) };
        Timestamps { last_access: stamp, last_modification: stamp }
    }
}

fn make_node(
    here: &OwnedFd,
    name: &OsStr,
    kind: FileType,
    major: u32,
    minor: u32,
) -> Result<(), Errno> {
    let device = rustix::fs::makedev(major, minor);
    rustix::fs::mknodat(here, name, kind, Mode::from_raw_mode(0o600), device)
}

/// A path to a name in an open folder, for calls that take no folder.
fn through(folder: &OwnedFd, name: &[u8]) -> PathBuf {
    Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(OsStr::from_bytes(name))
}

/// A time, or the latest that is allowed.
fn clamped(time: Time, latest: Option<i64>) -> Time {
    match latest {
        Some(latest) if time.secs >= latest => Time { secs: latest, nanos: 0 },
        _ => time,
    }
}

/// Writes a whole tree as one tar; names get `prefix` in front, times later than `latest` are brought down to it.
pub(crate) fn write_tar<W: Write>(
    tree: &Tree,
    prefix: &[u8],
    latest: Option<i64>,
    writer: &mut TarWriter<W>,
) -> Result<(), ExecutorError> {
    let mut first_names: HashMap<FileId, Vec<u8>> = HashMap::new();
    walk(tree, |path, node| {
        let written = join(prefix, path);
        let mut kind = node.kind;
        if let (Kind::File { .. }, Some(id)) = (&kind, node.file_id) {
            match first_names.get(&id) {
                Some(first) => kind = Kind::Hardlink { target: first.clone() },
                None => drop(first_names.insert(*id, written.clone())),
            }
        }
        let entry = Entry {
            path: written,
            kind,
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            mtime: Time { nanos: 0, ..clamped(node.mtime, latest) },
            xattrs: node.xattrs.into_map(),
        };
        let mut data: Box<dyn io::Read + Send> = match entry.kind {
            Kind::File { .. } => tree.open(path)?,
            _ => Box::new(io::empty()),
        };
        writer.append(&entry, &mut data)?;
        Ok(())
    })
}

/// Says of each file of a tree which it is.
pub(crate) fn subjects(tree: &Tree) -> Result<Vec<Subject>, ExecutorError> {
    let mut subjects = Vec::new();
    walk(tree, |path, node| {
        if let Kind::File { .. } = node.kind {
            let mut hashing = HashingBeside::new(tree.open(path)?);
            let failed = |source| ExecutorError::Read { path: lossy(path), source };
            io::copy(&mut hashing, &mut io::sink()).map_err(failed)?;
            let (_, digest, _) = hashing.finish().map_err(failed)?;
            let name = String::from_utf8_lossy(path).into_owned();
            subjects.push(Subject { name, digest });
        }
        Ok(())
    })?;
    Ok(subjects)
}

/// Calls `visit` for everything in a tree, folders before what is in them.
fn walk(
    tree: &Tree,
    mut visit: impl FnMut(&[u8], Node) -> Result<(), ExecutorError>,
) -> Result<(), ExecutorError> {
    let mut levels = vec![(Vec::new(), tree.children(b"")?.into_iter())];
    while let Some((folder, rest)) = levels.last_mut() {
        let Some((name, node)) = rest.next() else {
            levels.pop();
            continue;
        };
        let path = join(folder, &name);
        let is_dir = node.is_dir();
        visit(&path, node)?;
        if is_dir {
            let rest = tree.children(&path)?.into_iter();
            levels.push((path, rest));
        }
    }
    Ok(())
}

/// Puts a file into a folder, in place of what is there under its name.
pub(crate) fn add_file(
    folder: &Path,
    name: &str,
    bytes: &[u8],
    latest: Option<i64>,
) -> Result<(), ExecutorError> {
    let failed = |source: io::Error| ExecutorError::Write { path: folder.join(name), source };
    let refused = |errno: Errno| failed(errno.into());
    fs::create_dir_all(folder).map_err(failed)?;
    let root = rustix::fs::open(folder, FOLDER & !OFlags::NOFOLLOW, Mode::empty());
    let root = root.map_err(refused)?;
    match rustix::fs::unlinkat(&root, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(refused(errno)),
    }
    let file = rustix::fs::openat(&root, name, NEW_FILE, Mode::from_raw_mode(0o644));
    let mut file = fs::File::from(file.map_err(refused)?);
    file.write_all(bytes).map_err(failed)?;
    if let Some(secs) = latest.and_then(|it| u64::try_from(it).ok()) {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(secs);
        file.set_modified(time).map_err(failed)?;
    }
    Ok(())
}

/// Adds a file to a tar.
pub(crate) fn append_file<W: Write>(
    path: Vec<u8>,
    mut bytes: &[u8],
    latest: Option<i64>,
    writer: &mut TarWriter<W>,
) -> Result<(), ExecutorError> {
    let now = Time { secs: Timestamp::now().secs, nanos: 0 };
    let entry = Entry {
        path,
        kind: Kind::File { size: bytes.len() as u64 },
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: clamped(now, latest),
        xattrs: Default::default(),
    };
    writer.append(&entry, &mut bytes)?;
    Ok(())
}
