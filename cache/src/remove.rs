//! Removing folders whose content nobody vouches for: as deep as it may be, and never through a link.
//!
//! A process of a RUN can make folders far deeper than a path can say, or a stack and the open files of a process allow. So what
//! lies deeper than [`DEEPEST`] is first moved up to the top, and then its turn comes.

use std::{
    ffi::CStr,
    fs, io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, renameat, unlinkat},
    io::Errno,
};

use crate::below::OPEN_FOLDER;

/// So many folders are open at once.
const DEEPEST: usize = 64;

/// Removes a folder with all that is in it, also folders that their owner may not write.
pub(crate) fn remove_all(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let folder = rustix::fs::open(folder, OPEN_FOLDER & !OFlags::NOFOLLOW, Mode::empty())?;
    remove_all_at(&folder, name.as_bytes())
}

/// Removes a folder by its name in an open one.
pub(crate) fn remove_all_at(folder: &OwnedFd, name: &[u8]) -> io::Result<()> {
    let top = open(folder, name)?;
    let mut n_moved = 0;
    loop {
        let n_before = n_moved;
        empty(&top, &top, 1, &mut n_moved)?;
        if n_moved == n_before {
            break;
        }
    }
    Ok(unlinkat(folder, name, AtFlags::REMOVEDIR)?)
}

fn open(folder: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    match openat(folder, name, OPEN_FOLDER, Mode::empty()) {
        // Only who is not root gets here, and then it is theirs.
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(folder, name, Mode::RWXU, AtFlags::empty())?;
            openat(folder, name, OPEN_FOLDER, Mode::empty())
        }
        result => result,
    }
}

fn empty(folder: &OwnedFd, top: &OwnedFd, depth: usize, n_moved: &mut u64) -> Result<(), Errno> {
    let mut entries = Dir::read_from(folder)?;
    let mut is_writable = false;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name: &CStr = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let mut attempt = remove(folder, (name, entry.file_type()), (top, depth), n_moved);
        if attempt == Err(Errno::ACCESS) && !is_writable {
            rustix::fs::fchmod(folder, Mode::RWXU)?;
            is_writable = true;
            attempt = remove(folder, (name, entry.file_type()), (top, depth), n_moved);
        }
        match attempt {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn remove(
    folder: &OwnedFd,
    (name, kind): (&CStr, FileType),
    (top, depth): (&OwnedFd, usize),
    n_moved: &mut u64,
) -> Result<(), Errno> {
    if kind != FileType::Directory {
        match unlinkat(folder, name, AtFlags::empty()) {
            // Its kind was not known.
            Err(Errno::ISDIR) => {}
            result => return result,
        }
    }
    if depth >= DEEPEST {
        // The name is one that nothing at the top has.
        loop {
            *n_moved += 1;
            let free = format!(".deep-{n_moved}");
            match rustix::fs::statat(top, &free, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => return renameat(folder, name, top, &free),
                Ok(_) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    let inner = open(folder, name.to_bytes())?;
    empty(&inner, top, depth + 1, n_moved)?;
    drop(inner);
    unlinkat(folder, name, AtFlags::REMOVEDIR)
}

/// Removes a folder, or says that there is none.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(it) if it.is_dir() => match remove_all(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        },
        Ok(_) => fs::remove_file(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_deeper_than_a_path_is_removed_and_links_are_not_followed() {
        let place = tempfile::tempdir().expect("a folder");
        let (gone, kept) = (place.path().join("gone"), place.path().join("kept"));
        for folder in [&gone, &kept] {
            fs::create_dir(folder).expect("made");
        }
        fs::write(kept.join("file"), "x").expect("written");
        let mut here = rustix::fs::open(&gone, OPEN_FOLDER, Mode::empty()).expect("opened");
        for n in 0..5000 {
            if n % 50 == 0 {
                rustix::fs::symlinkat(&kept, &here, "link").expect("linked");
                rustix::fs::mkdirat(&here, ".deep-1", Mode::RWXU).expect("made");
            }
            rustix::fs::mkdirat(&here, "folder", Mode::RWXU).expect("made");
            let below = openat(&here, "folder", OPEN_FOLDER, Mode::empty()).expect("opened");
            if n % 7 == 0 {
                rustix::fs::fchmod(&below, Mode::RWXU).expect("set");
            }
            here = below;
        }
        drop(here);
        remove_all(&gone).expect("removed");
        assert!(!gone.exists());
        assert!(kept.join("file").exists());
        assert!(remove_if_there(&gone).is_ok());
    }

    #[test]
    fn folders_without_rights_are_removed() {
        let place = tempfile::tempdir().expect("a folder");
        let gone = place.path().join("gone");
        fs::create_dir_all(gone.join("a/b")).expect("made");
        fs::write(gone.join("a/b/file"), "x").expect("written");
        for name in ["a/b", "a"] {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o000);
            fs::set_permissions(gone.join(name), mode).expect("set");
        }
        remove_all(&gone).expect("removed");
        assert!(!gone.exists());
    }
}
