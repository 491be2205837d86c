//! From documents that are in the store to an image of the store.

use anyhow::{Context, anyhow};
use cache::{ImageRecord, LayerRecord, PlatformImage, Store};
use image::{
    ImageId, Platform,
    document::{Descriptor, ImageConfig, Index, Manifest, media_type},
};

use super::export::REFERENCE_TYPE;
use crate::{
    commands::registry_failure,
    failure::{Failure, OrFail, Result},
    time,
};

/// The most bytes of a document.
const LARGEST: u64 = 8 << 20;
/// Indexes inside of indexes are followed this far.
const DEEPEST: usize = 4;

/// Describes the image below `root`: those of its platforms whose manifests and configs are in the store. Their layers
/// are noted there.
///
/// # Errors
///
/// Fails where a document is not understood, or no platform is there.
pub fn record(store: &Store, root: &Descriptor) -> Result<ImageRecord> {
    let mut platforms = Vec::new();
    collect(store, root, 0, &mut platforms)?;
    if platforms.is_empty() {
        return Err(Failure::failed(anyhow!(
            "image `{}` has no platform that is here",
            root.digest
        )));
    }
    let created = u64::try_from(time::now()).unwrap_or(0);
    Ok(ImageRecord { target: root.clone(), platforms, created })
}

fn collect(
    store: &Store,
    document: &Descriptor,
    depth: usize,
    out: &mut Vec<PlatformImage>,
) -> Result<()> {
    // An index may name platforms that were left out.
    if !store.has_blob(&document.digest).or_failed()? {
        return Ok(());
    }
    match document.media_type.as_str() {
        media_type::OCI_INDEX | media_type::DOCKER_INDEX if depth < DEEPEST => {
            let index: Index = read(store, document)?;
            let is_image = |it: &&Descriptor| !it.annotations.contains_key(REFERENCE_TYPE);
            index
                .manifests
                .iter()
                .filter(is_image)
                .try_for_each(|it| collect(store, it, depth + 1, out))
        }
        media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST => {
            let manifest: Manifest = read(store, document)?;
            if !store.has_blob(&manifest.config.digest).or_failed()? {
                return Ok(());
            }
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                check_size(store, blob)?;
            }
            let config: ImageConfig = parse(store, &manifest.config)?;
            let layers = config.rootfs.diff_ids.clone();
            if layers.len() != manifest.layers.len() {
                let message = anyhow!(
                    "manifest `{}` and its config differ in their number of layers",
                    document.digest
                );
                return Err(Failure::failed(message));
            }
            for (diff_id, blob) in layers.iter().zip(&manifest.layers) {
                store.put_layer(&LayerRecord::of_blob(*diff_id, blob.clone())).or_failed()?;
            }
            let platform = Platform {
                architecture: config.architecture,
                os: config.os,
                os_version: config.os_version,
                os_features: config.os_features,
                variant: config.variant,
            };
            let config = ImageId(manifest.config.digest);
            out.push(PlatformImage { platform, manifest: document.clone(), config, layers });
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Reads a manifest or an index that is what its descriptor says.
fn read<T: serde::de::DeserializeOwned>(store: &Store, document: &Descriptor) -> Result<T> {
    let bytes = store.read_blob(&document.digest, LARGEST).or_failed()?;
    registry::check_document(&bytes, document).map_err(registry_failure)?;
    parse(store, document)
}

/// Fails if a blob that is here has not the size that its descriptor says; the digest is that of its content already.
fn check_size(store: &Store, blob: &Descriptor) -> Result<()> {
    if !store.has_blob(&blob.digest).or_failed()? {
        return Ok(());
    }
    let found = store.open_blob(&blob.digest).or_failed()?.metadata().or_failed()?.len();
    if found == blob.size {
        return Ok(());
    }
    let message = anyhow!("blob `{}` has {found} bytes, expected {}", blob.digest, blob.size);
    Err(Failure::failed(message).hint("the archive was damaged or changed; write it again"))
}

fn parse<T: serde::de::DeserializeOwned>(store: &Store, document: &Descriptor) -> Result<T> {
    let bytes = store.read_blob(&document.digest, LARGEST).or_failed()?;
    serde_json::from_slice(&bytes)
        .with_context(|| format!("document `{}` is damaged", document.digest))
        .or_failed()
}
