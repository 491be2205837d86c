//! Containers from images.
//!
//! [`run`] turns an image and a [`RunRequest`] into a process in a sandbox, connects it with the streams, terminal and signals
//! of this process, and returns how it ended. Everything a container has of its own lies in one folder:
//!
//! ```text
//! containers/ID/             below the root of the store
//!   state.json               what it is, and how it ended
//!   lock                     locked while it runs
//!   upper/, work/            what it changed of its image, and a folder for overlayfs
//!   hosts, hostname, resolv.conf
//!   log                      what it wrote, if it runs in the background
//!   signals                  those that are to be passed on to the command
//!   volumes/N/               a volume of the image: upper/ and work/, or data/
//! containers/ID.removed/     on its way out
//! ```
//!
//! Read the modules in this order:
//!
//! 1. [`request`] — what is asked for.
//! 2. `command` — image config and request make one command with its environment.
//! 3. [`container`] — the folder: made, listed, removed.
//! 4. `files`, `mounts` — what is mounted into it; `ports` — what of it is reached from outside.
//! 5. `attach` — streams, terminal, signals; [`signal`] — those that others send.
//! 6. [`mod@run`] — all of it together.
//!
//! # Invariants
//!
//! - **A container lives as long as the process that runs it.** Its lock dies with that process, its sandbox too. What a killed one
//!   leaves is removed by the next command, or listed as ended.
//! - **The layers of an image are never changed.** A container writes to its own folder, and to what the user mounted.
//! - **The terminal is given back as it was,** however the run ends, but for a SIGKILL.
#![forbid(unsafe_code)]

mod attach;
mod command;
pub mod container;
pub mod error;
mod files;
mod mounts;
mod ports;
pub mod request;
pub mod run;
pub mod signal;

pub use container::{
    Container, ContainerId, Removed, Runner, State, ask_to_end, containers, is_running, log, reap,
    remove, remove_ended, send, sizes,
};
pub use error::RuntimeError;
pub use request::{Bind, Port, RunRequest, Tmpfs};
pub use run::{Image, run};
pub use sandbox::Exit;
pub use signal::Signal;
