//! Dockerfile text in, syntax tree out.
//!
//! This crate knows what a Dockerfile *says*, never what it *means*: it splits text into
//! instructions, keeps the byte range of every piece, and reports each mistake it finds. Variables
//! stay unexpanded and stage names stay unresolved; that is the planner's work.
//!
//! Read the modules in this order:
//!
//! 1. [`span`] — byte ranges, the coordinates every other type carries.
//! 2. [`ast`] — what a Dockerfile is made of.
//! 3. [`error`] — every way it can be wrong.
//! 4. `parse`, with `statement` and `line` — physical lines to logical lines, heredocs, the tree as a whole.
//! 5. `node`, with `words`, `json` and `heredoc` — a logical line to keyword, flags and arguments.
//! 6. `instruction`, with `flags`, `run` and `health` — what each instruction says.
//! 7. [`mod@format`] — a Dockerfile in one style.
//! 8. [`mount`], [`device`], [`syntax`], [`suggest`], [`ignore`] — what others read as well.
//!
//! # Invariants
//!
//! - **No effects.** No file, environment variable, clock, or network is read here, and no hash map
//!   gives its order away. The crate is `no_std`, so the compiler holds us to it.
//! - **No early exit.** [`parse()`] returns a tree *and* all mistakes, so one run shows every one.
//! - **No bad input.** Any text is parsed in linear time and without panics. Bytes that are not UTF-8
//!   survive, see [`decode`].
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod ast;
pub mod device;
pub mod error;
pub mod format;
pub mod ignore;
pub mod mount;
pub mod span;
pub mod suggest;
pub mod syntax;

mod bytes;
mod csv;
mod flags;
mod health;
mod heredoc;
mod instruction;
mod json;
mod line;
mod node;
mod parse;
mod report;
mod run;
mod statement;
#[cfg(test)]
mod tables;
mod values;
mod words;

pub use bytes::{decode, encode, replace};
pub use error::{Diagnostic, Mistake, MountError};
pub use parse::{parse, parse_trigger};
