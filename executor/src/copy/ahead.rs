//! Reads small files ahead on other processors, for the one thread that writes them into a layer.
//!
//! Entries are taken in batches, whose files are read in any order, and handed out in theirs. Only so many batches are in memory at a time.

use std::{
    collections::BTreeMap,
    io::Read,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use image::entry::Kind;

use super::{
    earlier::Earlier,
    place::{Content, Entries, Item, Origin, Origins},
};
use crate::{
    error::ExecutorError,
    threads,
    tree::{Tree, lossy},
};

/// Files up to this size are read ahead, in bytes.
const SMALL: u64 = 128 * 1024;
/// How much a batch holds at most: entries, and bytes but for the last file.
const MAX_ENTRIES: usize = 64;
const MAX_BYTES: u64 = 256 * 1024;

type Batch = Result<Vec<Item>, ExecutorError>;

/// What the threads share.
pub(super) struct Ahead<'a> {
    trees: &'a [Tree],
    /// Where a file may be as well.
    earlier: Option<&'a Earlier>,
    origins: Origins,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    entries: Entries,
    /// How many batches were taken.
    n_taken: usize,
    /// The batch that is handed out.
    n_handed_out: usize,
    read: BTreeMap<usize, Batch>,
    is_over: bool,
}

/// Hands the entries out.
pub(super) struct Items<'a> {
    ahead: &'a Ahead<'a>,
    n_batches: usize,
    batch: std::vec::IntoIter<Item>,
}

impl<'a> Ahead<'a> {
    /// Prepares to read the files of `entries`.
    pub(super) fn new(
        trees: &'a [Tree],
        earlier: Option<&'a Earlier>,
        mut entries: Entries,
    ) -> Self {
        let origins = entries.take_origins();
        let read = BTreeMap::new();
        let state = State { entries, n_taken: 0, n_handed_out: 0, read, is_over: false };
        Self { trees, earlier, origins, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Calls `write` with the entries, while others read their files.
    pub(super) fn write<T>(&self, write: impl FnOnce(&mut Items<'_>) -> T) -> T {
        std::thread::scope(|scope| {
            // Whoever writes reads as well when it has to wait.
            let n_batches = self.lock().entries.len() / MAX_ENTRIES;
            let n_threads = (threads() - 1).max(1).min(n_batches / 2);
            for _ in 0..n_threads {
                scope.spawn(|| self.work());
            }
            let mut items = Items { ahead: self, n_batches: 0, batch: Vec::new().into_iter() };
            let result = write(&mut items);
            self.lock().is_over = true;
            self.changed.notify_all();
            result
        })
    }

    fn work(&self) {
        let n_ahead = threads() + 2;
        let mut state = self.lock();
        loop {
            if state.is_over {
                return;
            }
            if state.n_taken >= state.n_handed_out + n_ahead {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let Some((nth, batch)) = state.take() else { return };
            drop(state);
            let read = self.read(batch);
            state = self.lock();
            state.read.insert(nth, read);
            self.changed.notify_all();
        }
    }

    /// Waits for a batch, or reads it if nobody does. Nothing after the last one.
    fn batch(&self, nth: usize) -> Option<Batch> {
        let mut state = self.lock();
        state.n_handed_out = nth;
        self.changed.notify_all();
        loop {
            if let Some(read) = state.read.remove(&nth) {
                return Some(read);
            }
            if state.n_taken == nth {
                let (_, batch) = state.take()?;
                drop(state);
                return Some(self.read(batch));
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn read(&self, mut batch: Vec<Item>) -> Batch {
        for item in &mut batch {
            if let (Kind::File { size: size @ 1..=SMALL }, Content::File(origin)) =
                (&item.entry.kind, &item.content)
            {
                let path = self.origins.path(*origin, &item.entry.path);
                let (bytes, digest) = self.read_one(origin.tree_idx, &path, *size, item.digest)?;
                (item.content, item.digest) = (Content::Inline(bytes), Some(digest));
            }
        }
        Ok(batch)
    }

    fn read_one(
        &self,
        tree_idx: usize,
        path: &[u8],
        size: u64,
        wanted: Option<[u8; 32]>,
    ) -> Result<(Vec<u8>, [u8; 32]), ExecutorError> {
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
        if let (Some(earlier), Some(digest)) = (self.earlier, wanted) {
            if earlier.read(&digest, size, &mut bytes) {
                return Ok((bytes, digest));
            }
            bytes.clear();
        }
        self.trees[tree_idx]
            .open(path)?
            .take(size)
            .read_to_end(&mut bytes)
            .map_err(|source| ExecutorError::Read { path: lossy(path), source })?;
        let digest = *blake3::hash(&bytes).as_bytes();
        // Under the key of this copy there must be what the key is made of.
        if wanted.is_some_and(|it| it != digest) {
            return Err(ExecutorError::Changed { path: lossy(path) });
        }
        Ok((bytes, digest))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes the next batch, with its number.
    fn take(&mut self) -> Option<(usize, Vec<Item>)> {
        let mut batch = Vec::new();
        let mut n_bytes = 0;
        while batch.len() < MAX_ENTRIES && n_bytes < MAX_BYTES {
            let Some(item) = self.entries.next() else { break };
            n_bytes += Some(item.entry.kind.size()).filter(|it| *it <= SMALL).unwrap_or(0);
            batch.push(item);
        }
        if batch.is_empty() {
            return None;
        }
        self.n_taken += 1;
        Some((self.n_taken - 1, batch))
    }
}

impl Items<'_> {
    /// The next entry, with the content of a small file; nothing after the last one.
    pub(super) fn next(&mut self) -> Result<Option<Item>, ExecutorError> {
        loop {
            if let Some(item) = self.batch.next() {
                return Ok(Some(item));
            }
            let Some(batch) = self.ahead.batch(self.n_batches) else { return Ok(None) };
            self.batch = batch?.into_iter();
            self.n_batches += 1;
        }
    }

    /// The real path of what was copied to `path`.
    pub(super) fn origin(&self, origin: Origin, path: &[u8]) -> Vec<u8> {
        self.ahead.origins.path(origin, path)
    }
}
