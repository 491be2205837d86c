//! Locks between processes that die with their process.
//!
//! A lock is a `flock` on a file below `locks/`. The holder removes the file when it lets go, so the folder does not grow;
//! whoever waited for the removed file notices that it has no name any more and starts over with the new one.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::error::{IoContext, StoreError};

/// An exclusive lock. Dropping it lets the next one in.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Waits for the lock on `path`.
    pub(crate) fn wait(path: PathBuf) -> Result<Self, StoreError> {
        loop {
            let file = open(&path)?;
            file.lock().at("lock", &path)?;
            if is_current(&file, &path)? {
                return Ok(Self { file, path });
            }
        }
    }

    /// Takes the lock on `path` if nobody has it.
    pub(crate) fn attempt(path: PathBuf) -> Result<Option<Self>, StoreError> {
        loop {
            let file = open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(err)) => return Err(err).at("lock", &path),
            }
            if is_current(&file, &path)? {
                return Ok(Some(Self { file, path }));
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Still locked while its name goes: nobody else can be inside.
        let _ = fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}

fn open(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .at("open", path)
}

/// Tells whether the locked file still has its name.
fn is_current(file: &File, path: &Path) -> Result<bool, StoreError> {
    let nlink = file.metadata().at("read", path)?.nlink();
    Ok(nlink > 0)
}
