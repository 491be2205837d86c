//! Cache mounts: folders that outlive the RUN that writes into them.
//!
//! ```text
//! mounts/HEX/info.json   id and namespace, which HEX is the hash of
//! mounts/HEX/0/          the folder; 1, 2, … are further ones for those who want one for themselves
//! mounts/HEX/0.lock      locked by those who use the folder; its time is that of the last use
//! ```

use std::{
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};

use crate::{
    error::{IoContext, StoreError},
    files, owners,
    step::seconds,
    store::Store,
};

const MAX_INFO_BYTES: u64 = 1 << 20;

/// Who may use a cache mount at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// Everybody.
    #[default]
    Shared,
    /// One after the other.
    Locked,
    /// Everybody, but each with a folder of their own.
    Private,
}

/// Which cache mount is wanted, and how to make it if there is none.
pub struct CacheMountRequest<'a> {
    /// Its id, any text. Two mounts with the same id and namespace are the same.
    pub id: &'a str,
    /// Keeps ids apart: the value of `BUILDKIT_CACHE_MOUNT_NS`, what the content is seeded from, or the build that wants a fresh one.
    pub namespace: &'a str,
    /// Who may use it at the same time.
    pub sharing: Sharing,
    /// The mode of a new folder.
    pub mode: u32,
    /// The owner of a new folder.
    pub uid: u32,
    /// The group of a new folder.
    pub gid: u32,
    /// Fills a new folder, which exists and is empty. Owner and mode are set before.
    pub seed: Option<Seed<'a>>,
}

/// What fills a new cache mount.
pub type Seed<'a> = &'a mut dyn FnMut(&Path) -> io::Result<()>;

/// A cache mount in use. Nobody removes it until this is dropped.
#[derive(Debug)]
pub struct CacheMount {
    path: PathBuf,
    _lock: File,
}

impl CacheMount {
    /// Returns the folder to mount.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What is known of a folder of a cache mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheMountInfo {
    /// Its id.
    pub id: String,
    /// Its namespace.
    pub namespace: String,
    /// The folder.
    pub path: PathBuf,
    /// When it was last used, in seconds since the Unix epoch.
    pub last_used: u64,
    /// Its size on disk.
    pub n_bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct Info {
    id: String,
    namespace: String,
}

impl Store {
    /// Takes a cache mount, after waiting for others if the kind of sharing demands it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the folder cannot be made or locked.
    pub fn cache_mount(
        &self,
        mut request: CacheMountRequest<'_>,
    ) -> Result<CacheMount, StoreError> {
        let mut hasher = blake3::Hasher::new();
        for text in [request.namespace, request.id] {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        }
        let folder = self.path("mounts").join(hasher.finalize().to_hex().as_str());
        self.session()?;
        files::ensure_dir(&folder, 0o755)?;
        let info = folder.join("info.json");
        // What a power cut left of one is none.
        if files::read_small(&info, MAX_INFO_BYTES)?.is_none_or(|it| parse(&it).is_none()) {
            let content =
                Info { id: request.id.to_owned(), namespace: request.namespace.to_owned() };
            let bytes = serde_json::to_vec(&content).map_err(|source| StoreError::Document {
                what: "the description of a cache mount".to_owned(),
                source,
            })?;
            self.publish(&info, &files::seal(bytes), false)?;
        }
        let mut slot = 0_u32;
        loop {
            let lock_path = folder.join(format!("{slot}.lock"));
            let Some(lock) = take(&lock_path, request.sharing)? else {
                slot += 1;
                continue;
            };
            lock.set_modified(SystemTime::now()).at("set the time of", &lock_path)?;
            let path = folder.join(slot.to_string());
            if !path.exists() {
                self.make_mount(&path, &mut request)?;
            }
            return Ok(CacheMount { path, _lock: lock });
        }
    }

    fn make_mount(
        &self,
        path: &Path,
        request: &mut CacheMountRequest<'_>,
    ) -> Result<(), StoreError> {
        let staged = self.scratch()?;
        let result = (|| {
            files::ensure_dir(&staged, 0o700)?;
            owners::give(&staged, request.uid, request.gid).at("set the owner of", &staged)?;
            fs::set_permissions(&staged, Permissions::from_mode(request.mode & 0o7777))
                .at("set the mode of", &staged)?;
            if let Some(seed) = &mut request.seed {
                seed(&staged).at("fill the cache mount", path)?;
            }
            match renameat_with(CWD, &staged, CWD, path, RenameFlags::NOREPLACE) {
                // Somebody else who shares it was faster.
                Err(rustix::io::Errno::EXIST) => Ok(()),
                result => result.at("create", path),
            }
        })();
        let _ = files::remove_tree(&staged);
        result
    }

    /// Lists all cache mounts. Measures their size.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if they cannot be listed.
    pub fn cache_mounts(&self) -> Result<Vec<CacheMountInfo>, StoreError> {
        let mut mounts = Vec::new();
        let root = self.path("mounts");
        for name in files::names(&root)? {
            let folder = root.join(name);
            let info = files::read_small(&folder.join("info.json"), MAX_INFO_BYTES)?;
            let info = info.and_then(|it| parse(&it));
            let info = info.unwrap_or(Info { id: String::new(), namespace: String::new() });
            for slot in files::names(&folder)?.into_iter().filter(|it| it.parse::<u32>().is_ok()) {
                let path = folder.join(&slot);
                let used =
                    fs::metadata(folder.join(format!("{slot}.lock"))).and_then(|it| it.modified());
                mounts.push(CacheMountInfo {
                    id: info.id.clone(),
                    namespace: info.namespace.clone(),
                    last_used: used.map_or(0, seconds),
                    n_bytes: files::disk_bytes(&path),
                    path,
                });
            }
        }
        Ok(mounts)
    }

    /// Tells whether a RUN has the cache mount now.
    pub(crate) fn is_used(&self, mount: &CacheMountInfo) -> bool {
        let lock = File::open(mount.path.with_extension("lock"));
        lock.is_ok_and(|it| it.try_lock().is_err())
    }

    /// Removes a cache mount unless somebody uses it, and tells whether it did.
    pub(crate) fn remove_cache_mount(&self, mount: &CacheMountInfo) -> Result<bool, StoreError> {
        let lock_path = mount.path.with_extension("lock");
        let lock = open(&lock_path)?;
        if lock.try_lock().is_err() {
            return Ok(false);
        }
        let old = self.scratch()?;
        match fs::rename(&mount.path, &old) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            result => result.at("move away", &mount.path)?,
        }
        files::remove_file(&lock_path)?;
        drop(lock);
        files::remove_tree(&old)?;
        Ok(true)
    }
}

/// Tells whether these are not the bytes of a description.
pub(crate) fn is_damaged(info: &[u8]) -> bool {
    parse(info).is_none()
}

fn parse(info: &[u8]) -> Option<Info> {
    files::unseal(info).and_then(|it| serde_json::from_slice(it).ok())
}

/// Locks a folder as the sharing demands; `None` if a private one is wanted and this one is in use.
fn take(path: &Path, sharing: Sharing) -> Result<Option<File>, StoreError> {
    loop {
        let file = open(path)?;
        match sharing {
            Sharing::Shared => file.lock_shared().at("lock", path)?,
            Sharing::Locked => file.lock().at("lock", path)?,
            Sharing::Private => match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(err)) => return Err(err).at("lock", path),
            },
        }
        // The collector may have removed folder and lock meanwhile.
        if file.metadata().at("read", path)?.nlink() > 0 {
            return Ok(Some(file));
        }
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
