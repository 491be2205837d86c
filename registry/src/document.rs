//! What documents are, and what must be true of them wherever they come from.

use image::{
    Digest, Platform,
    document::{Descriptor, ImageConfig, Index, Manifest, media_type},
    platform,
};
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};

/// Indexes inside of indexes are followed this far.
pub(crate) const MAX_DEPTH: usize = 4;

/// Picks the image of `platform` out of an index.
pub(crate) fn choose<'a>(
    index: &'a Index,
    platform: &Platform,
    image: impl Fn() -> String,
) -> Result<&'a Descriptor> {
    let images = || {
        index.manifests.iter().filter(|it| is_index(&it.media_type) || is_manifest(&it.media_type))
    };
    let with_platform = images().filter_map(|it| Some((it.platform.as_ref()?, it)));
    if let Some(found) = platform::best(platform, with_platform) {
        return Ok(found);
    }
    let mut without_platform = images().filter(|it| it.platform.is_none());
    if let (Some(only), None) = (without_platform.next(), without_platform.next())
        && images().count() == 1
    {
        return Ok(only);
    }
    let mut available: Vec<_> = images()
        .filter_map(|it| it.platform.as_ref())
        .filter(|it| it.os != "unknown")
        .map(Platform::format_all)
        .collect();
    available.sort();
    available.dedup();
    if available.is_empty() {
        available.push("no image".to_owned());
    }
    Err(Error::NoPlatform { image: image(), platform: platform.to_string(), available })
}

/// Returns what a document is, after checking that it is only one thing.
///
/// # Source
///
/// OCI image-spec, `manifest.md` and the advisory CVE-2021-41190: a document that can be read as manifest and as index, or whose
/// `mediaType` is not that of the answer, means different things to different programs.
pub(crate) fn document_type(
    bytes: &[u8],
    content_type: Option<&str>,
    what: impl Fn() -> String,
) -> Result<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        #[serde(default)]
        schema_version: Option<Value>,
        #[serde(default)]
        media_type: Option<String>,
        #[serde(default)]
        manifests: Option<Value>,
        #[serde(default)]
        layers: Option<Value>,
        #[serde(default)]
        config: Option<Value>,
        #[serde(default)]
        fs_layers: Option<Value>,
    }
    let shape: Shape = parse(bytes, &what)?;
    let problem = |problem: String| Err(Error::Document { what: what(), problem });
    if shape.fs_layers.is_some() || shape.schema_version == Some(Value::from(1)) {
        return problem(
            "is in the old schema 1, which is not supported; push the image again".to_owned(),
        );
    }
    if shape.manifests.is_some() && (shape.layers.is_some() || shape.config.is_some()) {
        return problem("is both a manifest and an index".to_owned());
    }
    let own = shape.media_type.as_deref().filter(|it| !it.is_empty());
    let told = content_type.filter(|it| {
        !matches!(*it, "" | "application/json" | "text/plain" | "application/octet-stream")
    });
    if let (Some(own), Some(told)) = (own, told)
        && own != told
    {
        return problem(format!("has media type `{own}`, but came as `{}`", told.escape_default()));
    }
    let is_list = shape.manifests.is_some();
    let found = own.or(told).unwrap_or(if is_list {
        media_type::OCI_INDEX
    } else {
        media_type::OCI_MANIFEST
    });
    match (is_index(found), is_manifest(found)) {
        (true, _) if is_list => Ok(found.to_owned()),
        (_, true) if shape.config.is_some() => Ok(found.to_owned()),
        (false, false) => {
            problem(format!("has media type `{}`, which is not supported", found.escape_default()))
        }
        _ => problem(format!("is not what its media type `{found}` says")),
    }
}

/// Checks a document that did not come from a registry as those that do: it is what its descriptor says, and only that.
///
/// # Errors
///
/// [`Error::Document`], [`Error::Json`] and [`Error::SizeMismatch`].
pub fn check_document(bytes: &[u8], descriptor: &Descriptor) -> Result<()> {
    let what = || format!("document {}", descriptor.digest);
    check_size(bytes.len() as u64, descriptor.size, what)?;
    document_type(bytes, Some(&descriptor.media_type), what).map(drop)
}

pub(crate) fn is_index(media_type: &str) -> bool {
    matches!(media_type, media_type::OCI_INDEX | media_type::DOCKER_INDEX)
}

pub(crate) fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST)
}

/// Checks that manifest and config speak of the same number of layers.
pub(crate) fn check_layers(
    manifest: &Manifest,
    config: &ImageConfig,
    image: impl Fn() -> String,
) -> Result<()> {
    let (n_layers, n_diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    if n_layers == n_diff_ids {
        return Ok(());
    }
    let problem = format!("has {n_layers} layers in its manifest and {n_diff_ids} in its config");
    Err(Error::Document { what: image(), problem })
}

/// Makes a descriptor of what every descriptor has.
pub(crate) fn describe(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
        urls: Vec::new(),
        annotations: Default::default(),
        platform: None,
        other: Default::default(),
    }
}

pub(crate) fn parse<T: for<'de> Deserialize<'de>>(
    bytes: &[u8],
    what: impl Fn() -> String,
) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|source| Error::Json { what: what(), source })
}

pub(crate) fn check_size(found: u64, expected: u64, what: impl Fn() -> String) -> Result<()> {
    match found == expected {
        true => Ok(()),
        false => Err(Error::SizeMismatch { what: what(), expected, found }),
    }
}
