//! What is said of an image beside the image: attestations, kept as BuildKit keeps them.
//!
//! An attestation is a statement in in-toto's form about the manifest of one platform. All of one platform are the layers of a manifest of
//! their own, which stands in the image's index behind the images and names, in its annotations, the one that it is about:
//!
//! ```text
//! index
//! ├── manifest of linux/amd64 ◄──────────────┐ vnd.docker.reference.digest, subject
//! └── manifest of unknown/unknown ───────────┘
//!     └── layer application/vnd.in-toto+json    {"_type", "predicateType", "subject", "predicate"}
//! ```
//!
//! In a folder or a tar, the statement is a file, and what it is about are the other files.
//!
//! 1. [`provenance`] — how an image was made: from what, with which parameters.
//! 2. `definition` — its steps, in the form of BuildKit's LLB.

mod definition;
pub mod provenance;

use std::collections::BTreeMap;

use image::{
    Digest, ImageRef, Platform,
    canonical::to_canonical_json,
    document::{Descriptor, ImageConfig, Manifest, RootFs, media_type},
};
use registry::RawDocument;
use serde_json::{Value, json};

pub use provenance::{Invocation, Provenance, SlsaVersion};

use crate::{
    assemble::{Built, descriptor},
    error::ExecutorError,
};

const STATEMENT: &str = "application/vnd.in-toto+json";
const ARTIFACT: &str = "application/vnd.docker.attestation.manifest.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// The content of a config that says nothing.
const EMPTY_CONFIG: &[u8] = b"{}";

/// Something said of one image.
#[derive(Debug, Clone, PartialEq)]
pub struct Attestation {
    /// The form of what is said, a URI.
    pub predicate_type: String,
    /// What is said.
    pub predicate: Value,
    /// The file that it is, beside an image that is files.
    pub filename: String,
    /// It is only for outputs that are images.
    pub inline_only: bool,
}

/// What a statement is about.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) digest: Digest,
}

impl Attestation {
    /// The whole statement.
    pub(crate) fn statement(&self, subjects: &[Subject]) -> Value {
        let subjects: Vec<Value> = subjects
            .iter()
            .map(|it| json!({ "name": it.name, "digest": { "sha256": it.digest.hex() } }))
            .collect();
        json!({
            "_type": "https://in-toto.io/Statement/v1",
            "predicateType": self.predicate_type,
            "subject": subjects,
            "predicate": self.predicate,
        })
    }
}

/// The documents of the attestations of one image.
pub(crate) struct Documents {
    /// Their manifest.
    pub(crate) manifest: RawDocument,
    /// What stands in the index for it.
    pub(crate) described: Descriptor,
    /// Statements and config.
    pub(crate) blobs: Vec<Vec<u8>>,
}

/// Makes the documents of what is said of `image`, whose manifest is `target`. Nothing, if nothing is said.
pub(crate) fn documents(
    image: &Built,
    target: &Descriptor,
    names: &[ImageRef],
    is_artifact: bool,
) -> Result<Option<Documents>, ExecutorError> {
    if image.attestations.is_empty() {
        return Ok(None);
    }
    let encode = |source| ExecutorError::Encode { source };
    let mut subjects: Vec<Subject> = names
        .iter()
        .map(|it| Subject { name: package_url(it, &image.platform), digest: target.digest })
        .collect();
    if subjects.is_empty() {
        subjects.push(Subject { name: "_".to_owned(), digest: target.digest });
    }
    let (mut blobs, mut layers) = (Vec::new(), Vec::new());
    for attestation in &image.attestations {
        let bytes = to_canonical_json(&attestation.statement(&subjects)).map_err(encode)?;
        let mut layer = descriptor(STATEMENT, Digest::of(&bytes), bytes.len() as u64);
        let kind = attestation.predicate_type.clone();
        layer.annotations.insert("in-toto.io/predicate-type".to_owned(), kind);
        layers.push(layer);
        blobs.push(bytes);
    }
    let config = match is_artifact {
        true => EMPTY_CONFIG.to_vec(),
        false => to_canonical_json(&config_of(&layers)).map_err(encode)?,
    };
    let config_type = if is_artifact { EMPTY } else { media_type::OCI_CONFIG };
    let mut manifest = Manifest {
        schema_version: 2,
        media_type: media_type::OCI_MANIFEST.to_owned(),
        config: descriptor(config_type, Digest::of(&config), config.len() as u64),
        layers,
        annotations: BTreeMap::new(),
        other: Default::default(),
    };
    if is_artifact {
        manifest.config.other.insert("data".to_owned(), json!("e30="));
        manifest.other.insert("artifactType".to_owned(), json!(ARTIFACT));
        let subject = descriptor(&target.media_type, target.digest, target.size);
        manifest.other.insert("subject".to_owned(), json!(subject));
    }
    blobs.push(config);
    let bytes = to_canonical_json(&manifest).map_err(encode)?;
    let manifest = RawDocument::new(media_type::OCI_MANIFEST, bytes);
    let mut described = manifest.descriptor();
    described.platform = Some(Platform::new("unknown", "unknown"));
    for (key, value) in [
        ("vnd.docker.reference.type", "attestation-manifest".to_owned()),
        ("vnd.docker.reference.digest", target.digest.to_string()),
    ] {
        described.annotations.insert(key.to_owned(), value);
    }
    Ok(Some(Documents { manifest, described, blobs }))
}

/// The config that such a manifest had before there were artifacts.
fn config_of(layers: &[Descriptor]) -> ImageConfig {
    let diff_ids = layers.iter().map(|it| image::DiffId(it.digest)).collect();
    ImageConfig {
        architecture: "unknown".to_owned(),
        os: "unknown".to_owned(),
        rootfs: RootFs { diff_ids, ..RootFs::default() },
        ..ImageConfig::default()
    }
}

/// Says which image a name means, as a package URL: `pkg:docker/alpine@3.20?platform=linux%2Famd64`.
///
/// # Source
///
/// `github.com/package-url/purl-spec`, type `docker`.
pub(crate) fn package_url(name: &ImageRef, platform: &Platform) -> String {
    let untagged = ImageRef { tag: None, digest: None, ..name.clone() }.familiar();
    let path = untagged.strip_suffix(":latest").unwrap_or(&untagged);
    let mut out = String::from("pkg:docker/");
    out.push_str(&path.split('/').map(escaped).collect::<Vec<_>>().join("/"));
    if name.tag.is_some() || name.digest.is_none() {
        out.push('@');
        out.push_str(&escaped(name.tag_or_latest()));
    }
    out.push('?');
    if let Some(digest) = &name.digest {
        out.push_str(&format!("digest={digest}&"));
    }
    out.push_str("platform=");
    out.push_str(&escaped(&platform.normalized().to_string()));
    out
}

/// Text as a part of a URL.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_urls() {
        let url = |name: &str| {
            let name = ImageRef::parse(name).expect("a name");
            package_url(&name, &Platform::new("linux", "arm64"))
        };
        assert_eq!(url("alpine"), "pkg:docker/alpine@latest?platform=linux%2Farm64");
        assert_eq!(url("a/b:1.2"), "pkg:docker/a/b@1.2?platform=linux%2Farm64");
        assert_eq!(url("host:5000/a:1"), "pkg:docker/host:5000/a@1?platform=linux%2Farm64");
        let digest = Digest::of(b"");
        let pinned = format!("pkg:docker/a?digest={digest}&platform=linux%2Farm64");
        assert_eq!(url(&format!("a@{digest}")), pinned);
    }
}
