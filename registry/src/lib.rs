//! Images in and out: registries over HTTP, OCI layouts, archives.
//!
//! This crate moves bytes and checks them; it keeps nothing. Where blobs come from and go to is the caller's
//! (`Write`, [`BlobSource`], [`BlobSink`]), so that it needs no store and none needs it.
//!
//! Read the modules in this order:
//!
//! 1. [`config`] — which addresses stand for a registry, and how to speak with them.
//! 2. [`auth`] — whose password goes where.
//! 3. `http` — one request: retries, redirects, tokens.
//! 4. [`client`] — what images need of a registry; `pull` and `push` beside it.
//! 5. [`export`] — an image that leaves, and the two halves of the seam towards the store.
//! 6. [`layout`] — OCI layouts as directories.
//! 7. [`archive`] — the same as tars, and what `docker save` writes.
//!
//! # Invariants
//!
//! - **A credential goes to the host it is for,** or to the token server that this host names over a connection as
//!   safe as its own. It is in no message and in no redirected request.
//! - **What was not verified is not returned.** Documents are checked before they are parsed; blobs while they are
//!   written, and an error means that what was written is to be thrown away.
//! - **Every read has a bound:** the size in the descriptor, or one of [`config::Limits`].
#![forbid(unsafe_code)]

pub mod archive;
pub mod auth;
pub mod client;
pub mod config;
mod docker_archive;
mod document;
pub mod error;
pub mod export;
mod http;
pub mod layout;
mod pull;
mod push;

pub use archive::{Format, load, write_archive};
pub use auth::{Credential, Credentials};
pub use client::{Client, RawDocument, RemoteImage};
pub use config::{Config, Limits, RegistryConfig};
pub use document::check_document;
pub use error::{Error, Result};
pub use export::{BlobSink, BlobSource, Export, Named, Verified};
pub use http::{WebClients, http_date};
pub use layout::{Found, Layout, LocalImage, read_image, write_layout};
pub use push::KnownPlaces;
