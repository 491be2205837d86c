//! The folder of a container: made, listed, removed. See the [crate] for what lies in it.
//!
//! Whoever makes, lists or judges containers holds the store's lock `containers`, so a folder without a lock file has no owner. A
//! container runs as long as its own lock is held.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use cache::Store;
use image::ImageId;
use rustix::{
    io::Errno,
    process::{self, Pid, PidfdFlags, pidfd_open, pidfd_send_signal},
};
use serde::{Deserialize, Serialize};

use crate::{
    error::RuntimeError,
    signal::{self, Signal},
};

/// The end of the name of a folder that is on its way out.
const REMOVED: &str = ".removed";
/// What a container in the background writes.
const LOG: &str = "log";

/// Names a container: 64 hexadecimal digits, chosen at random.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ContainerId(String);

impl ContainerId {
    fn random() -> io::Result<Self> {
        let mut bytes = [0; 32];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(Self(bytes.iter().map(|it| format!("{it:02x}")).collect()))
    }

    fn parse(text: &str) -> Option<Self> {
        let is_id =
            text.len() == 64 && text.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
        is_id.then(|| Self(text.to_owned()))
    }

    /// Its first twelve digits, as listings show them.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is remembered of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Its id.
    pub id: ContainerId,
    /// Its name, if it was given one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The image as the user wrote it.
    pub image: String,
    /// The image.
    pub image_id: ImageId,
    /// The command.
    pub command: Vec<String>,
    /// When it was made, in seconds since the Unix epoch.
    pub created: u64,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Its ports that are reached from outside, as docker shows them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
    /// What asks its command to end, where that is not SIGTERM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// So many seconds the command has to end by itself; -1 is for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// Remove it when it has ended.
    pub remove: bool,
    /// Who runs it, or ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<Runner>,
    /// How it ended; `None` while it runs, and for one whose kiln was killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<i32>,
    /// When it ended, in seconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<u64>,
}

/// The kiln that runs a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runner {
    /// The number of its process.
    pub pid: i32,
    /// The namespace in which that number counts, by inode.
    pub namespace: u64,
}

impl Runner {
    /// This process, if it can tell who it is.
    fn here() -> Option<Self> {
        let pid = i32::try_from(std::process::id()).ok()?;
        Some(Self { pid, namespace: fs::metadata("/proc/self/ns/pid").ok()?.ino() })
    }
}

/// A container of this process. Dropping it removes it, unless it has ended and is to be kept.
#[derive(Debug)]
pub struct Container {
    folder: PathBuf,
    state: State,
    is_kept: bool,
    _lock: File,
}

/// What is known of a container before it exists.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    pub(crate) name: Option<&'a str>,
    pub(crate) image: &'a str,
    pub(crate) image_id: ImageId,
    pub(crate) labels: &'a BTreeMap<String, String>,
    pub(crate) ports: Vec<String>,
    pub(crate) stop_signal: Option<String>,
    pub(crate) stop_timeout: Option<i64>,
    pub(crate) remove: bool,
}

impl Container {
    /// Makes the folder of a container, and locks it.
    pub(crate) fn create(store: &Store, draft: &Draft<'_>) -> Result<Self, RuntimeError> {
        let all = folder_of_all(store);
        if let Some(name) = draft.name {
            check_name(name)?;
        }
        let _turn = store.lock("containers")?;
        if let Some(name) = draft.name {
            let has_name = |it: &(State, bool)| it.0.name.as_deref() == Some(name);
            if let Some((state, is_running)) = list(&all)?.into_iter().find(has_name) {
                let (name, id) = (name.to_owned(), state.id.short().to_owned());
                return Err(RuntimeError::NameInUse { name, id, is_running });
            }
        }
        make_folder(&all)?;
        let id = ContainerId::random().map_err(RuntimeError::io("read", "/dev/urandom"))?;
        let folder = all.join(&id.0);
        make_folder(&folder)?;
        let lock_path = folder.join("lock");
        let lock = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&lock_path);
        let lock = lock.map_err(RuntimeError::io("create", &lock_path))?;
        lock.lock().map_err(RuntimeError::io("lock", &lock_path))?;
        let state = State {
            id,
            name: draft.name.map(str::to_owned),
            image: draft.image.to_owned(),
            image_id: draft.image_id,
            command: Vec::new(),
            created: now(),
            labels: draft.labels.clone(),
            ports: draft.ports.clone(),
            stop_signal: draft.stop_signal.clone(),
            stop_timeout: draft.stop_timeout,
            remove: draft.remove,
            runner: Runner::here(),
            status: None,
            finished: None,
        };
        let container = Self { folder, state, is_kept: false, _lock: lock };
        container.write_state()?;
        Ok(container)
    }

    /// What is remembered of it.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes an empty folder of this mode in it.
    pub(crate) fn make(&self, name: &str) -> Result<PathBuf, RuntimeError> {
        let path = self.folder.join(name);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&path)
            .map_err(RuntimeError::io("create", &path))?;
        Ok(path)
    }

    /// Makes the file of its output, for one that has no streams of ours.
    pub(crate) fn make_log(&self) -> Result<File, RuntimeError> {
        let path = self.folder.join(LOG);
        let options = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path);
        options.map_err(RuntimeError::io("create", &path))
    }

    /// Remembers what runs in it.
    pub(crate) fn started(&mut self, command: Vec<String>) -> Result<(), RuntimeError> {
        self.state.command = command;
        self.write_state()
    }

    /// Remembers how it ended, or removes it.
    pub(crate) fn ended(mut self, status: i32) -> Result<(), RuntimeError> {
        if self.state.remove {
            return remove_folder(&self.folder);
        }
        self.is_kept = true;
        self.state.status = Some(status);
        self.state.finished = Some(now());
        self.write_state()
    }

    fn write_state(&self) -> Result<(), RuntimeError> {
        let (path, staged) = (self.folder.join("state.json"), self.folder.join("state.new"));
        let write = || {
            fs::write(&staged, serde_json::to_vec(&self.state)?)?;
            fs::rename(&staged, &path)
        };
        write().map_err(RuntimeError::io("write", &path))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if !self.is_kept {
            let _ = remove_folder(&self.folder);
        }
    }
}

/// Lists the containers, the youngest first, and says of each whether it runs.
///
/// # Errors
///
/// [`RuntimeError::Io`] if the folder cannot be read, [`RuntimeError::Store`] if the lock cannot be had.
pub fn containers(store: &Store) -> Result<Vec<(State, bool)>, RuntimeError> {
    let all = folder_of_all(store);
    if !all.exists() {
        return Ok(Vec::new());
    }
    let _turn = store.lock("containers")?;
    list(&all)
}

/// Lists containers as [`containers`] does, each with how much room it takes on the disk, in bytes.
///
/// # Errors
///
/// As for [`containers`].
pub fn sizes(store: &Store) -> Result<Vec<(State, bool, u64)>, RuntimeError> {
    let size = |it: &State| n_bytes(&folder_of_all(store).join(it.id.to_string()));
    Ok(containers(store)?.into_iter().map(|(it, runs)| (it.clone(), runs, size(&it))).collect())
}

/// Removes what killed processes left of containers that were not to be kept. Costs nothing where there are no containers.
///
/// # Errors
///
/// As for [`containers`].
pub fn reap(store: &Store) -> Result<(), RuntimeError> {
    let unwanted = |state: Option<&State>| state.is_none_or(|it| it.remove);
    sweep(store, unwanted).map(|_| ())
}

/// What [`remove_ended`] has removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// The containers.
    pub ids: Vec<ContainerId>,
    /// How much room they took on the disk, in bytes.
    pub n_bytes: u64,
}

/// Removes all containers that do not run.
///
/// # Errors
///
/// As for [`containers`].
pub fn remove_ended(store: &Store) -> Result<Removed, RuntimeError> {
    sweep(store, |_| true)
}

/// Removes those of the containers that do not run for which `is_unwanted` holds; one without a state was never finished.
fn sweep(
    store: &Store,
    is_unwanted: impl Fn(Option<&State>) -> bool,
) -> Result<Removed, RuntimeError> {
    let all = folder_of_all(store);
    let mut removed = Removed::default();
    if names(&all)?.is_empty() {
        return Ok(removed);
    }
    let mut gone = Vec::new();
    {
        let _turn = store.lock("containers")?;
        for name in names(&all)? {
            let folder = all.join(&name);
            if name.ends_with(REMOVED) {
                gone.push(folder);
            } else if let Some(id) = ContainerId::parse(&name)
                && !has_owner(&folder)?
                && is_unwanted(read_state(&folder)?.as_ref())
            {
                let aside = aside(&folder);
                fs::rename(&folder, &aside).map_err(RuntimeError::io("remove", &folder))?;
                gone.push(aside);
                removed.ids.push(id);
            }
        }
    }
    for folder in gone {
        removed.n_bytes += n_bytes(&folder);
        match remove_all(&folder) {
            // Files of other users, which a command in a user namespace will remove.
            Err(RuntimeError::Io { source, .. })
                if source.kind() == ErrorKind::PermissionDenied && !store.can_own() => {}
            result => result?,
        }
    }
    Ok(removed)
}

/// Removes a container that has ended; one that runs stays.
///
/// # Errors
///
/// As for [`containers`].
pub fn remove(store: &Store, id: &ContainerId) -> Result<Removed, RuntimeError> {
    sweep(store, |it| it.is_some_and(|it| it.id == *id))
}

/// Opens what a container has written, if that was kept.
///
/// # Errors
///
/// [`RuntimeError::Io`] if it cannot be read.
pub fn log(store: &Store, id: &ContainerId) -> Result<Option<File>, RuntimeError> {
    let path = folder_of_all(store).join(id.to_string()).join(LOG);
    match File::open(&path) {
        Ok(log) => Ok(Some(log)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(RuntimeError::io("open", &path)(error)),
    }
}

/// Says whether a container runs.
///
/// # Errors
///
/// [`RuntimeError::Io`] if its lock cannot be looked at.
pub fn is_running(store: &Store, id: &ContainerId) -> Result<bool, RuntimeError> {
    has_owner(&folder_of_all(store).join(id.to_string()))
}

/// Sends a signal to a container, by way of the kiln that runs it. One that has ended gets none.
///
/// # Errors
///
/// [`RuntimeError::OutOfReach`] if that kiln is in another container of the machine, [`RuntimeError::Io`] if the signal cannot be sent.
pub fn send(store: &Store, state: &State, signal: Signal) -> Result<(), RuntimeError> {
    tell(store, state, Some(signal))
}

/// Asks the kiln that runs a container to end it. When it is asked for the third time it does, whatever the command makes of it.
///
/// # Errors
///
/// Those of [`send`].
pub fn ask_to_end(store: &Store, state: &State) -> Result<(), RuntimeError> {
    tell(store, state, None)
}

fn tell(store: &Store, state: &State, by: Option<Signal>) -> Result<(), RuntimeError> {
    let here = Runner::here();
    let runner = state.runner.filter(|it| here.is_some_and(|here| here.namespace == it.namespace));
    let pid = runner.and_then(|it| Pid::from_raw(it.pid)).ok_or(RuntimeError::OutOfReach)?;
    let failed = |errno: Errno| {
        RuntimeError::io("send a signal to", format!("/proc/{}", pid.as_raw_nonzero()))(
            errno.into(),
        )
    };
    let handle = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(Errno::SRCH) => return Ok(()),
        Err(errno) => return Err(failed(errno)),
    };
    // Looked at last: as long as somebody holds the lock, it is that process.
    if !is_running(store, &state.id)? {
        return Ok(());
    }
    let told = match by {
        // That there is one in the file.
        Some(signal) => {
            match signal::leave(&folder_of_all(store).join(state.id.to_string()), signal)? {
                true => process::Signal::URG,
                false => return Ok(()),
            }
        }
        None => process::Signal::TERM,
    };
    match pidfd_send_signal(&handle, told) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(errno) => Err(failed(errno)),
    }
}

fn folder_of_all(store: &Store) -> PathBuf {
    store.root().join("containers")
}

fn list(all: &Path) -> Result<Vec<(State, bool)>, RuntimeError> {
    let mut found = Vec::new();
    for name in names(all)?.iter().filter(|it| ContainerId::parse(it).is_some()) {
        let folder = all.join(name);
        if let Some(state) = read_state(&folder)? {
            found.push((state, has_owner(&folder)?));
        }
    }
    found.sort_by(|(a, _), (b, _)| (b.created, &a.id).cmp(&(a.created, &b.id)));
    Ok(found)
}

fn names(all: &Path) -> Result<Vec<String>, RuntimeError> {
    let entries = match fs::read_dir(all) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(RuntimeError::io("read", all)(error)),
    };
    entries
        .map(|it| it.map(|it| it.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<_>>()
        .map_err(RuntimeError::io("read", all))
}

/// A state that does not parse was cut off: there is none.
fn read_state(folder: &Path) -> Result<Option<State>, RuntimeError> {
    let path = folder.join("state.json");
    match fs::read(&path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(RuntimeError::io("read", path)(error)),
    }
}

fn has_owner(folder: &Path) -> Result<bool, RuntimeError> {
    let path = folder.join("lock");
    match File::open(&path) {
        Ok(file) => match file.try_lock() {
            Ok(()) => Ok(false),
            Err(fs::TryLockError::WouldBlock) => Ok(true),
            Err(fs::TryLockError::Error(error)) => Err(RuntimeError::io("lock", path)(error)),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(RuntimeError::io("open", path)(error)),
    }
}

fn check_name(name: &str) -> Result<(), RuntimeError> {
    let plain = |it: u8| it.is_ascii_alphanumeric();
    let mut bytes = name.bytes();
    let is_good = bytes.next().is_some_and(plain)
        && name.len() > 1
        && bytes.all(|it| plain(it) || matches!(it, b'_' | b'.' | b'-'));
    if is_good { Ok(()) } else { Err(RuntimeError::BadName { name: name.to_owned() }) }
}

fn make_folder(path: &Path) -> Result<(), RuntimeError> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(RuntimeError::io("create", path)(error))
        }
        _ => Ok(()),
    }
}

/// Removes a folder: first its name, so that what is half gone is no container.
fn remove_folder(folder: &Path) -> Result<(), RuntimeError> {
    let aside = aside(folder);
    match fs::rename(folder, &aside) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(RuntimeError::io("remove", folder)(error)),
        Ok(()) => remove_all(&aside),
    }
}

/// Two processes may do this at once.
fn remove_all(folder: &Path) -> Result<(), RuntimeError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(RuntimeError::io("remove", folder)(error))
        }
        _ => Ok(()),
    }
}

fn aside(folder: &Path) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(REMOVED);
    folder.with_file_name(name)
}

/// What a folder takes on the disk, as well as that can be said.
fn n_bytes(folder: &Path) -> u64 {
    let mut sum = 0;
    let mut rest = vec![folder.to_owned()];
    while let Some(folder) = rest.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            sum += metadata.blocks() * 512;
            if metadata.is_dir() {
                rest.push(entry.path());
            }
        }
    }
    sum
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft<'a>(
        name: Option<&'a str>,
        labels: &'a BTreeMap<String, String>,
        remove: bool,
    ) -> Draft<'a> {
        let image_id = ImageId(image::Digest::of(b"image"));
        Draft {
            name,
            image: "app",
            image_id,
            labels,
            ports: Vec::new(),
            stop_signal: None,
            stop_timeout: None,
            remove,
        }
    }

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("a store");
        (folder, store)
    }

    #[test]
    fn names_are_unique_among_those_that_exist() {
        let (_folder, store) = store();
        let labels = BTreeMap::new();
        let create = |name| Container::create(&store, &draft(Some(name), &labels, false));
        let first = create("one").expect("a container");
        let id = first.state().id.clone();
        let taken = |running: bool| {
            let error = create("one").expect_err("the name is taken");
            matches!(&error, RuntimeError::NameInUse { id: it, is_running, .. } if it == id.short() && *is_running == running)
        };
        assert!(taken(true));
        first.ended(3).expect("it is written");
        assert!(taken(false));
        create("two").expect("another container");
        let states = containers(&store).expect("a list");
        let shown: Vec<_> = states.iter().map(|(it, running)| (it.status, *running)).collect();
        assert_eq!(shown, [(Some(3), false)], "a container that never started is gone");
        let removed = remove_ended(&store).expect("they go");
        assert_eq!(removed.ids, [id]);
        assert!(removed.n_bytes > 0);
        create("one").expect("the name is free again");
        for bad in ["", "a", "-a", "a/b", "ä1", "a b", ".."] {
            assert_eq!(
                create(bad).map(drop).map_err(|it| it.code()),
                Err("bad-container-name"),
                "{bad}"
            );
        }
    }

    #[test]
    fn what_killed_processes_left_is_reaped() {
        let (_folder, store) = store();
        let labels = BTreeMap::new();
        let all = folder_of_all(&store);
        reap(&store).expect("nothing to do");
        assert!(!all.exists());

        // As after a SIGKILL: the folder is there, nobody has the lock.
        let leave = |remove| {
            let mut container =
                Container::create(&store, &draft(None, &labels, remove)).expect("a container");
            container.is_kept = true;
            container.state.id.clone()
        };
        leave(true);
        let kept = leave(false);
        let running = Container::create(&store, &draft(None, &labels, true)).expect("a container");
        fs::create_dir_all(all.join("x.removed/upper")).expect("a folder");
        fs::create_dir(all.join("0".repeat(64))).expect("a folder");
        reap(&store).expect("they go");
        let mut left = names(&all).expect("names");
        left.sort();
        let mut expected = vec![kept.to_string(), running.state().id.to_string()];
        expected.sort();
        assert_eq!(left, expected);
        drop(running);
        assert_eq!(names(&all).expect("names"), [kept.to_string()]);
    }
}
