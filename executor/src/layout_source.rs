//! Base images from OCI layouts on this machine: `--build-context name=oci-layout://FOLDER[:TAG][@DIGEST]`.
//!
//! What the image is made of is copied into the store when it is asked for, so that the layout may change or go during
//! the build.

use std::{io, path::Path};

use cache::LayerRecord;
use image::{DiffId, Digest, Platform, document::Descriptor};
use planner::facts::ImageFact;
use registry::{BlobSource, Layout, read_image};

use crate::{error::ExecutorError, session::Session};

/// Takes an image of a layout into the store.
pub(crate) fn layout_fact(
    session: &Session,
    text: &str,
    platform: &Platform,
) -> Result<ImageFact, ExecutorError> {
    let (folder, selector) = split(text);
    let task = session.task(format!("[internal] load metadata for oci-layout://{text}"));
    let take = || {
        let layout = Layout::open(folder)?;
        let root = layout.find(selector)?;
        let image = read_image(&layout, &root, platform)?;
        for (layer, blob) in image.config.rootfs.diff_ids.iter().zip(&image.parsed.layers) {
            take_layer(session, &layout, layer, blob)?;
        }
        Ok(ImageFact { manifest: image.manifest.digest, target: root.digest, config: image.config })
    };
    task.end(take())
}

fn take_layer(
    session: &Session,
    layout: &Layout,
    layer: &DiffId,
    blob: &Descriptor,
) -> Result<(), ExecutorError> {
    session.cancel.check()?;
    if session.store.layer(layer)?.is_some() {
        return Ok(());
    }
    if !session.store.has_blob(&blob.digest)? {
        let failed = |source| ExecutorError::Read { path: format!("blob {}", blob.digest), source };
        let mut staged = session.store.stage_blob()?;
        io::copy(&mut layout.open(blob).map_err(failed)?, &mut staged).map_err(failed)?;
        staged.commit(Some(&blob.digest))?;
    }
    session.store.put_layer(&LayerRecord::of_blob(*layer, blob.clone()))?;
    Ok(())
}

/// Splits `FOLDER[:TAG][@DIGEST]` into the folder, and a digest or else a tag.
fn split(text: &str) -> (&Path, Option<&str>) {
    let (rest, digest) = match text.rsplit_once('@') {
        Some((rest, digest)) if digest.parse::<Digest>().is_ok() => (rest, Some(digest)),
        _ => (text, None),
    };
    // A folder may have a colon in its name.
    let (folder, tag) = match rest.rsplit_once(':') {
        Some((folder, tag)) if !tag.contains('/') && !Path::new(rest).is_dir() => {
            (folder, Some(tag))
        }
        _ => (rest, None),
    };
    (Path::new(folder), digest.or(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_digests_are_told_from_folders() {
        let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let both = format!("/a/b:tag@{digest}");
        for (text, folder, selector) in [
            ("/a/b", "/a/b", None),
            ("/a/b:tag", "/a/b", Some("tag")),
            ("/a:1/b", "/a:1/b", None),
            ("/a@1/b", "/a@1/b", None),
            (both.as_str(), "/a/b", Some(digest)),
        ] {
            assert_eq!(split(text), (Path::new(folder), selector));
        }
    }
}
