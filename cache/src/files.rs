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
    publish_with(staged, path, sync, |file| file.write_all(bytes))
}

/// Does what [`publish`] does with what `write` writes.
pub(crate) fn publish_with(
    staged: &Path,
    path: &Path,
    sync: bool,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), StoreError> {
    let result = (|| {
        let mut file = create_new(staged, 0o644)?;
        write(&mut file).at("write", staged)?;
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

/// The last line of a sealed file: the hash of all before the line break ahead of it, as a JSON string.
const SEAL: (&[u8], &[u8]) = (b"\n\"blake3:", b"\"\n");
const SEAL_LEN: usize = SEAL.0.len() + 64 + SEAL.1.len();

/// Adds a line with the hash of the bytes, so that a file in which a single bit is wrong tells.
pub(crate) fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    let hash = blake3::hash(&bytes).to_hex();
    bytes.extend_from_slice(SEAL.0);
    bytes.extend_from_slice(hash.as_bytes());
    bytes.extend_from_slice(SEAL.1);
    bytes
}

/// Returns what was sealed; `None` if it is not what it was. Bytes without a seal are returned as they are: whoever parses them
/// finds out what is wrong with them.
pub(crate) fn unseal(bytes: &[u8]) -> Option<&[u8]> {
    let Some((body, line)) = bytes.len().checked_sub(SEAL_LEN).map(|at| bytes.split_at(at)) else {
        return Some(bytes);
    };
    let hash = line.strip_prefix(SEAL.0).and_then(|it| it.strip_suffix(SEAL.1));
    match hash {
        None => Some(bytes),
        Some(hash) => (blake3::hash(body).to_hex().as_bytes() == hash).then_some(body),
    }
}

/// Returns what was sealed; `None` if there is no seal, or it is not what it was.
pub(crate) fn unsealed(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    let n_bytes = unseal(&bytes).map(<[u8]>::len).filter(|it| *it < bytes.len())?;
    bytes.truncate(n_bytes);
    Some(bytes)
}

/// Tells whether the bytes have a seal, and are what was sealed.
pub(crate) fn is_sealed(bytes: &[u8]) -> bool {
    unseal(bytes).is_some_and(|it| it.len() < bytes.len())
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

/// Removes a folder with all that is in it, also folders that their owner may not write. It is no error if there is none.
pub(crate) fn remove_tree(path: &Path) -> Result<(), StoreError> {
    crate::remove::remove_if_there(path).at("remove", path)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_bit_of_a_sealed_file_shows() {
        let body = b"{\"layer\":null}".to_vec();
        let sealed = seal(body.clone());
        assert_eq!(unseal(&sealed), Some(body.as_slice()));
        assert_eq!(
            unseal(&body),
            Some(body.as_slice()),
            "one without a seal is judged by its content"
        );
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            // Where the seal itself is hit, what comes back is no JSON document.
            let parsed = unseal(&changed).map(serde_json::from_slice::<serde_json::Value>);
            assert!(!matches!(parsed, Some(Ok(_))), "bit {bit}");
        }
    }
}
