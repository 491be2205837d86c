//! Names of images: `docker.io/library/busybox:latest@sha256:…`.

use crate::Digest;

/// A normalised image reference: the domain and the path are always there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRef {
    /// The registry, for example `docker.io` or `127.0.0.1:5000`.
    pub domain: String,
    /// The repository in it, for example `library/busybox`.
    pub path: String,
    /// The tag as written.
    pub tag: Option<String>,
    /// The digest as written.
    pub digest: Option<Digest>,
}
