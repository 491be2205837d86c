//! Syntax tree, request and facts in, plan out.
//!
//! This crate knows what a Dockerfile *means*: which stages there are, what variables come to, what each instruction does to
//! files and to the config. It looks nothing up. [`needs`] says what must be known, whoever calls it finds that out and puts
//! it into [`Facts`](facts::Facts), until nothing is missing and [`plan()`] can be called.
//!
//! Read the modules in this order:
//!
//! 1. [`request`] and [`facts`] — what a plan depends on besides the Dockerfile.
//! 2. [`mod@plan`] — what comes out.
//! 3. [`mod@stages`] — which stages there are, and which the target needs.
//! 4. [`dispatch`] — from instructions to steps.
//! 5. [`expand`] with [`env`](mod@env), [`workdir`], [`expose`], [`signal`], [`mode`], [`wildcard`], [`mod@ignore`], [`git_url`] — what single arguments mean.
//! 6. [`lint`], [`outline`], [`targets`] — what else can be asked of a Dockerfile.
//! 7. [`error`] — every way it can fail.
//!
//! # Invariants
//!
//! - **No effects.** No file, environment variable, clock, or network is read here, and nothing is called back. The crate is
//!   `no_std`, so the compiler holds us to it.
//! - **Nothing is left open.** No variable, stage name or ARG is in a [`Plan`](plan::Plan), and its steps refer to earlier ones only.
//! - **Dead stages cost nothing.** What the target does not need is neither looked up nor planned.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod dispatch;
pub mod env;
pub mod epoch;
pub mod error;
pub mod expand;
pub mod expose;
pub mod facts;
pub mod git_url;
pub mod ignore;
pub mod lint;
pub mod location;
pub mod mode;
pub mod outline;
pub mod path;
pub mod plan;
pub mod request;
pub mod signal;
pub mod stages;
pub mod targets;
pub mod wildcard;
pub mod workdir;

pub use dispatch::plan;
pub use epoch::epoch_source;
pub use error::{PlanError, PlanErrorKind};
pub use stages::{StageGraph, needs, stages};
