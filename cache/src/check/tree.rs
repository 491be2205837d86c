//! Compares an unpacked layer with what is known to be in it.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use image::{
    entry::{Entry, Kind},
    layer::{Change, LayerIndex, split_path},
};
use rustix::{
    fs::{
        AtFlags, Dir, FileType, Mode, Stat, lgetxattr, makedev, open, openat, readlinkat, statat,
    },
    io::Errno,
};

use crate::{
    below::{OPEN_FOLDER, open_in_root, open_in_tree, through},
    error::show,
    on_disk::{is_whiteout, kept},
    owners::{self, Record},
};

/// Returns the first thing in which the tree at `path` is not what the index tells of.
///
/// A tree that a RUN left may hold more than its layer: what overlay copied up and nobody changed. With `is_exact` it may not.
/// With `has_owners` its files have the owners and modes of the layer.
pub(super) fn difference(
    path: &Path,
    index: &LayerIndex,
    is_exact: bool,
    has_owners: bool,
) -> Option<String> {
    let root = match open(path, OPEN_FOLDER, Mode::empty()) {
        Ok(root) => root,
        Err(err) => return Some(err.to_string()),
    };
    let comparison = Comparison { root, has_owners };
    // Of entries with the same path the last one is on the disk.
    let mut last = HashMap::new();
    for change in &index.changes {
        if !matches!(change, Change::Opaque { .. }) {
            last.insert(change.path(), change);
        }
    }
    for (path, change) in &last {
        let different = match change {
            Change::Entry { entry, content, .. } => comparison.entry(entry, content.as_ref()),
            Change::Whiteout { path } => comparison.whiteout(path),
            Change::Opaque { .. } => None,
        };
        if let Some(reason) = different {
            return Some(format!("`{}` {reason}", show(path)));
        }
    }
    is_exact.then(|| comparison.surplus(&last.keys().copied().collect())).flatten()
}

struct Comparison {
    root: OwnedFd,
    has_owners: bool,
}

impl Comparison {
    fn stat(&self, path: &[u8]) -> Result<(OwnedFd, Stat), Errno> {
        let (folder, name) = split_path(path);
        let folder = open_in_root(&self.root, folder)?;
        let name = if name.is_empty() { b".".as_slice() } else { name };
        let stat = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok((folder, stat))
    }

    fn entry(&self, entry: &Entry, content: Option<&[u8; 32]>) -> Option<String> {
        let is_device = matches!(entry.kind, Kind::CharDevice { .. } | Kind::BlockDevice { .. });
        let (folder, stat) = match self.stat(&entry.path) {
            Ok(found) => found,
            // In a user namespace nobody makes devices.
            Err(Errno::NOENT) if is_device => return None,
            Err(Errno::NOENT) => return Some("is not there".to_owned()),
            Err(err) => return Some(format!("cannot be read: {err}")),
        };
        // With one id a device is an empty file that says which one it stands for.
        let is_beside = is_device && owners::are_beside();
        let expected = match &entry.kind {
            Kind::File { .. } => FileType::RegularFile,
            Kind::CharDevice { .. } | Kind::BlockDevice { .. } if is_beside => {
                FileType::RegularFile
            }
            Kind::Directory => FileType::Directory,
            Kind::Symlink { .. } => FileType::Symlink,
            Kind::Hardlink { target } => return self.hardlink(&stat, target),
            Kind::Fifo => FileType::Fifo,
            Kind::CharDevice { .. } => FileType::CharacterDevice,
            Kind::BlockDevice { .. } => FileType::BlockDevice,
        };
        if FileType::from_raw_mode(stat.st_mode) != expected {
            return Some("is another kind of file".to_owned());
        }
        // Links and pipes can have no record.
        if owners::are_beside() && !matches!(expected, FileType::Symlink | FileType::Fifo) {
            let (_, name) = split_path(&entry.path);
            let name = if name.is_empty() { b".".as_slice() } else { name };
            let record = Record::get(&through(&folder, name)).unwrap_or_default();
            if record.device != Record::of(entry).device {
                return Some("is another device".to_owned());
            }
            if record != Record::of(entry) {
                return Some("has another owner".to_owned());
            }
        }
        if self.has_owners {
            if (stat.st_uid, stat.st_gid) != (entry.uid, entry.gid) {
                return Some("has another owner".to_owned());
            }
            if expected != FileType::Symlink && stat.st_mode & 0o7777 != entry.mode & 0o7777 {
                return Some("has another mode".to_owned());
            }
        }
        match &entry.kind {
            Kind::File { size } => {
                if u64::try_from(stat.st_size).ok() != Some(*size) {
                    return Some("has another size".to_owned());
                }
                if let Some(content) = content {
                    match self.hash(&entry.path) {
                        Ok(found) if found == *content => {}
                        Ok(_) => return Some("has other bytes".to_owned()),
                        Err(err) => return Some(format!("cannot be read: {err}")),
                    }
                }
            }
            Kind::Symlink { target } => {
                let (_, name) = split_path(&entry.path);
                match readlinkat(&folder, name, Vec::new()) {
                    Ok(found) if found.as_bytes() == target => {}
                    Ok(_) => return Some("points elsewhere".to_owned()),
                    Err(err) => return Some(format!("cannot be read: {err}")),
                }
            }
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor }
                if !is_beside && stat.st_rdev != makedev(*major, *minor) =>
            {
                return Some("is another device".to_owned());
            }
            _ => {}
        }
        let has_attributes = matches!(entry.kind, Kind::File { .. } | Kind::Directory);
        if has_attributes && self.has_owners {
            let (_, name) = split_path(&entry.path);
            let name = if name.is_empty() { b".".as_slice() } else { name };
            for (attribute, value) in kept(entry) {
                let mut found = vec![0; value.len() + 1];
                match lgetxattr(through(&folder, name), attribute, found.as_mut_slice()) {
                    Ok(n_bytes) if found[..n_bytes] == *value => {}
                    Err(Errno::OPNOTSUPP) => {}
                    _ => return Some("has another attribute".to_owned()),
                }
            }
        }
        None
    }

    fn hardlink(&self, stat: &Stat, target: &[u8]) -> Option<String> {
        match self.stat(target) {
            Ok((_, other)) if (other.st_dev, other.st_ino) == (stat.st_dev, stat.st_ino) => None,
            _ => Some(format!("is no name of `{}`", show(target))),
        }
    }

    /// A whiteout is a device, or something is opaque above it, or there is an entry in its place.
    fn whiteout(&self, path: &[u8]) -> Option<String> {
        let (folder, name) = split_path(path);
        if let Ok(folder) = open_in_root(&self.root, folder)
            && is_whiteout(&folder, name)
        {
            return None;
        }
        let mut above = path;
        loop {
            (above, _) = split_path(above);
            if self.is_opaque(above) {
                return None;
            }
            if above.is_empty() {
                return Some("is not marked as removed".to_owned());
            }
        }
    }

    fn is_opaque(&self, folder: &[u8]) -> bool {
        let Ok(folder) = open_in_root(&self.root, folder) else { return false };
        ["trusted.overlay.opaque", "user.overlay.opaque"].iter().any(|name| {
            let mut value = [0; 8];
            lgetxattr(through(&folder, b"."), *name, value.as_mut_slice())
                .is_ok_and(|it| value[..it] == *b"y")
        })
    }

    fn hash(&self, path: &[u8]) -> io::Result<[u8; 32]> {
        let mut file = open_in_tree(&self.root, path)?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(hasher.finalize().into()),
                n_read => hasher.update(&buffer[..n_read]),
            };
        }
    }

    /// Returns something that is neither in the layer nor above something that is.
    fn surplus(&self, known: &HashSet<&[u8]>) -> Option<String> {
        let mut folders: HashSet<&[u8]> = HashSet::new();
        for path in known {
            let mut above = *path;
            while !above.is_empty() {
                (above, _) = split_path(above);
                folders.insert(above);
            }
        }
        let mut pending = vec![Vec::new()];
        while let Some(folder) = pending.pop() {
            let Ok(mut listing) = self.list(&folder) else { continue };
            while let Some(Ok(entry)) = listing.read() {
                let name = entry.file_name().to_bytes();
                if matches!(name, b"." | b"..") {
                    continue;
                }
                let path = match folder.is_empty() {
                    true => name.to_vec(),
                    false => [&folder, b"/".as_slice(), name].concat(),
                };
                if !known.contains(path.as_slice()) && !folders.contains(path.as_slice()) {
                    return Some(format!("`{}` does not belong there", show(&path)));
                }
                if entry.file_type() == FileType::Directory {
                    pending.push(path);
                }
            }
        }
        None
    }

    fn list(&self, folder: &[u8]) -> Result<Dir, Errno> {
        let folder = open_in_root(&self.root, folder)?;
        Dir::new(openat(folder.as_fd(), ".", OPEN_FOLDER, Mode::empty())?)
    }
}
