//! `kiln build`.
//!
//! 1. [`input`] — where the Dockerfile and the context are; standard input.
//! 2. [`job`] — everything a build needs, looked up and checked before anything runs.
//! 3. [`report`] — what is written when it is done: id, files, results.
//!
//! [`run`] joins them around the executor.

pub mod input;
