//! Images in and out of the store.
//!
//! 1. [`blobs`] — the store as the registry crate sees it.
//! 2. [`record`] — from documents that are in the store to an image of the store.
//! 3. [`load`] — `kiln load`.

pub mod blobs;
pub mod load;
pub mod record;
