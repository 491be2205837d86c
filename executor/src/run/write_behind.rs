//! What a command writes, on its way to the disk while the command runs: a build waits for the disk at its end, and then finds less to
//! do. Nothing is promised here.

use std::time::{Duration, Instant};

use cache::Store;

/// This much is written back while the command runs, and this much when it has ended, in bytes.
const MUCH: u64 = 32 << 20;
const MUCH_AT_END: u64 = 8 << 20;

/// Watches how much room the file system of the store has left.
pub(super) struct WriteBehind<'a> {
    store: &'a Store,
    n_free: u64,
    looked: Instant,
}

impl<'a> WriteBehind<'a> {
    /// It is looked again no sooner than this.
    pub(super) const EVERY: Duration = Duration::from_millis(100);

    pub(super) fn new(store: &'a Store) -> Self {
        Self { store, n_free: store.free_bytes().unwrap_or(0), looked: Instant::now() }
    }

    /// Looks, unless that was done a moment ago.
    pub(super) fn look(&mut self) {
        if self.looked.elapsed() >= Self::EVERY {
            self.looked = Instant::now();
            self.look_for(MUCH);
        }
    }

    /// Looks for the last time.
    pub(super) fn end(mut self) {
        self.look_for(MUCH_AT_END);
    }

    fn look_for(&mut self, much: u64) {
        let Ok(n_free) = self.store.free_bytes() else { return };
        let is_much = self.n_free.saturating_sub(n_free) >= much;
        // What was removed is room for the same amount once more.
        if n_free > self.n_free || (is_much && self.store.write_back()) {
            self.n_free = n_free;
        }
    }
}
