//! Layers, images, contexts and Dockerfiles of somebody who means harm, through the real command. Needs root, and busybox-static.
//!
//! Run with `cargo test -p cli --features privileged --test hostile`. Each case has an expected outcome in `testdata/hostile`:
//! a refusal with its message, or the tree that comes of it; `BLESS=1` rewrites them. Beside each lab lies a *canary*, files
//! that nothing may read or change. Cases that are escapes are first shown to trip a careless implementation ([`naive`]), so that
//! a case that harms nobody is noticed.

mod chroots;
mod contexts;
mod images;
mod lab;
mod layers;
mod naive;
mod races;
mod roots;
mod secrets;
mod tars;
