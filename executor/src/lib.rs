//! Walks a plan: looks its steps up, runs what is missing, turns changes into layers.
#![forbid(unsafe_code)]

pub mod event;
