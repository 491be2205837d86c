//! The language, row by row: what only a build can show. Needs root, and busybox-static.
//!
//! Run with `cargo test -p cli --features privileged --test rows_privileged`. The tests of a row begin with its id; see
//! `rows/main.rs` for those that need no build, and for who counts them.

#[path = "rows/builds/kiln.rs"]
mod kiln;

#[path = "rows/builds/add.rs"]
mod add;
#[path = "rows/builds/cache.rs"]
mod cache;
#[path = "rows/builds/calls.rs"]
mod calls;
#[path = "rows/builds/contexts.rs"]
mod contexts;
#[path = "rows/builds/copy.rs"]
mod copy;
#[path = "rows/builds/export.rs"]
mod export;
#[path = "rows/builds/run.rs"]
mod run;
#[path = "rows/builds/stages.rs"]
mod stages;
#[path = "rows/builds/web.rs"]
mod web;
