//! What not to do: unpacking by path, joining without looking, following what is there. The positive control of the escapes.

use std::{
    fs,
    io::Write,
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
};

/// Unpacks a tar as a first version of a builder would: a path is joined to the root, and what fails is left out.
///
/// Nothing outside of `cage` is removed, however the tar asks for it.
pub(crate) fn unpack(tar: &[u8], root: &Path, cage: &Path) {
    let _ = fs::create_dir_all(root);
    let (mut at, mut path, mut link, mut size) = (0, None::<Vec<u8>>, None::<Vec<u8>>, None);
    while let Some(header) = tar.get(at..at + 512) {
        if header.iter().all(|it| *it == 0) {
            break;
        }
        let text = |from: usize, to: usize| {
            header[from..to].split(|it| *it == 0).next().unwrap_or_default().to_vec()
        };
        let octal = |from, to| {
            let text = String::from_utf8_lossy(&text(from, to)).trim().to_owned();
            usize::from_str_radix(&text, 8).unwrap_or(0)
        };
        let length: usize = size.take().unwrap_or_else(|| octal(124, 136));
        at += 512;
        let content = tar.get(at..at.saturating_add(length)).unwrap_or_default();
        at = at.saturating_add(length.next_multiple_of(512));
        let without_nul = |it: &[u8]| it.strip_suffix(b"\0").unwrap_or(it).to_vec();
        match header[156] {
            b'x' => {
                for record in content.split(|it| *it == b'\n') {
                    let Some(space) = record.iter().position(|it| *it == b' ') else { continue };
                    let record = &record[space + 1..];
                    if let Some(value) = record.strip_prefix(b"path=") {
                        path = Some(value.to_vec());
                    } else if let Some(value) = record.strip_prefix(b"linkpath=") {
                        link = Some(value.to_vec());
                    } else if let Some(value) = record.strip_prefix(b"size=") {
                        size = String::from_utf8_lossy(value).parse().ok();
                    }
                }
                continue;
            }
            b'L' => {
                path = Some(without_nul(content));
                continue;
            }
            b'K' => {
                link = Some(without_nul(content));
                continue;
            }
            _ => {}
        }
        let name = path.take().unwrap_or_else(|| text(0, 100));
        let target = link.take().unwrap_or_else(|| text(157, 257));
        let mode = octal(100, 108) as u32;
        entry(root, cage, header[156], &name, &target, mode, content);
    }
}

fn entry(
    root: &Path,
    cage: &Path,
    kind: u8,
    name: &[u8],
    target: &[u8],
    mode: u32,
    content: &[u8],
) {
    let os = std::ffi::OsStr::from_bytes;
    // An absolute path takes the place of the root here, which is the first mistake.
    let path = root.join(os(name));
    if let Some(parent) = path.parent() {
        let _ = fs::create_dir_all(parent);
    }
    // The root itself gives way, if that is what the tar says.
    let is_root = name.split(|it| *it == b'/').all(|it| matches!(it, b"" | b"."));
    let path = if is_root { root.to_owned() } else { path };
    let last = name.rsplit(|it| *it == b'/').find(|it| !it.is_empty()).unwrap_or_default();
    if let Some(removed) = last.strip_prefix(b".wh.") {
        let folder = path.parent().unwrap_or(root).to_owned();
        if last == b".wh..wh..opq" {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                remove(&entry.path(), cage);
            }
        } else {
            remove(&folder.join(os(removed)), cage);
        }
        return;
    }
    if !matches!(kind, b'5' | b'0' | 0) {
        remove(&path, cage);
    }
    match kind {
        b'5' => {
            let _ = fs::create_dir_all(&path);
        }
        b'0' | 0 => {
            if let Ok(mut file) = fs::File::create(&path) {
                let _ = file.write_all(content);
            }
        }
        b'1' => {
            let _ = fs::hard_link(root.join(os(target)), &path);
            return;
        }
        b'2' => {
            let _ = symlink(os(target), &path);
            return;
        }
        _ => {
            let _ = fs::File::create(&path);
        }
    }
    // Follows links.
    let _ = fs::set_permissions(&path, fs::Permissions::from_mode(mode & 0o7777));
}

fn remove(path: &Path, cage: &Path) {
    let Some(parent) = path.parent().and_then(|it| it.canonicalize().ok()) else { return };
    let real = match path.file_name() {
        Some(name) => parent.join(name),
        None => match path.canonicalize() {
            Ok(real) => real,
            Err(_) => return,
        },
    };
    if !real.starts_with(cage) {
        return;
    }
    if real.symlink_metadata().is_ok_and(|it| it.is_dir()) {
        let _ = fs::remove_dir_all(&real);
    } else {
        let _ = fs::remove_file(&real);
    }
}

/// Finds a file of a tree by joining and following, and reads it.
pub(crate) fn read(root: &Path, path: &str) -> Option<Vec<u8>> {
    fs::read(root.join(path.trim_start_matches('/'))).ok()
}

/// Where a careless cache keeps the folder of an id.
pub(crate) fn cache_folder(root: &Path, id: &str) -> PathBuf {
    root.join(id)
}

/// Makes a place to mount on: looks whether a link is on the way, and goes that way afterwards.
pub(crate) fn mount_point(root: &Path, path: &str) -> Option<()> {
    let mut here = root.to_owned();
    for name in path.split('/') {
        here.push(name);
        if here.symlink_metadata().is_ok_and(|it| it.is_symlink()) {
            return None;
        }
    }
    fs::create_dir_all(&here).ok()
}

/// Writes a file in a folder that has been looked at.
pub(crate) fn write(folder: &Path, name: &str, content: &[u8]) -> Option<()> {
    if folder.symlink_metadata().ok()?.is_symlink() {
        return None;
    }
    fs::write(folder.join(name), content).ok()
}
