//! Runs one process in one root.
//!
//! This crate knows nothing of images, layers or Dockerfiles: it takes a plain description of a
//! process (its root, mounts, user, limits, network) and runs exactly that, kept apart from the
//! machine. `RUN` and `kiln run` are both made of it. No other program takes part, and nothing of it
//! is visible in the mount table of the machine.
//!
//! Read the modules in this order:
//!
//! 1. [`spec`] — the description.
//! 2. `spawn` — prepares everything outside of the sandbox, and starts.
//! 3. `init` — the process in between, which puts the sandbox together (`assemble`), starts the command in it
//!    (`command`) and stays; `program` is what it was given.
//! 4. `child` — the handle on what runs.
//! 5. `root`, `overlay`, `stubs`, `mounts`, `inside`, `devices` — the file system: mounts without a place,
//!    places to mount on, paths that do not lead out.
//! 6. `user`, [`caps`], `seccomp`, `cgroup` — who it is, and what it may do.
//! 7. `net` — networks that are not the machine's.
//! 8. `notify` — owners and ids where there is only one id: system calls that kiln answers.
//! 9. [`mod@probe`] — what the machine permits; `userns` and `ids` — how a kiln that is not root gets what it needs.
//! 10. `chroot` — the sandbox where nothing can be mounted.
//! 11. `sys` — system calls, the only `unsafe` of the workspace.
//!
//! # Invariants
//!
//! - **Nothing is left.** When [`Child::wait`] returns or a [`Child`] is dropped, no process, mount,
//!   or control group of it exists; if kiln is killed, the kernel ends the processes and mounts.
//! - **Nothing is added to the upper directory** of an overlay but what the process wrote: mount
//!   points that the root lacks are in a layer of their own.
//! - **Between fork and exec, only system calls.** Other threads may hold any lock, so nothing is
//!   allocated or locked there.
//! - **No handle and no variable of kiln reaches the process** but its standard streams.
#![warn(missing_docs)]

mod assemble;
mod binfmt;
pub mod caps;
mod cgroup;
mod child;
mod chroot;
mod command;
mod devices;
mod elf;
mod error;
mod ids;
mod init;
mod inside;
mod mounts;
mod net;
mod notify;
mod overlay;
pub mod probe;
mod program;
mod root;
mod seccomp;
mod spawn;
pub mod spec;
mod stubs;
mod sys;
mod user;
mod userns;

pub use cgroup::{release, remove_stale};
pub use child::{Child, Exit};
pub use chroot::{end_orphans, trees_in};
pub use error::SandboxError;
pub use net::{Isolated, gateway, isolated, resolv_conf};
pub use notify::{Inode, LinkOwners};
pub use probe::{Permissions, Rung, probe, require, require_mounts};
pub use spawn::spawn;
pub use spec::{
    Access, Capabilities, CgroupLimits, Mount, Network, Root, Seccomp, Source, Spec, Stdio,
};
pub use sys::give_memory_back;
pub use userns::{Isolation, copies_trees, has_one_id as keeps_owners, isolate};
