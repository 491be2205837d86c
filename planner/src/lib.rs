//! Syntax tree, request and facts in, plan out.
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
