//! The store: blobs, layers, trees, step records, images, leases, and what is needed around them.
//!
//! Everything is plain files below one folder, safe for many processes at once, without a daemon. All calls are synchronous.
//!
//! ```text
//! version              the format, first thing looked at
//! oci/                 an OCI image layout; index.json lists the images whose blobs are all here
//!   oci-layout, index.json, blobs/sha256/HEX
//! partial/HEX          downloads that were cut off, to be continued
//! layers/HEX.json      a layer: sizes, compressed blobs      (HEX is the diff id)
//!        HEX.index     what is in it
//!        HEX.tree      its tree is whole
//! trees/HEX/           a layer unpacked, whiteouts as overlay has them
//! steps/HH/HEX.json    what a step made                       (HEX is the key)
//! builds/LINE/BUILD…   what became of each step in earlier builds
//!        files/HEX     which files the key of a step was made of
//! images.json          images and their names; images.copy.json is the same once more
//! collected            its time is when the collector last looked for what became old
//! flushed              batches that are on the disk, see below
//! owners               how the one who makes trees here sees user ids
//! mounts/HEX/          cache mounts
//! logs/BUILD/STEP.log  output of steps; steps.json lists all of them
//! stat-cache/HEX       digests of build contexts
//! locks/, leases/      files that matter only while a process has them locked
//! gc.lock              held while a lease is written to, or the collector decides
//! tmp/ID/              the staging folder of one process, and its lock
//! ```
//!
//! Read the modules in this order: [`store`], [`blob`], [`layer`], [`tree`], [`tar`], [`written`], [`pack`], [`merged`], [`snapshot`], [`stack`], [`step`], [`images`], [`lease`], [`lock`],
//! [`collect`], [`room`], [`usage`], [`check`], [`mount`], [`owners`], [`logs`], [`journal`], [`remote`].
//!
//! # Invariants
//!
//! - **Nothing unfinished has a final name.** Files and trees are made in `tmp/` and renamed.
//! - **The record comes last.** What a record names is there before it. If it is gone all the same, the lookup says `None`.
//! - **A wrong bit shows.** Blobs have their digest for a name, indexes and records carry a hash of themselves, and a tree is compared with
//!   its index whenever something is read from it or packed again. Only what a RUN reads from a tree is not looked at before.
//! - **No lock outlives its process.** All of them are `flock`s.
//! - **A power cut loses at most what was not flushed.** Blobs and `images.json` are flushed before they get their names. Records of steps
//!   and layers show by themselves whether they are whole. Trees belong to a batch that is flushed as one.
//! - **Nobody else gets in.** The root has mode 0700, whatever the umask.
#![forbid(unsafe_code)]

mod below;
pub mod blob;
pub mod check;
pub mod collect;
pub mod error;
mod files;
pub mod images;
pub mod journal;
pub mod layer;
pub mod lease;
pub mod lock;
pub mod logs;
pub mod merged;
pub mod mount;
mod on_disk;
pub mod owners;
pub mod pack;
pub mod remote;
mod remove;
pub mod room;
pub mod snapshot;
pub mod stack;
pub mod step;
pub mod store;
pub mod tar;
pub mod tree;
mod unpack;
pub mod usage;
pub mod written;

pub use blob::StagedBlob;
pub use check::{CheckOptions, CheckReport, Outcome, Problem, ProblemKind};
pub use collect::{PruneOptions, PruneReport};
pub use error::StoreError;
pub use images::{ImageRecord, NamedImage, PlatformImage};
pub use journal::JournalEntry;
pub use layer::LayerRecord;
pub use lease::Lease;
pub use lock::Lock;
pub use logs::{BuildLog, BuildStep};
pub use mount::{CacheMount, CacheMountInfo, CacheMountRequest, Sharing};
pub use pack::{PackOptions, pack_changed, pack_upper};
pub use room::RoomOptions;
pub use snapshot::Snapshot;
pub use step::{StepKey, StepRecord};
pub use store::{Store, StoreOptions};
pub use tree::StagedTree;
pub use usage::{CacheEntry, Part, Usage};
pub use written::StagedLayer;
