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
//!
//! # Invariants
//!
//! - **No effects.** No file, environment variable, clock, or network is read here, and no hash map
//!   gives its order away. The crate is `no_std`, so the compiler holds us to it.
//! - **No early exit.** `parse` returns a tree *and* all errors, so one run shows every mistake.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod ast;
pub mod span;
