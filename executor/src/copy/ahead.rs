//! Reads small files ahead on other processors, for the one thread that writes them into a layer.
//!
//! Files are read in batches, in any order, and handed out in theirs. Only so many batches are in memory at a time.

use std::{
    io::Read,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use super::earlier::Earlier;
use crate::{
    error::ExecutorError,
    threads,
    tree::{Tree, lossy},
};

/// Files up to this size are read ahead, in bytes.
pub(super) const SMALL: u64 = 128 * 1024;
/// How much a batch holds at most: files, and bytes but for the last file.
const MAX_FILES: usize = 64;
const MAX_BYTES: u64 = 256 * 1024;

/// A file to be read.
pub(super) struct Wanted {
    /// Which tree of the step it is in.
    pub tree_idx: usize,
    /// Its real path.
    pub path: Vec<u8>,
    /// Its length in bytes.
    pub size: u64,
    /// The digest that is in the step's key.
    pub content: Option<[u8; 32]>,
}

/// A file that was read, and its BLAKE3.
type FileRead = (Vec<u8>, [u8; 32]);
type BatchRead = Result<Vec<FileRead>, ExecutorError>;

/// What the threads share.
pub(super) struct Ahead<'a> {
    trees: &'a [Tree],
    /// Where a file may be as well.
    earlier: Option<&'a Earlier>,
    /// Each is taken when it is read.
    batches: Vec<Mutex<Vec<Wanted>>>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The next batch that nobody reads yet.
    next: usize,
    /// The batch that is handed out.
    n_handed_out: usize,
    read: Vec<Option<BatchRead>>,
    is_over: bool,
}

/// Hands the files out.
pub(super) struct Files<'a> {
    ahead: &'a Ahead<'a>,
    n_batches: usize,
    batch: std::vec::IntoIter<FileRead>,
}

impl<'a> Ahead<'a> {
    /// Prepares to read `wanted` in this order.
    pub(super) fn new(
        trees: &'a [Tree],
        earlier: Option<&'a Earlier>,
        wanted: Vec<Wanted>,
    ) -> Self {
        let mut batches: Vec<Vec<Wanted>> = Vec::new();
        let mut n_bytes = 0;
        for it in wanted {
            match batches.last_mut() {
                Some(batch) if batch.len() < MAX_FILES && n_bytes < MAX_BYTES => {
                    n_bytes += it.size;
                    batch.push(it);
                }
                _ => {
                    n_bytes = it.size;
                    batches.push(vec![it]);
                }
            }
        }
        let read = batches.iter().map(|_| None).collect();
        let batches = batches.into_iter().map(Mutex::new).collect();
        let state = Mutex::new(State { read, ..State::default() });
        Self { trees, earlier, batches, state, changed: Condvar::new() }
    }

    /// Calls `write` with the files, while others read them.
    pub(super) fn write<T>(&self, write: impl FnOnce(&mut Files<'_>) -> T) -> T {
        std::thread::scope(|scope| {
            // Whoever writes reads as well when it has to wait.
            let n_threads = (threads() - 1).max(1).min(self.batches.len() / 2);
            for _ in 0..n_threads {
                scope.spawn(|| self.work());
            }
            let mut files = Files { ahead: self, n_batches: 0, batch: Vec::new().into_iter() };
            let result = write(&mut files);
            self.lock().is_over = true;
            self.changed.notify_all();
            result
        })
    }

    fn work(&self) {
        let n_ahead = threads() + 2;
        let mut state = self.lock();
        loop {
            if state.is_over || state.next == self.batches.len() {
                return;
            }
            if state.next >= state.n_handed_out + n_ahead {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let nth = state.next;
            state.next += 1;
            drop(state);
            let read = self.read(nth);
            state = self.lock();
            state.read[nth] = Some(read);
            self.changed.notify_all();
        }
    }

    /// Waits for a batch, or reads it if nobody does.
    fn batch(&self, nth: usize) -> BatchRead {
        let mut state = self.lock();
        state.n_handed_out = nth;
        self.changed.notify_all();
        loop {
            if let Some(read) = state.read.get_mut(nth).and_then(Option::take) {
                return read;
            }
            if state.next == nth {
                state.next += 1;
                drop(state);
                return self.read(nth);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn read(&self, nth: usize) -> BatchRead {
        let mut batch = self.batches[nth].lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *batch).iter().map(|it| self.read_one(it)).collect()
    }

    fn read_one(&self, wanted: &Wanted) -> Result<FileRead, ExecutorError> {
        let mut bytes = Vec::with_capacity(usize::try_from(wanted.size).unwrap_or(0) + 1);
        if let (Some(earlier), Some(content)) = (self.earlier, wanted.content) {
            if earlier.read(&content, wanted.size, &mut bytes) {
                return Ok((bytes, content));
            }
            bytes.clear();
        }
        self.trees[wanted.tree_idx]
            .open(&wanted.path)?
            .take(wanted.size)
            .read_to_end(&mut bytes)
            .map_err(|source| ExecutorError::Read { path: lossy(&wanted.path), source })?;
        let content = *blake3::hash(&bytes).as_bytes();
        // Under the key of this copy there must be what the key is made of.
        if wanted.content.is_some_and(|it| it != content) {
            return Err(ExecutorError::Changed { path: lossy(&wanted.path) });
        }
        Ok((bytes, content))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Files<'_> {
    /// The next of the files that were wanted; nothing after the last one.
    pub(super) fn next(&mut self) -> Result<Option<FileRead>, ExecutorError> {
        loop {
            if let Some(file) = self.batch.next() {
                return Ok(Some(file));
            }
            if self.n_batches == self.ahead.batches.len() {
                return Ok(None);
            }
            self.batch = self.ahead.batch(self.n_batches)?.into_iter();
            self.n_batches += 1;
        }
    }
}
