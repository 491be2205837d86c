//! Syntax tree, request and facts in, plan out.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod expand;
pub mod request;
pub mod expose;
pub mod git_url;
pub mod mode;
pub mod signal;
pub mod workdir;
pub mod ignore;
pub mod path;
pub mod wildcard;
