//! Opening a store, and what all its parts share: the session of this process, and what of it survives a power cut.

use std::{
    collections::HashSet,
    fs::{self, File},
    hash::{BuildHasher, RandomState},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use image::{Digest, compress::DecompressLimits, layer::Limits};

use crate::{
    error::{IoContext, StoreError},
    files,
    layer::IndexCache,
    lease::LeaseSlot,
    lock::Lock,
    room::RoomOptions,
    stack::Stacks,
};

/// What is written to the file `version`. A store with anything else there is not touched.
const FORMAT: &str = "kiln store 1";
/// The content of the file `oci/oci-layout`.
pub(crate) const LAYOUT: &[u8] = b"{\"imageLayoutVersion\":\"1.0.0\"}\n";
/// The folders of a store.
pub(crate) const FOLDERS: &[&str] = &[
    "tmp",
    "oci",
    "oci/blobs",
    "oci/blobs/sha256",
    "partial",
    "layers",
    "trees",
    "steps",
    "locks",
    "leases",
    "mounts",
    "logs",
    "stat-cache",
];

/// A store on disk. Clones share one handle; many processes may have the same store open.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

/// How a store is used.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Write such that a power cut loses at most the build in progress. Without it a power cut may damage the store.
    pub sync: bool,
    /// How large the store may become.
    pub room: RoomOptions,
    /// What a layer may at most be.
    pub limits: Limits,
    /// How far a layer may expand.
    pub decompress: DecompressLimits,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            sync: true,
            room: RoomOptions::default(),
            limits: Limits::default(),
            decompress: DecompressLimits::default(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) root: PathBuf,
    pub(crate) options: StoreOptions,
    pub(crate) indexes: IndexCache,
    pub(crate) lease: LeaseSlot,
    pub(crate) stacks: Mutex<Stacks>,
    /// Random, so that names made by two processes differ.
    id: String,
    counter: AtomicU64,
    session: OnceLock<Session>,
    session_start: Mutex<()>,
    batches: Batches,
    is_writing_back: Arc<AtomicBool>,
    pub(crate) owners_are_checked: AtomicBool,
    /// The blobs that this process has written, and hashed while it did.
    pub(crate) written: Mutex<HashSet<Digest>>,
    had_leftovers: AtomicBool,
}

/// The staging folder of this process. Its lock tells others that it is still needed.
#[derive(Debug)]
pub(crate) struct Session {
    folder: PathBuf,
    lock_path: PathBuf,
    _lock: File,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            let _ = files::remove_tree(&session.folder);
            let _ = fs::remove_file(&session.lock_path);
        }
    }
}

impl Store {
    /// Opens the store at `root` with the default options, and makes an empty one if there is none.
    ///
    /// # Errors
    ///
    /// See [`open_with`](Self::open_with).
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        Self::open_with(root, StoreOptions::default())
    }

    /// Opens the store at `root`, and makes an empty one if there is none. What killed processes left behind is removed.
    ///
    /// # Errors
    ///
    /// - [`StoreError::NotAStore`] if the folder holds something else.
    /// - [`StoreError::UnknownFormat`] if another version of kiln wrote it.
    /// - [`StoreError::Io`] if it cannot be created, read or written.
    pub fn open_with(root: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        let root = std::path::absolute(root).at("find", root)?;
        let id = unique_id();
        if !is_initialised(&root)? {
            initialise(&root, &id)?;
        }
        let inner = Inner {
            batches: Batches::new(&root, &id),
            root,
            options,
            indexes: IndexCache::default(),
            lease: LeaseSlot::default(),
            stacks: Mutex::default(),
            id,
            counter: AtomicU64::new(0),
            session: OnceLock::new(),
            session_start: Mutex::new(()),
            is_writing_back: Arc::default(),
            owners_are_checked: AtomicBool::new(false),
            written: Mutex::default(),
            had_leftovers: AtomicBool::new(false),
        };
        let store = Self { inner: Arc::new(inner) };
        if store.reap()? {
            store.inner.had_leftovers.store(true, Ordering::Relaxed);
        }
        Ok(store)
    }

    /// Whether processes that were killed had left something when this was opened.
    pub fn had_leftovers(&self) -> bool {
        self.inner.had_leftovers.load(Ordering::Relaxed)
    }

    /// Whether a path is in the staging folder of a process that is gone: what still works there works for nobody.
    pub fn is_abandoned(&self, path: &Path) -> bool {
        let Ok(tmp) = fs::canonicalize(self.path("tmp")) else { return false };
        let Ok(below) = path.strip_prefix(&tmp) else { return false };
        let Some(owner) = below.components().next() else { return false };
        let mut lock = owner.as_os_str().to_owned();
        lock.push(".lock");
        !tmp.join(lock).exists()
    }

    /// Returns how the store is used.
    pub fn options(&self) -> &StoreOptions {
        &self.inner.options
    }

    /// Returns the folder the store is in.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// Waits for the lock called `name`, which dies with the process. Do not wait for one while holding another.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the lock file cannot be made or locked.
    pub fn lock(&self, name: &str) -> Result<Lock, StoreError> {
        Lock::wait(self.lock_path(name)?)
    }

    /// Takes the lock called `name` if nobody has it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the lock file cannot be made or locked.
    pub fn try_lock(&self, name: &str) -> Result<Option<Lock>, StoreError> {
        Lock::attempt(self.lock_path(name)?)
    }

    fn lock_path(&self, name: &str) -> Result<PathBuf, StoreError> {
        self.session()?;
        let plain = |it: u8| it.is_ascii_alphanumeric() || it == b'-';
        let file = if name.len() <= 100 && !name.is_empty() && name.bytes().all(plain) {
            name.to_owned()
        } else {
            format!("={}", blake3::hash(name.as_bytes()).to_hex())
        };
        Ok(self.path("locks").join(file))
    }

    /// Makes all that this process has stored so far survive a power cut. Cheap if there is nothing new.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the file system cannot write everything to the disk. What was stored since the last success is then
    /// treated as absent after the next boot.
    pub fn flush(&self) -> Result<(), StoreError> {
        if !self.inner.options.sync {
            return Ok(());
        }
        self.inner.batches.flush(&self.inner.root)
    }

    /// Begins to write what was stored so far to the disk, on a thread of its own, so that the next [`flush`](Self::flush) finds less
    /// to do. It promises nothing. Says whether it has begun: not while it does so already, or where nothing is flushed.
    pub fn write_back(&self) -> bool {
        if !self.sync() || self.inner.is_writing_back.swap(true, Ordering::SeqCst) {
            return false;
        }
        // Not the store itself: its staging folder goes with the last handle, whether or not the disk is done.
        let (root, is_busy) = (self.root().to_owned(), self.inner.is_writing_back.clone());
        let work = move || {
            let _ = File::open(root).map(rustix::fs::syncfs);
            is_busy.store(false, Ordering::SeqCst);
        };
        let begun = std::thread::Builder::new().name("write-back".to_owned()).spawn(work).is_ok();
        if !begun {
            self.inner.is_writing_back.store(false, Ordering::SeqCst);
        }
        begun
    }

    /// Returns the path of something in the store.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.inner.root.join(relative)
    }

    /// Returns whether writes have to survive a power cut.
    pub(crate) fn sync(&self) -> bool {
        self.inner.options.sync
    }

    /// Returns a name in the staging folder of this process that was not used before.
    pub(crate) fn scratch(&self) -> Result<PathBuf, StoreError> {
        let n = self.inner.counter.fetch_add(1, Ordering::Relaxed);
        Ok(self.session()?.folder.join(n.to_string()))
    }

    /// Returns a name that no other process and no other call returns.
    pub(crate) fn unique_name(&self) -> String {
        let n = self.inner.counter.fetch_add(1, Ordering::Relaxed);
        format!("{}-{n}", self.inner.id)
    }

    /// Publishes a small file whose content tells by itself whether it is whole.
    pub(crate) fn publish(&self, path: &Path, bytes: &[u8], sync: bool) -> Result<(), StoreError> {
        files::publish(&self.scratch()?, path, bytes, sync && self.sync())
    }

    /// Names the batch that what is published before the guard is dropped belongs to.
    pub(crate) fn batch(&self) -> RwLockReadGuard<'_, Batch> {
        let guard = self.inner.batches.current.read().unwrap_or_else(PoisonError::into_inner);
        guard.is_used.store(1, Ordering::Relaxed);
        guard
    }

    /// Tells whether what belongs to this batch is on the disk, whatever happened since.
    pub(crate) fn is_intact(&self, batch: &str) -> bool {
        !self.sync() || self.inner.batches.is_intact(batch)
    }

    /// Starts what a process needs that writes. Whoever writes other than by [`scratch`](Self::scratch), [`publish`](Self::publish) or
    /// under a [`lock`](Self::lock) asks for it first.
    ///
    /// Who would leave files that are not the store's owner's is refused here, before anything is written: root in the store
    /// of a user makes folders in which that user's next build cannot write.
    pub(crate) fn session(&self) -> Result<&Session, StoreError> {
        if let Some(session) = self.inner.session.get() {
            return Ok(session);
        }
        let _start = guard(&self.inner.session_start);
        if let Some(session) = self.inner.session.get() {
            return Ok(session);
        }
        let folder = self.path("tmp").join(&self.inner.id);
        let lock_path = folder.with_extension("lock");
        // Another process may take an unlocked lock file for that of a dead process and remove it: then make it again.
        let lock = loop {
            let file = fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&lock_path);
            let file = file.at("create", &lock_path)?;
            file.lock().at("lock", &lock_path)?;
            let found = file.metadata().at("read", &lock_path)?;
            if found.nlink() == 0 {
                continue;
            }
            // Asked of what was written, not of ids: file systems of other machines have owners of their own.
            let tmp = self.path("tmp");
            let owner = fs::metadata(&tmp).at("read", tmp)?.uid();
            if found.uid() != owner {
                let _ = fs::remove_file(&lock_path);
                let path = self.root().to_owned();
                return Err(StoreError::AnotherUser { path, owner, user: found.uid() });
            }
            break file;
        };
        files::ensure_dir(&folder, 0o700)?;
        Ok(self.inner.session.get_or_init(|| Session { folder, lock_path, _lock: lock }))
    }

    /// Removes the staging folders and leases of processes that are gone; says whether there were any.
    pub(crate) fn reap(&self) -> Result<bool, StoreError> {
        let mut is_found = false;
        let tmp = self.path("tmp");
        let names = files::names(&tmp)?;
        for name in &names {
            let path = tmp.join(name);
            let owner = name.strip_suffix(".lock").unwrap_or(name);
            if owner == self.inner.id {
                continue;
            }
            let lock_path = tmp.join(format!("{owner}.lock"));
            // A folder without a lock file has no owner: the lock is made before the folder and removed after it.
            if let Some(lock) = try_existing(&lock_path)? {
                is_found = true;
                let _ = files::remove_tree(&path.with_extension(""));
                let _ = fs::remove_file(&lock_path);
                drop(lock);
            } else if path != lock_path && !lock_path.exists() {
                is_found = true;
                let _ = files::remove_tree(&path);
            }
        }
        let leases = self.path("leases");
        for name in files::names(&leases)? {
            let path = leases.join(name);
            if try_existing(&path)?.is_some() {
                let _ = fs::remove_file(&path);
            }
        }
        Ok(is_found)
    }
}

/// Locks a file if it exists and nobody has it locked.
pub(crate) fn try_existing(path: &Path) -> Result<Option<File>, StoreError> {
    match File::open(path) {
        Ok(file) => Ok(file.try_lock().is_ok().then_some(file)),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(err).at("open", path),
    }
}

/// Takes a mutex, also after a panic of another thread: what they guard here is never left half changed.
pub(crate) fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unique_id() -> String {
    let random = RandomState::new().hash_one((std::process::id(), std::time::SystemTime::now()));
    format!("{random:016x}")
}

fn is_initialised(root: &Path) -> Result<bool, StoreError> {
    let Some(version) = files::read_small(&root.join("version"), 4096)? else { return Ok(false) };
    let found = String::from_utf8_lossy(&version).trim_end().to_owned();
    if found == FORMAT {
        return Ok(true);
    }
    Err(StoreError::UnknownFormat { path: root.to_owned(), found, supported: FORMAT })
}

/// Makes an empty store. Two processes may do so at once; one that dies half-way leaves what the next one completes.
fn initialise(root: &Path, id: &str) -> Result<(), StoreError> {
    let is_ours = |name: &String| FOLDERS.contains(&name.as_str()) || name == "lost+found";
    if !files::names(root)?.iter().all(is_ours) && !root.join("version").exists() {
        return Err(StoreError::NotAStore { path: root.to_owned() });
    }
    fs::create_dir_all(root).at("create", root)?;
    // One after the other: whoever is done may clean up, and does not know the files of the others.
    let folder = File::open(root).at("open", root)?;
    folder.lock().at("lock", root)?;
    if is_initialised(root)? {
        return Ok(());
    }
    // Unpacked layers hold set-user-id programs and other users' files: nobody else may get at them.
    fs::set_permissions(root, fs::Permissions::from_mode(0o700)).at("set the mode of", root)?;
    for folder in FOLDERS {
        files::ensure_dir(&root.join(folder), 0o755)?;
    }
    let staged = root.join(format!("tmp/{id}.layout"));
    files::publish(&staged, &root.join("oci/oci-layout"), LAYOUT, false)?;
    let index = root.join("oci/index.json");
    if !index.exists() {
        let empty = b"{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.index.v1+json\",\"manifests\":[]}\n";
        files::publish(&staged, &index, empty, false)?;
    }
    let version = root.join("version");
    if !version.exists() {
        files::publish(&staged, &version, format!("{FORMAT}\n").as_bytes(), true)?;
    }
    Ok(())
}

/// What was written between two flushes. Its name begins with the id of the boot it was written in.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The name, written into each record that vouches for files which are not flushed one by one.
    pub(crate) name: String,
    is_used: AtomicU64,
}

/// Knows which batches are on the disk.
///
/// Flushing every file of a tree costs more than unpacking it. So trees are not flushed when they are published. Their record
/// names the batch they belong to, and [`Store::flush`], once per build, flushes the whole file system and then notes the batch in
/// the file `flushed`. A tree counts if its batch was flushed or if the machine has not been booted since.
#[derive(Debug)]
struct Batches {
    current: RwLock<Batch>,
    prefix: String,
    boot: String,
    flushed_path: PathBuf,
    flushed: Mutex<HashSet<String>>,
    n_flushes: AtomicU64,
}

impl Batches {
    fn new(root: &Path, id: &str) -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let boot = boot.trim().replace('-', "");
        let prefix = format!("{boot}-{id}");
        Self {
            current: RwLock::new(Batch { name: format!("{prefix}-0"), is_used: AtomicU64::new(0) }),
            prefix,
            boot,
            flushed_path: root.join("flushed"),
            flushed: Mutex::new(HashSet::new()),
            n_flushes: AtomicU64::new(0),
        }
    }

    fn is_intact(&self, batch: &str) -> bool {
        if batch.split('-').next() == Some(self.boot.as_str()) {
            return true;
        }
        let mut flushed = guard(&self.flushed);
        if !flushed.contains(batch) {
            let bytes =
                files::read_small(&self.flushed_path, 1 << 30).ok().flatten().unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            flushed.extend(text.lines().filter_map(flushed_batch).map(str::to_owned));
        }
        flushed.contains(batch)
    }

    fn flush(&self, root: &Path) -> Result<(), StoreError> {
        use std::io::Write;
        let batch = {
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            if *current.is_used.get_mut() == 0 {
                return Ok(());
            }
            let n = self.n_flushes.fetch_add(1, Ordering::Relaxed) + 1;
            let next = Batch { name: format!("{}-{n}", self.prefix), is_used: AtomicU64::new(0) };
            std::mem::replace(&mut *current, next)
        };
        let folder = File::open(root).at("open", root)?;
        rustix::fs::syncfs(&folder).at("flush the file system of", root)?;
        let path = &self.flushed_path;
        let mut file = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o644)
            .open(path)
            .at("open", path)?;
        // A line that a power cut left unfinished ends here.
        let line = format!("\n{} {}\n", batch.name, short_hash(&batch.name));
        file.write_all(line.as_bytes()).at("write", path)?;
        file.sync_all().at("flush", path)?;
        folder.sync_all().at("flush", root)
    }
}

/// Returns the batch that a line of the file `flushed` names; `None` if the line is not what was written.
pub(crate) fn flushed_batch(line: &str) -> Option<&str> {
    match line.split_once(' ') {
        Some((batch, hash)) => (short_hash(batch) == hash).then_some(batch),
        None => Some(line).filter(|it| !it.is_empty()),
    }
}

fn short_hash(text: &str) -> String {
    let mut hash = blake3::hash(text.as_bytes()).to_hex().to_string();
    hash.truncate(8);
    hash
}

/// Writes the mark of an OCI layout again.
pub(crate) fn write_layout_file(store: &Store) -> Result<(), StoreError> {
    store.publish(&store.path("oci/oci-layout"), LAYOUT, true)
}

/// Tells whether the note of the format is what nobody can have written, while everything else looks like a store.
pub(crate) fn has_damaged_format(root: &Path, found: &[u8]) -> bool {
    let found = String::from_utf8_lossy(found);
    let number = found.trim_end().strip_prefix("kiln store ").map(str::parse::<u32>);
    let n_folders = FOLDERS.iter().filter(|it| root.join(it).is_dir()).count();
    !matches!(number, Some(Ok(_))) && n_folders * 2 > FOLDERS.len()
}

/// See [`Store::repair_format`].
pub(crate) fn repair_format(root: &Path) -> Result<bool, StoreError> {
    let path = root.join("version");
    let found = files::read_small(&path, 4096)?.unwrap_or_default();
    if !has_damaged_format(root, &found) {
        return Ok(false);
    }
    let staged = root.join(format!("tmp/{}.version", unique_id()));
    files::ensure_dir(&root.join("tmp"), 0o755)?;
    files::publish(&staged, &path, format!("{FORMAT}\n").as_bytes(), true)?;
    Ok(true)
}
