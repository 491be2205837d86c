//! From an image of the store to documents that can leave: those that it came with where all of their blobs are here, so that it keeps its
//! digests; else new ones.

use cache::{NamedImage, PlatformImage, Store};
use executor::{Built, ExportOptions, Session};
use image::{
    compress::Compression,
    document::{Descriptor, Index, media_type},
};
use registry::{Export, RawDocument};

use super::failed;
use crate::{
    commands::images::{config_of, names_of, platform_of},
    failure::{OrFail, Result},
};

/// The most bytes of a document.
const LARGEST: u64 = 8 << 20;
/// The annotation of what is no image, but said of one.
pub(super) const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// Makes the documents of an image. An index leaves whole, or else as the one platform that `platform` names or this machine has.
///
/// # Errors
///
/// Fails where something of the image is neither here nor to be had.
pub fn export(
    session: &Session,
    image: &NamedImage,
    platform: Option<&str>,
    compression: Option<Compression>,
) -> Result<Export> {
    let store = &session.store;
    let names = names_of(image);
    if platform.is_none()
        && is_index(&image.record.target)
        && let Some(export) = whole_index(session, image)?
    {
        return Ok(export);
    }
    let image = platform_of(image, platform)?;
    session.complete(names.first(), image).map_err(failed)?;
    if let Some(export) = stored(store, image)? {
        return Ok(export);
    }
    let built = Built {
        platform: image.platform.clone(),
        layers: image.layers.clone(),
        config: config_of(store, image)?,
        config_bytes: store.read_blob(&image.config.0, LARGEST).or_failed()?,
        id: image.config,
        epoch: None,
        attestations: Vec::new(),
    };
    let options = ExportOptions { compression, ..ExportOptions::default() };
    session.export(&[built], &options).map_err(failed)
}

/// The index with all of its manifests, if they and their layers are here.
fn whole_index(session: &Session, image: &NamedImage) -> Result<Option<Export>> {
    let store = &session.store;
    let target = &image.record.target;
    if !store.has_blob(&target.digest).or_failed()? {
        return Ok(None);
    }
    let bytes = store.read_blob(&target.digest, LARGEST).or_failed()?;
    let index: Index = serde_json::from_slice(&bytes).or_failed()?;
    let mut export = Export::default();
    for manifest in &index.manifests {
        if manifest.annotations.contains_key(REFERENCE_TYPE) {
            // What is said of an image goes with it; without it the index would name what is nowhere.
            match attestation(store, manifest)? {
                Some(document) => export.documents.push(document),
                None => return Ok(None),
            }
            continue;
        }
        let is_it = |it: &&PlatformImage| it.manifest.digest == manifest.digest;
        let Some(platform) = image.record.platforms.iter().find(is_it) else { return Ok(None) };
        session.complete(names_of(image).first(), platform).map_err(failed)?;
        let Some(part) = stored(store, platform)? else { return Ok(None) };
        export.documents.extend(part.documents);
        export.configs.extend(part.configs);
    }
    export.documents.push(RawDocument::new(&target.media_type, bytes));
    Ok(Some(export))
}

/// The manifest of attestations, if it and its blobs are here.
fn attestation(store: &Store, manifest: &Descriptor) -> Result<Option<RawDocument>> {
    if !store.has_blob(&manifest.digest).or_failed()? {
        return Ok(None);
    }
    let bytes = store.read_blob(&manifest.digest, LARGEST).or_failed()?;
    let document = RawDocument::new(&manifest.media_type, bytes);
    let export = Export { documents: vec![document.clone()], ..Export::default() };
    for blob in export.blobs().or_failed()? {
        if !store.has_blob(&blob.digest).or_failed()? {
            return Ok(None);
        }
    }
    Ok(Some(document))
}

/// The manifest as it is in the store, if all that it names is there.
fn stored(store: &Store, image: &PlatformImage) -> Result<Option<Export>> {
    let bytes = store.read_blob(&image.manifest.digest, LARGEST).or_failed()?;
    let config = store.read_blob(&image.config.0, LARGEST).or_failed()?;
    let manifest = RawDocument::new(&image.manifest.media_type, bytes);
    let export = Export { documents: vec![manifest], configs: vec![config], ..Export::default() };
    for blob in export.blobs().or_failed()? {
        if !store.has_blob(&blob.digest).or_failed()? {
            return Ok(None);
        }
    }
    Ok(Some(export))
}

fn is_index(target: &Descriptor) -> bool {
    matches!(target.media_type.as_str(), media_type::OCI_INDEX | media_type::DOCKER_INDEX)
}
