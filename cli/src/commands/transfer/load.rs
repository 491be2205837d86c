//! `kiln load`.

use std::{
    fs::File,
    io::{self, BufReader, IsTerminal},
    path::Path,
};

use anyhow::{Context, anyhow};
use cache::Store;
use image::document::{Descriptor, Index, Manifest, media_type};
use registry::{BlobSink, BlobSource, Found, Layout};

use super::{blobs::StoreBlobs, record};
use crate::{
    args::images::LoadArgs,
    commands::{Globals, registry_failure},
    exit::Exit,
    failure::{Failure, OrFail, Result},
    print,
};

/// The most bytes of a manifest or index.
const LARGEST: u64 = 8 << 20;
/// Indexes inside of indexes are followed this far.
const DEEPEST: usize = 4;

/// Reads images from an archive or a layout.
///
/// # Errors
///
/// Fails where it cannot be read or is no image.
pub fn run(args: &LoadArgs, globals: &Globals) -> Result<Exit> {
    let store = globals.store()?;
    // Nothing of it is to be collected before it has a name.
    let _lease = store.lease().or_failed()?;
    let blobs = StoreBlobs(store.clone());
    let found = match args.input.as_deref() {
        Some(path) if path.is_dir() => from_layout(path, &blobs)?,
        Some(path) => {
            let file = File::open(path)
                .with_context(|| format!("cannot read `{}`", path.display()))
                .or_input()?;
            from_archive(file, &format!("`{}`", path.display()), &blobs)?
        }
        None if io::stdin().is_terminal() => {
            let message = anyhow!("standard input is a terminal, and an archive is expected");
            return Err(Failure::input(message).hint("name the archive with --input"));
        }
        None => from_archive(io::stdin(), "standard input", &blobs)?,
    };
    for image in &found {
        print::out(&keep(&store, image, args)?)?;
    }
    Ok(Exit::Done)
}

fn from_archive(input: impl io::Read + Send, name: &str, blobs: &StoreBlobs) -> Result<Vec<Found>> {
    let input = BufReader::with_capacity(1 << 18, input);
    registry::load(input, name, blobs).map_err(registry_failure)
}

fn from_layout(folder: &Path, blobs: &StoreBlobs) -> Result<Vec<Found>> {
    let layout = Layout::open(folder).map_err(registry_failure)?;
    let found = layout.images();
    for image in &found {
        copy(&layout, &image.root, blobs, 0)
            .with_context(|| format!("cannot read layout `{}`", folder.display()))
            .or_failed()?;
    }
    Ok(found)
}

/// Copies a document and all that it leads to. What an index names and the layout has not is left out.
fn copy(
    layout: &Layout,
    document: &Descriptor,
    blobs: &StoreBlobs,
    depth: usize,
) -> anyhow::Result<()> {
    let mut content = match layout.open(document) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && depth > 0 => return Ok(()),
        content => content.with_context(|| format!("blob `{}`", document.digest))?,
    };
    blobs
        .put(Some(document.digest), &mut content)
        .with_context(|| format!("blob `{}`", document.digest))?;
    let below: Vec<Descriptor> = match document.media_type.as_str() {
        media_type::OCI_INDEX | media_type::DOCKER_INDEX if depth < DEEPEST => {
            serde_json::from_slice::<Index>(&blobs.0.read_blob(&document.digest, LARGEST)?)?
                .manifests
        }
        media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST => {
            let manifest: Manifest =
                serde_json::from_slice(&blobs.0.read_blob(&document.digest, LARGEST)?)?;
            std::iter::once(manifest.config).chain(manifest.layers).collect()
        }
        _ => Vec::new(),
    };
    below.iter().try_for_each(|it| copy(layout, it, blobs, depth + 1))
}

/// Gives a loaded image its names and returns what to say of it.
fn keep(store: &Store, image: &Found, args: &LoadArgs) -> Result<String> {
    let mut record = record::record(store, &image.root)?;
    if let Some(text) = &args.platform {
        let wanted =
            image::Platform::parse(text, &image::Platform::host()).or_input()?.normalized();
        record.platforms.retain(|it| it.platform.normalized() == wanted);
        if record.platforms.is_empty() {
            return Err(Failure::failed(anyhow!("the archive has no image for platform `{text}`")));
        }
    }
    let names: Vec<_> = image.names.iter().map(|it| it.with_default_tag()).collect();
    store.put_image(&names, &record).or_failed()?;
    let label = |text: &str| if args.quiet { String::new() } else { text.to_owned() };
    if names.is_empty() {
        return Ok(format!("{}{}\n", label("Loaded image ID: "), record.id()));
    }
    Ok(names.iter().map(|it| format!("{}{}\n", label("Loaded image: "), it.familiar())).collect())
}
