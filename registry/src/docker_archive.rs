//! `manifest.json`, the table of contents of what `docker save` writes.
//!
//! ```json
//! [{"Config": "HEX.json", "RepoTags": ["busybox:latest"], "Layers": ["HEX/layer.tar"]}]
//! ```
//!
//! The files are anywhere in the archive: `HEX.json` and `HEX/layer.tar` before Docker 25, which are links where two images share a layer,
//! `blobs/sha256/HEX` since, `HEX.tar.gz` from other tools. A layer may be compressed or not; nothing says so but its first bytes.

use image::{
    Platform,
    compress::Detected,
    document::{Descriptor, ImageConfig, Manifest, media_type},
    platform,
};
use serde::{Deserialize, Serialize};

use crate::{
    document::parse,
    error::{Error, Result},
    export::Named,
};

/// One image of `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Entry {
    /// The file with the image config.
    pub(crate) config: String,
    /// The names as people write them.
    #[serde(default)]
    pub(crate) repo_tags: Option<Vec<String>>,
    /// The files with the layers, from the bottom up.
    #[serde(default)]
    pub(crate) layers: Option<Vec<String>>,
}

/// Makes the entry of an image whose files are those of an OCI layout. An index has one only: it is the image of this machine's platform, or else
/// the first, since `manifest.json` knows no platforms.
pub(crate) fn entry(image: &Named) -> Result<Entry> {
    let manifests = image.export.manifests()?;
    let images: Vec<_> =
        manifests.into_iter().filter(|(_, it)| is_config(&it.config.media_type)).collect();
    let mut platforms = Vec::new();
    for (_, manifest) in &images {
        let bytes =
            image.export.configs.iter().find(|it| image::Digest::of(it) == manifest.config.digest);
        let config: Option<ImageConfig> = bytes
            .map(|it| parse(it, || format!("config {}", manifest.config.digest)))
            .transpose()?;
        platforms.push(
            config.map(|it| Platform {
                variant: it.variant,
                ..Platform::new(&it.os, &it.architecture)
            }),
        );
    }
    let candidates =
        platforms.iter().zip(&images).filter_map(|(platform, it)| Some((platform.as_ref()?, it)));
    let chosen = platform::best(&Platform::host(), candidates).or(images.first());
    let Some((_, manifest)) = chosen else {
        return Err(Error::Document {
            what: "image".to_owned(),
            problem: "has no container image in it".to_owned(),
        });
    };
    Ok(Entry {
        config: path(&manifest.config),
        repo_tags: Some(
            image
                .names
                .iter()
                .map(|it| {
                    let tag = Some(it.tag_or_latest().to_owned());
                    image::ImageRef { tag, digest: None, ..it.clone() }.familiar()
                })
                .collect(),
        ),
        layers: Some(manifest.layers.iter().map(path).collect()),
    })
}

/// Returns the media type of a layer that is compressed like this; nothing for a way that no image has.
pub(crate) fn layer_type(compression: Detected) -> Option<&'static str> {
    match compression {
        Detected::Plain => Some(media_type::OCI_LAYER),
        Detected::Gzip => Some(media_type::OCI_LAYER_GZIP),
        Detected::Zstd => Some(media_type::OCI_LAYER_ZSTD),
        Detected::Bzip2 | Detected::Xz => None,
    }
}

/// Makes the manifest that the archive does not have.
pub(crate) fn manifest(config: Descriptor, layers: Vec<Descriptor>) -> Manifest {
    Manifest {
        schema_version: 2,
        media_type: media_type::OCI_MANIFEST.to_owned(),
        config,
        layers,
        annotations: Default::default(),
        other: Default::default(),
    }
}

fn is_config(media_type: &str) -> bool {
    matches!(media_type, media_type::OCI_CONFIG | media_type::DOCKER_CONFIG)
}

fn path(descriptor: &Descriptor) -> String {
    format!("blobs/sha256/{}", descriptor.digest.hex())
}
