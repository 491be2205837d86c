//! What happens while a plan runs, for whoever shows it.
//!
//! Events are data and go one way; the executor never asks its listener anything.

use std::{sync::Arc, time::Duration};

/// Names one line of progress: a step, a pull, a context scan, an export. Unique within one build, in order of first mention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub u32);

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A task began (or was found in the cache right away, then [`Event::Done`] follows at once).
    Started {
        /// Which.
        task: TaskId,
        /// What to call it, as BuildKit does: `[build 2/5] RUN make`, `[internal] load build context`, `exporting layers`.
        name: String,
    },
    /// Output of a RUN step.
    Log {
        /// Of which task.
        task: TaskId,
        /// 1 is standard output, 2 is standard error.
        stream: u8,
        /// Bytes as they came, in pieces of whole lines where possible.
        bytes: Vec<u8>,
    },
    /// Bytes or files moved for a part of a task: a layer pulled, a context read, a layer exported.
    Progress {
        /// Of which task.
        task: TaskId,
        /// The part, for example `sha256:12ab…` or `transferring context:`. The same name replaces its earlier report.
        part: String,
        /// How many bytes so far.
        current: u64,
        /// How many in all, where known.
        total: Option<u64>,
        /// This part is finished.
        done: bool,
    },
    /// Something the user should know of a task.
    Warning {
        /// Of which task, if of one.
        task: Option<TaskId>,
        /// One line.
        message: String,
    },
    /// A task ended.
    Done {
        /// Which.
        task: TaskId,
        /// How.
        outcome: Outcome,
        /// How long it took.
        elapsed: Duration,
    },
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was done now.
    Done,
    /// Its result was known.
    Cached,
    /// It was stopped because another task failed or the user asked.
    Canceled,
    /// It failed.
    Failed {
        /// One line.
        message: String,
    },
}

impl Outcome {
    /// Returns its name for scripts.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Cached => "cached",
            Self::Canceled => "canceled",
            Self::Failed { .. } => "failed",
        }
    }
}

/// Takes events; called from many threads.
pub type Listener = Arc<dyn Fn(Event) + Send + Sync>;
