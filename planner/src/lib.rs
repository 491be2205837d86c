//! Syntax tree, request and facts in, plan out.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod request;
