//! What one build works with: the store, the registry, contexts, secrets, who listens, and whether to stop.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use cache::{BuildStep, Store};
use image::compress::Compression;
use registry::Client;

use crate::{
    context::Context,
    error::ExecutorError,
    event::{Event, Listener, Outcome, TaskId},
    explain::About,
    fetch::Fetches,
    image_source::RemoteLayers,
    remote::{Shared, SharedState},
    run::Copies,
    run::keys::SshKeys,
    ship::Compressing,
    tree::KnownChains,
};

/// Where a secret comes from.
#[derive(Debug, Clone)]
pub enum Secret {
    /// A file, read when a step asks for it.
    File(std::path::PathBuf),
    /// A value.
    Value(Vec<u8>),
}

/// A secret is at most this long, as in BuildKit.
const SECRET_LIMIT: u64 = 500 << 10;

/// Who signs for SSH.
#[derive(Debug, Clone)]
pub enum SshAgent {
    /// An agent, by its socket.
    Socket(std::path::PathBuf),
    /// kiln itself, with keys from files.
    Keys(Arc<SshKeys>),
}

/// How often a wait for the network looks whether the build has to stop.
const CANCEL_POLL: Duration = Duration::from_millis(50);

/// How many bytes of the output of a RUN are logged and shown if nothing else is said; BuildKit has the same limit.
pub const LOG_LIMIT: u64 = 2 << 20;

/// What a build works with.
pub struct Session {
    /// The store.
    pub store: Store,
    /// The registry client.
    pub client: Client,
    /// Who hears of progress.
    pub listener: Listener,
    /// Set when the build has to stop.
    pub cancel: Cancel,
    /// Local contexts by name; the main one is `context`.
    pub contexts: BTreeMap<String, Context>,
    /// Secrets by id.
    pub secrets: BTreeMap<String, Secret>,
    /// SSH agents by id.
    pub ssh: BTreeMap<String, SshAgent>,
    /// How many steps may run at once.
    pub n_jobs: usize,
    /// `--pull`: ask the registry even for images that are here.
    pub pull: bool,
    /// No time in a layer is later than the source date epoch, where one is set.
    pub clamp_times: bool,
    /// How an output of the build compresses layers: those that are only shipped are written so at once.
    pub compression: Option<Compression>,
    /// The network of a RUN that does not ask for a certain one.
    pub default_network: DefaultNetwork,
    /// How many bytes of the output of a RUN are logged and shown. An error repeats the last lines in any case.
    pub log_limit: u64,
    /// What a RUN may use.
    pub limits: sandbox::CgroupLimits,
    /// The build's name in the store's logs and its journal; one of its own, unless another is given.
    pub build_id: String,
    /// What is built, for the journal; a build without is not noted there.
    pub about: Option<About>,
    /// Keeps what this session looks up from being collected.
    _lease: Option<cache::Lease>,
    /// A cache and a worker that others share.
    pub shared: Shared,
    pub(crate) shared_state: SharedState,
    /// What a build did so far; nothing if none began.
    done: Mutex<Option<Vec<BuildStep>>>,
    pub(crate) remote: RemoteLayers,
    pub(crate) compressing: Compressing,
    pub(crate) fetches: Fetches,
    pub(crate) copies: Copies,
    pub(crate) known: KnownChains,
    runtime: OnceLock<tokio::runtime::Runtime>,
    next_task: AtomicU32,
    said: Mutex<BTreeSet<&'static str>>,
    _at_end: AtEnd,
}

/// Ends what the sandboxes of a session have kept for those that might have followed.
#[derive(Debug)]
struct AtEnd;

impl Drop for AtEnd {
    fn drop(&mut self) {
        sandbox::release();
    }
}

/// The network of a RUN that does not ask for a certain one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DefaultNetwork {
    /// One of its own with a way out, and where that cannot be had the machine's, with a warning.
    #[default]
    IsolatedOrHost,
    /// One of its own with a way out, or an error.
    Isolated,
    /// The machine's.
    Host,
}

impl Session {
    /// Makes a session with no contexts, no secrets, and a listener that hears nothing.
    pub fn new(store: Store, client: Client) -> Self {
        // Without one a build asks again, and fails where there is none to be had.
        let lease = store.lease().ok();
        Self {
            _lease: lease,
            store,
            client,
            listener: Arc::new(|_| {}),
            cancel: Cancel::default(),
            contexts: BTreeMap::new(),
            secrets: BTreeMap::new(),
            ssh: BTreeMap::new(),
            n_jobs: crate::threads().max(2) * 4,
            pull: false,
            clamp_times: false,
            compression: None,
            default_network: DefaultNetwork::default(),
            said: Mutex::new(BTreeSet::new()),
            build_id: new_build_id(),
            done: Mutex::new(None),
            log_limit: LOG_LIMIT,
            shared: Shared::default(),
            shared_state: SharedState::default(),
            limits: sandbox::CgroupLimits::usual(),
            _at_end: AtEnd,
            about: None,
            remote: RemoteLayers::default(),
            compressing: Compressing::default(),
            fetches: Fetches::default(),
            copies: Copies::default(),
            known: KnownChains::default(),
            runtime: OnceLock::new(),
            next_task: AtomicU32::new(0),
        }
    }

    /// Whether this is the first time that something is to be said.
    pub(crate) fn is_said_once(&self, what: &'static str) -> bool {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).insert(what)
    }

    /// Runs something asynchronous to its end, or until the build has to stop. The runtime is made at the first call.
    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> Result<T, ExecutorError> {
        if self.runtime.get().is_none() {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .map_err(|source| ExecutorError::Runtime { source })?;
            let _ = self.runtime.set(runtime);
        }
        match self.runtime.get() {
            Some(runtime) => runtime.block_on(async {
                let stopped = async {
                    while !self.cancel.is_canceled() {
                        tokio::time::sleep(CANCEL_POLL).await;
                    }
                };
                tokio::select! {
                    result = future => Ok(result),
                    () = stopped => Err(ExecutorError::Canceled),
                }
            }),
            None => Err(ExecutorError::Runtime { source: std::io::ErrorKind::NotFound.into() }),
        }
    }

    /// Returns a secret; nothing if it was not given.
    pub(crate) fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, ExecutorError> {
        let mut bytes = Vec::new();
        match self.secrets.get(id) {
            None => return Ok(None),
            Some(Secret::Value(value)) => bytes.clone_from(value),
            Some(Secret::File(path)) => {
                std::fs::File::open(path)
                    .and_then(|it| it.take(SECRET_LIMIT + 1).read_to_end(&mut bytes))
                    .map_err(|source| ExecutorError::Read {
                        path: path.display().to_string(),
                        source,
                    })?;
            }
        }
        if bytes.len() as u64 > SECRET_LIMIT {
            return Err(ExecutorError::Unsupported {
                message: format!("secret `{id}` is longer than {} KiB", SECRET_LIMIT >> 10),
                hint: "give large data as a bind mount or a build context".to_owned(),
            });
        }
        Ok(Some(bytes))
    }

    /// Says of an error that the disk of the store is full, if that is behind it.
    pub(crate) fn of_full_disk(&self, error: ExecutorError) -> ExecutorError {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(it) = cause {
            let kind = it.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
            if matches!(
                kind,
                Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
            ) {
                let store = self.store.root().to_owned();
                return ExecutorError::StoreFull { store, source: Box::new(error) };
            }
            cause = it.source();
        }
        error
    }

    /// Begins a task of the progress display.
    pub(crate) fn task(&self, name: impl Into<String>) -> Task<'_> {
        let task = self.later_task(name);
        task.start();
        task
    }

    /// A task that is shown when its work begins, or when it ends: what it waits for comes before it.
    pub(crate) fn later_task(&self, name: impl Into<String>) -> Task<'_> {
        let id = TaskId(self.next_task.fetch_add(1, Ordering::Relaxed));
        Task { session: self, id, name: name.into(), begun: OnceLock::new(), is_done: false }
    }
}

impl Session {
    /// From now on what is done is remembered for `kiln logs`.
    pub(crate) fn remember_tasks(&self) {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut steps) = done {
            steps.sort_by(|a, b| a.log.cmp(&b.log));
            // Whoever cannot keep a log has built all the same.
            let _ = self.store.save_build_steps(&self.build_id, &steps);
        }
    }
}

/// A name that no other build has: the time and the process, so that names sort by age.
fn new_build_id() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    format!("{:020x}-{:x}", since.unwrap_or_default().as_nanos(), std::process::id())
}

/// One line of progress. Dropped without an outcome, it was canceled.
pub(crate) struct Task<'a> {
    session: &'a Session,
    pub(crate) id: TaskId,
    name: String,
    begun: OnceLock<Instant>,
    is_done: bool,
}

impl Task<'_> {
    /// Shows the task, if it is not shown yet.
    pub(crate) fn start(&self) {
        self.begun.get_or_init(|| {
            (self.session.listener)(Event::Started { task: self.id, name: self.name.clone() });
            Instant::now()
        });
    }

    /// A name for the file of its output: its number and the beginning of its name.
    pub(crate) fn log_name(&self) -> String {
        let words = self.name.split(']').next_back().unwrap_or_default().trim();
        let is_plain = |it: char| it.is_ascii_alphanumeric();
        let slug: String =
            words.chars().take(40).map(|it| if is_plain(it) { it } else { '-' }).collect();
        format!("{:03}-{}", self.id.0, slug.trim_matches('-'))
    }

    pub(crate) fn log(&self, stream: u8, bytes: Vec<u8>) {
        self.start();
        (self.session.listener)(Event::Log { task: self.id, stream, bytes });
    }

    pub(crate) fn progress(&self, part: &str, current: u64, total: Option<u64>, done: bool) {
        self.start();
        (self.session.listener)(Event::Progress {
            task: self.id,
            part: part.to_owned(),
            current,
            total,
            done,
        });
    }

    pub(crate) fn warn(&self, message: String) {
        self.start();
        (self.session.listener)(Event::Warning { task: Some(self.id), message });
    }

    /// Ends the task, and passes the result on.
    pub(crate) fn end<T>(mut self, result: Result<T, ExecutorError>) -> Result<T, ExecutorError> {
        let outcome = match &result {
            Ok(_) => Outcome::Done,
            Err(ExecutorError::Canceled) => Outcome::Canceled,
            Err(error) => Outcome::Failed { message: full_message(error) },
        };
        self.finish(outcome);
        result
    }

    /// Ends the task: its result was known.
    pub(crate) fn cached(mut self) {
        self.finish(Outcome::Cached);
    }

    fn finish(&mut self, outcome: Outcome) {
        self.start();
        self.is_done = true;
        let elapsed = self.begun.get().map(Instant::elapsed).unwrap_or_default();
        if let Some(done) =
            self.session.done.lock().unwrap_or_else(PoisonError::into_inner).as_mut()
        {
            let (name, log) = (self.name.clone(), self.log_name());
            done.push(BuildStep { name, outcome: outcome.code().to_owned(), log });
        }
        (self.session.listener)(Event::Done { task: self.id, outcome, elapsed });
    }
}

impl Drop for Task<'_> {
    fn drop(&mut self) {
        if !self.is_done && self.begun.get().is_some() {
            self.finish(Outcome::Canceled);
        }
    }
}

/// A message with those of its causes.
pub fn full_message(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(it) = cause {
        text.push_str(": ");
        text.push_str(&it.to_string());
        cause = it.source();
    }
    text
}

/// A switch that stops a build: running processes are killed, nothing new begins.
#[derive(Clone, Default)]
pub struct Cancel(Arc<CancelState>);

#[derive(Default)]
struct CancelState {
    is_set: AtomicBool,
    on_cancel: Mutex<BTreeMap<u64, Box<dyn Fn() + Send>>>,
    next: std::sync::atomic::AtomicU64,
}

impl Cancel {
    /// Stops the build. Can be called from any thread, and again.
    pub fn cancel(&self) {
        self.0.is_set.store(true, Ordering::SeqCst);
        for act in self.0.on_cancel.lock().unwrap_or_else(PoisonError::into_inner).values() {
            act();
        }
    }

    /// Whether the build has to stop.
    pub fn is_canceled(&self) -> bool {
        self.0.is_set.load(Ordering::SeqCst)
    }

    /// Fails if the build has to stop.
    pub(crate) fn check(&self) -> Result<(), ExecutorError> {
        if self.is_canceled() { Err(ExecutorError::Canceled) } else { Ok(()) }
    }

    /// Calls `act` when the build is stopped, until the guard is dropped; at once if it was stopped already.
    pub(crate) fn on_cancel(&self, act: impl Fn() + Send + 'static) -> CancelGuard {
        if self.is_canceled() {
            act();
        }
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.0.on_cancel.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Box::new(act));
        if self.is_canceled()
            && let Some(act) =
                self.0.on_cancel.lock().unwrap_or_else(PoisonError::into_inner).get(&id)
        {
            act();
        }
        CancelGuard { state: self.0.clone(), id }
    }
}

/// Takes an action out of the switch again.
pub(crate) struct CancelGuard {
    state: Arc<CancelState>,
    id: u64,
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        self.state.on_cancel.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}
