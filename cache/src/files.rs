//! Small helpers on plain files: create a folder, publish a file atomically, read a small one, remove a tree.
//!
//! Modes are set explicitly, so that the umask of the caller never shows.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use crate::error::{IoContext, StoreError};

/// Creates a folder if it is not there.
pub(crate) fn ensure_dir(path: &Path, mode: u32) -> Result<(), StoreError> {
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {
            fs::set_permissions(path, Permissions::from_mode(mode)).at("set the mode of", path)
        }
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(err) => Err(err).at("create", path),
    }
}

/// Creates a new file, and fails if there is one.
pub(crate) fn create_new(path: &Path, mode: u32) -> Result<File, StoreError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .at("create", path)?;
    file.set_permissions(Permissions::from_mode(mode)).at("set the mode of", path)?;
    Ok(file)
}

/// Writes `bytes` to the new file `staged` and renames it to `path`. With `sync`, both survive a power cut.
pub(crate) fn publish(
    staged: &Path,
    path: &Path,
    bytes: &[u8],
    sync: bool,
) -> Result<(), StoreError> {
    let result = (|| {
        let mut file = create_new(staged, 0o644)?;
        file.write_all(bytes).at("write", staged)?;
        if sync {
            file.sync_all().at("flush", staged)?;
        }
        fs::rename(staged, path).at("create", path)?;
        if sync {
            sync_parent(path)?;
        }
        Ok(())
    })();
    if result.is_err() {
        let _ = fs::remove_file(staged);
    }
    result
}

/// Makes the names in the parent folder of `path` survive a power cut.
pub(crate) fn sync_parent(path: &Path) -> Result<(), StoreError> {
    let parent = path.parent().unwrap_or(path);
    File::open(parent).and_then(|it| it.sync_all()).at("flush", parent)
}

/// Reads a whole file of at most `limit` bytes. `None` if there is no such file.
pub(crate) fn read_small(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(err).at("open", path),
    };
    let size = file.metadata().at("read", path)?.len();
    let mut bytes = Vec::with_capacity(usize::try_from(size.min(limit)).unwrap_or(0) + 1);
    file.take(limit + 1).read_to_end(&mut bytes).at("read", path)?;
    if bytes.len() as u64 > limit {
        return Err(StoreError::TooLarge {
            what: format!("`{}`", path.display()),
            limit,
            unit: "bytes",
        });
    }
    Ok(Some(bytes))
}

/// Lists the names in a folder, sorted; names that are not UTF-8 are not ours and left out. Empty if there is no such folder.
pub(crate) fn names(path: &Path) -> Result<Vec<String>, StoreError> {
    let listing = match fs::read_dir(path) {
        Ok(listing) => listing,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(err) => return Err(err).at("list", path),
    };
    let mut names = Vec::new();
    for entry in listing {
        if let Ok(name) = entry.at("list", path)?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Removes a file. It is no error if there is none; the answer is whether there was one.
pub(crate) fn remove_file(path: &Path) -> Result<bool, StoreError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(err) => Err(err).at("remove", path),
    }
}

/// Removes a folder with all that is in it, also folders that their owner may not write. Links are not followed.
pub(crate) fn remove_tree(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(err) if err.kind() == io::ErrorKind::PermissionDenied => {
            make_writable(path);
            fs::remove_dir_all(path).at("remove", path)
        }
        Err(err) => Err(err).at("remove", path),
    }
}

/// Gives the owner all rights on the folders below `path`, as far as the kernel lets us. What fails shows when it is removed.
fn make_writable(path: &Path) {
    let mut pending = vec![path.to_owned()];
    while let Some(folder) = pending.pop() {
        let _ = fs::set_permissions(&folder, Permissions::from_mode(0o700));
        let Ok(listing) = fs::read_dir(&folder) else { continue };
        // `file_type` is that of the entry itself, so a link to a folder is not entered.
        pending.extend(
            listing
                .flatten()
                .filter(|it| it.file_type().is_ok_and(|it| it.is_dir()))
                .map(|it| it.path()),
        );
    }
}

/// Adds up the bytes on disk of a folder with all that is in it. Files that vanish meanwhile count as nothing.
pub(crate) fn disk_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut total = 0;
    let mut seen = std::collections::HashSet::new();
    let mut pending = vec![path.to_owned()];
    while let Some(folder) = pending.pop() {
        let Ok(listing) = fs::read_dir(&folder) else { continue };
        for entry in listing.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.nlink() < 2 || metadata.is_dir() || seen.insert(metadata.ino()) {
                total += metadata.blocks() * 512;
            }
            if metadata.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    total
}
