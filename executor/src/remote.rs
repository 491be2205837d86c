//! The seams for work that is shared with others: a cache that many builds ask, and a worker that executes steps.
//!
//! Neither is needed: what is slow to fail is given up for the rest of the build, what is wrong is not taken, and then the step is
//! done here. There is no real one yet; `executor/tests/remote.rs` has one that is slow, one that fails and one that lies.

use std::{
    error::Error,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use cache::{
    StepKey, StepRecord,
    remote::{RemoteCache, RemoteResult, RemoteStep},
};
use image::DiffId;
use planner::plan::Step;

use crate::{
    event::Event,
    session::{Session, full_message},
};

/// After so many failures nobody is asked any more.
const MAX_FAILURES: u32 = 3;

/// Executes steps somewhere else. What they make comes through the shared cache.
pub trait Worker: Send + Sync {
    /// Executes a step, and returns what it made. `None` if it does not take this one.
    ///
    /// # Errors
    ///
    /// It could not: whether the step itself is to blame shows when it is done here.
    fn execute(&self, work: &Work<'_>) -> RemoteResult<Option<RemoteStep>>;
}

/// A step for a worker.
#[derive(Debug)]
pub struct Work<'a> {
    /// Its key.
    pub key: StepKey,
    /// What to do.
    pub step: &'a Step,
    /// The layers it stands on, from the bottom up.
    pub parent: &'a [DiffId],
}

/// What a session has of others.
#[derive(Clone, Default)]
pub struct Shared {
    /// A cache that others fill and use.
    pub cache: Option<Arc<dyn RemoteCache>>,
    /// Who executes steps. Only asked if there is a cache, through which layers come and go.
    pub worker: Option<Arc<dyn Worker>>,
}

/// How it went so far, and what is to be told.
#[derive(Default)]
pub(crate) struct SharedState {
    n_failures: AtomicU32,
    made: Mutex<Vec<StepRecord>>,
}

impl Session {
    /// The shared cache, as long as it is of use.
    fn shared_cache(&self) -> Option<&dyn RemoteCache> {
        let is_of_use = self.shared_state.n_failures.load(Ordering::Relaxed) < MAX_FAILURES;
        self.shared.cache.as_deref().filter(|_| is_of_use)
    }

    fn sharing_failed(&self, what: &str, error: &(dyn Error + 'static)) {
        let nth = self.shared_state.n_failures.fetch_add(1, Ordering::Relaxed) + 1;
        let end = if nth == MAX_FAILURES { "; it is not asked any more" } else { "" };
        let message = format!("{what}: {}{end}", full_message(error));
        (self.listener)(Event::Warning { task: None, message });
    }

    /// Looks a step up in the shared cache.
    pub(crate) fn shared_step(&self, key: &StepKey) -> Option<StepRecord> {
        let cache = self.shared_cache()?;
        match self.store.step_from(cache, key) {
            Ok(found) => found,
            Err(error) => {
                self.sharing_failed("the shared cache is of no use for a step", &error);
                None
            }
        }
    }

    /// Has a step executed by somebody else.
    pub(crate) fn done_elsewhere(&self, work: &Work<'_>) -> Option<StepRecord> {
        let worker = self.shared.worker.as_deref()?;
        let cache = self.shared_cache()?;
        let done = match worker.execute(work) {
            Ok(done) => done?,
            Err(error) => {
                self.sharing_failed("the worker failed", error.as_ref());
                return None;
            }
        };
        if done.record.key != work.key {
            let error = std::io::Error::other(format!("it did step `{}`", done.record.key));
            self.sharing_failed("the worker failed", &error);
            return None;
        }
        match self.store.take_over(cache, done) {
            Ok(record) => record,
            Err(error) => {
                self.sharing_failed("what the worker made cannot be used", &error);
                None
            }
        }
    }

    /// Notes a step that was made here, to be shared when the build has ended.
    pub(crate) fn share_later(&self, record: &StepRecord) {
        if self.shared.cache.is_some() {
            let mut made = self.shared_state.made.lock().unwrap_or_else(PoisonError::into_inner);
            made.push(record.clone());
        }
    }

    /// Tells the shared cache what was made here.
    pub(crate) fn share(&self) {
        let made = std::mem::take(
            &mut *self.shared_state.made.lock().unwrap_or_else(PoisonError::into_inner),
        );
        for record in made {
            let Some(cache) = self.shared_cache().filter(|_| !self.cancel.is_canceled()) else {
                return;
            };
            if let Err(error) = self.store.step_to(cache, &record) {
                self.sharing_failed("the shared cache cannot be told of a step", &error);
            }
        }
    }
}
