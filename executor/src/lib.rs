//! Walks a plan: looks its steps up, runs what is missing, turns changes into layers.
//!
//! Read the modules in this order:
//!
//! 1. [`event`] — what happens, for whoever shows it.
//! 2. [`session`] — what a build works with.
//! 3. `image_source`, `layout_source`, `fetch` — what comes from outside.
//! 4. `tree` — file trees, whatever they are kept in.
//! 5. `key`, `execute`, `face` — steps looked up, done, recorded.
//! 6. `copy`, `run` — what the steps do.
//! 7. [`explain`] — why steps were done: builds noted and compared.
//! 8. [`assemble`] — images from their layers.
//! 9. [`remote`] — what others could do: a shared cache, a worker.
//! 10. `ship`, `export` — images and trees out of the store.
#![forbid(unsafe_code)]

pub mod assemble;
pub mod attest;
pub mod context;
mod copy;
pub mod error;
pub mod event;
mod execute;
pub mod explain;
mod export;
mod face;
mod fetch;
mod image_source;
mod key;
mod layout_source;
mod output;
pub mod remote;
mod run;
mod schedule;
pub mod session;
mod ship;
pub mod time;
mod tree;

pub use assemble::Built;
pub use context::Context;
pub use error::{ExecutorError, StepError};
pub use event::{Event, Listener, Outcome, TaskId};
pub use execute::look::Foreseen;
pub use key::KEY_VERSION;
pub use output::{ArchiveFormat, ExportOptions, PlatformAnnotation};
pub use run::keys::{KeyError, SshKeys};
pub use session::{Cancel, DefaultNetwork, Secret, Session, SshAgent, full_message as message};

/// How many threads work for one thing at once, at most. The answer of the system takes a dozen system calls.
fn threads() -> usize {
    static THREADS: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    *THREADS.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}
