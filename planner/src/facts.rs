//! What the edge looked up for the planner, as data.

use alloc::{collections::BTreeMap, string::String, vec::Vec};
use core::fmt;

use image::{Digest, ImageRef, Platform, document::ImageConfig};

/// Something the planner must know before it can plan.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// The manifest and config of an image.
    Image(ImageQuery),
}

/// Which image is asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageQuery {
    /// Where it is.
    pub origin: ImageOrigin,
    /// For which platform.
    pub platform: Platform,
}

/// Where an image is to be had.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImageOrigin {
    /// In the store, or else in a registry, under this name.
    Reference(ImageRef),
    /// In an OCI layout: the text after `oci-layout://`.
    OciLayout(String),
}

impl fmt::Display for ImageOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reference(reference) => reference.fmt(f),
            Self::OciLayout(layout) => write!(f, "oci-layout://{layout}"),
        }
    }
}

/// What is known of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFact {
    /// The digest of its manifest.
    pub manifest: Digest,
    /// The digest of what its name stands for: that manifest, or an index with it.
    pub target: Digest,
    /// Its config, with the digests of its layers.
    pub config: ImageConfig,
}

/// All that is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Images.
    pub images: BTreeMap<ImageQuery, ImageFact>,
    /// Patterns of the main context's ignore file, to say which line left a missing source out.
    pub ignored: Vec<String>,
}
