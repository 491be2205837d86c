//! Images of the store: list, show, name, remove.
//!
//! What several of these commands need is here: finding an image, reading its config, adding its sizes up.

pub mod history;
pub mod inspect;
pub mod list;
pub mod names;

use anyhow::{Context, anyhow};
use cache::{NamedImage, PlatformImage, Store};
use image::{DiffId, ImageRef, document::ImageConfig};
use parser::suggest::suggest;

use crate::failure::{Failure, OrFail, Result};

/// The most bytes of an image config.
const LARGEST_CONFIG: u64 = 8 << 20;

/// Finds an image by name, id, or start of an id.
///
/// # Errors
///
/// Fails where there is none, or several.
pub fn find(store: &Store, text: &str) -> Result<NamedImage> {
    if let Some(image) = store.resolve(text).or_input()? {
        return Ok(image);
    }
    let failure = Failure::failed(anyhow!("there is no image `{text}` in the store"));
    if super::containers::find(store, text).is_ok() {
        let hint = format!("`{text}` is a container; `kiln ps -a` shows what is known of it");
        return Err(failure.hint(hint));
    }
    Err(match similar(store, text)? {
        Some(name) => failure.hint(format!("did you mean `{name}`?")),
        None => failure.hint("`kiln images` lists what is there, `kiln pull` downloads"),
    })
}

/// Returns the name of the store that is closest to one that is not there.
fn similar(store: &Store, text: &str) -> Result<Option<String>> {
    let names: Vec<String> =
        store.images().or_failed()?.iter().flat_map(names_of).map(|it| it.familiar()).collect();
    let wanted =
        ImageRef::parse(text).map_or(text.to_owned(), |it| it.with_default_tag().familiar());
    let same_name = |it: &&String| it.split(':').next() == wanted.split(':').next();
    if let Some(name) = names.iter().find(same_name) {
        return Ok(Some(name.clone()));
    }
    let close = suggest(&wanted, names.iter().map(String::as_str), true);
    Ok(close.map(str::to_owned))
}

/// Returns the names of an image.
pub fn names_of(image: &NamedImage) -> Vec<ImageRef> {
    image.names.iter().filter_map(|it| ImageRef::parse(it).ok()).collect()
}

/// Returns the platform that a command without `--platform` is about: this machine's, else the first.
///
/// # Errors
///
/// Fails where the image has none in the store.
pub fn platform_of<'a>(image: &'a NamedImage, wanted: Option<&str>) -> Result<&'a PlatformImage> {
    let host = image::Platform::host();
    let platforms = &image.record.platforms;
    let here = |wanted: &image::Platform| {
        platforms.iter().find(|it| it.platform.normalized() == wanted.normalized())
    };
    let found = match wanted {
        None => here(&host).or(platforms.first()),
        Some(text) => here(&image::Platform::parse(text, &host).or_input()?),
    };
    found.ok_or_else(|| {
        let has: Vec<String> = platforms.iter().map(|it| it.platform.format_all()).collect();
        let failure = Failure::failed(anyhow!(
            "the image has no platform `{}` in the store",
            wanted.unwrap_or("any")
        ));
        failure.hint(format!(
            "it has {}",
            if has.is_empty() { "none".to_owned() } else { has.join(", ") }
        ))
    })
}

/// Reads the config of an image.
///
/// # Errors
///
/// Fails where it is not there or not understood.
pub fn config_of(store: &Store, image: &PlatformImage) -> Result<ImageConfig> {
    let bytes = store.read_blob(&image.config.0, LARGEST_CONFIG).or_failed()?;
    serde_json::from_slice(&bytes)
        .with_context(|| format!("the config `{}` is damaged", image.config))
        .or_failed()
}

/// Returns the size of a layer's tar, or of what is known of it.
///
/// # Errors
///
/// Fails where its record cannot be read.
pub fn layer_size(store: &Store, layer: &DiffId) -> Result<u64> {
    let record = store.layer(layer).or_failed()?;
    Ok(record.map_or(0, |it| {
        it.tar_size.or_else(|| it.blobs.iter().map(|it| it.size).max()).unwrap_or(0)
    }))
}

/// Returns the size of all layers.
///
/// # Errors
///
/// Fails where a record cannot be read.
pub fn size_of(store: &Store, layers: &[DiffId]) -> Result<u64> {
    layers.iter().map(|it| layer_size(store, it)).sum()
}
