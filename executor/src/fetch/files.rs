//! A folder that a program left behind, as a layer.
//!
//! Only what git knows of a file is kept: whether it can be run. Owner, umask and clock of this machine leave no trace.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::File,
    io::{self, Write},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
};

use image::{
    entry::{Entry, Kind, Time},
    layer::{IndexedTarWriter, LayerIndex},
};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

use crate::{
    error::ExecutorError,
    tree::{components, join, lossy},
};

const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens the folder `path` below `root`. Every part of it must be a folder itself, not a link to one.
pub(super) fn open_folder(root: &Path, path: &[u8]) -> io::Result<OwnedFd> {
    let mut folder = rustix::fs::open(root, FOLDER, Mode::empty())?;
    for name in components(path) {
        if name == b".." {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        folder = rustix::fs::openat(&folder, OsStr::from_bytes(name), FOLDER, Mode::empty())?;
    }
    Ok(folder)
}

/// Writes all that is in `folder` as a layer; `is_kept` says which names stay, `time` is the time of all of it.
pub(super) fn write_folder<W: Write>(
    folder: OwnedFd,
    time: i64,
    is_kept: impl Fn(&[u8]) -> bool,
    out: W,
) -> Result<(W, LayerIndex), ExecutorError> {
    let mut writer = IndexedTarWriter::new(out);
    let names =
        names(&folder).map_err(|source| ExecutorError::Read { path: "/".to_owned(), source })?;
    let mut todo = vec![(folder, Vec::new(), names)];
    while let Some((folder, path, names)) = todo.last_mut() {
        let Some(name) = names.pop() else {
            todo.pop();
            continue;
        };
        if !is_kept(&name) {
            continue;
        }
        let path = join(path, &name);
        let failed = |source| ExecutorError::Read { path: lossy(&path), source };
        let found = open(folder, &name).map_err(failed)?;
        let below = match &found {
            Found::Folder(fd, _) => Some(self::names(fd).map_err(failed)?),
            _ => None,
        };
        let (kind, mode) = match &found {
            Found::Folder(_, mode) => (Kind::Directory, *mode),
            Found::File(_, mode, size) => (Kind::File { size: *size }, *mode),
            Found::Link(target) => (Kind::Symlink { target: target.clone() }, 0o777),
            Found::Other => {
                let message =
                    format!("`{}` is neither a file nor a folder nor a link", lossy(&path));
                let hint = "what was checked out has been changed by another program".to_owned();
                return Err(ExecutorError::Unsupported { message, hint });
            }
        };
        let entry = Entry {
            path: path.clone(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: Time { secs: time, nanos: 0 },
            xattrs: BTreeMap::new(),
        };
        let written = match &found {
            Found::File(file, ..) => writer.append(entry, &mut &*file),
            _ => writer.append(entry, &mut io::empty()),
        };
        written.map_err(|source| ExecutorError::WriteLayer { path: lossy(&path), source })?;
        if let (Found::Folder(fd, _), Some(names)) = (found, below) {
            todo.push((fd, path, names));
        }
    }
    Ok(writer.finish()?)
}

enum Found {
    Folder(OwnedFd, u32),
    File(File, u32, u64),
    Link(Vec<u8>),
    Other,
}

fn open(folder: &OwnedFd, name: &[u8]) -> io::Result<Found> {
    let name = OsStr::from_bytes(name);
    let status = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    // What the owner may do, everybody may, but for writing.
    let owners = status.st_mode & 0o700;
    let mode = owners | (owners & 0o500) >> 3 | (owners & 0o500) >> 6;
    match FileType::from_raw_mode(status.st_mode) {
        FileType::Directory => {
            Ok(Found::Folder(rustix::fs::openat(folder, name, FOLDER, Mode::empty())?, mode))
        }
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let file = File::from(rustix::fs::openat(folder, name, flags, Mode::empty())?);
            let size = file.metadata()?.len();
            Ok(Found::File(file, mode, size))
        }
        FileType::Symlink => {
            Ok(Found::Link(rustix::fs::readlinkat(folder, name, Vec::new())?.into_bytes()))
        }
        _ => Ok(Found::Other),
    }
}

/// The names in a folder, the last one first.
fn names(folder: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    names.sort_by(|a, b| b.cmp(a));
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_folder_is_written_without_traces_of_the_machine() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let root = folder.path();
        std::fs::create_dir(root.join("sub")).expect("it is new");
        for (name, mode) in [("sub/run", 0o700), ("sub/data", 0o666), ("a", 0o600), (".git", 0o600)]
        {
            std::fs::write(root.join(name), name).expect("it can be written");
            std::fs::set_permissions(root.join(name), PermissionsExt::from_mode(mode))
                .expect("it is ours");
        }
        symlink("../..", root.join("link")).expect("it is new");
        let top = open_folder(root, b"").expect("it is there");
        let (_, index) =
            write_folder(top, 7, |name| name != b".git", Vec::new()).expect("it can be written");
        let view = image::view::View::new(vec![std::sync::Arc::new(index)]);
        let mode = |path: &str| {
            view.lookup(path.as_bytes()).map(|it| (it.entry.mode, it.entry.mtime.secs))
        };
        assert_eq!(mode("sub/run"), Some((0o755, 7)));
        assert_eq!(mode("sub/data"), Some((0o644, 7)));
        assert_eq!(mode("a"), Some((0o644, 7)));
        assert_eq!(mode("link"), Some((0o777, 7)));
        assert_eq!(mode(".git"), None);
        assert!(open_folder(root, b"link").is_err(), "a link is no folder");
        assert!(open_folder(root, b"sub/..").is_err(), "nothing leads up");
        assert!(open_folder(root, b"sub").is_ok());
    }
}
