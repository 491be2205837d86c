//! OCI image layouts as directories.
//!
//! ```text
//! oci-layout              {"imageLayoutVersion":"1.0.0"}
//! index.json              an index; each descriptor has the names of an image as annotations
//! blobs/sha256/HEX        blobs: documents, configs, layers
//! ```
//!
//! Two annotations carry a name: `io.containerd.image.name` the whole of it, `org.opencontainers.image.ref.name` the tag. An image with two
//! names has two descriptors.
//!
//! # Source
//!
//! OCI image-spec, `image-layout.md`; BuildKit's exporter for the annotations.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use image::{
    Digest, ImageRef, Platform,
    document::{Descriptor, ImageConfig, Index, Manifest, media_type},
};
use serde::Deserialize;

use crate::{
    client::RawDocument,
    config::Limits,
    document::{choose, describe, is_index, is_manifest, parse},
    error::{Error, Result},
    export::{BlobSource, Named, Verified, read_document},
};

/// The annotation with the whole name.
pub const IMAGE_NAME: &str = "io.containerd.image.name";
/// The annotation with the tag.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

pub(crate) const MARKER: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// An image found in a layout or an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its names.
    pub names: Vec<ImageRef>,
    /// Its manifest or index.
    pub root: Descriptor,
}

/// An image whose blobs are at hand: all but its layers.
#[derive(Debug, Clone)]
pub struct LocalImage {
    /// The index, if the image is one of several.
    pub index: Option<RawDocument>,
    /// The manifest.
    pub manifest: RawDocument,
    /// The manifest, read.
    pub parsed: Manifest,
    /// The image config as it is.
    pub config_bytes: Vec<u8>,
    /// The image config, read.
    pub config: ImageConfig,
}

/// A layout in a directory.
#[derive(Debug, Clone)]
pub struct Layout {
    folder: PathBuf,
    index: Index,
}

impl Layout {
    /// Opens the layout in `folder`.
    ///
    /// # Errors
    ///
    /// [`Error::BadFile`] if there is none, and those of reading.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self> {
        let folder = folder.into();
        let marker = folder.join("oci-layout");
        if let Err(error) = check_marker(&read_file(&marker)?) {
            return Err(Error::BadFile { path: marker, problem: error.to_owned() });
        }
        let path = folder.join("index.json");
        let index = parse(&read_file(&path)?, || format!("`{}`", path.display()))?;
        Ok(Self { folder, index })
    }

    /// Returns the images of the layout; one with several names once.
    pub fn images(&self) -> Vec<Found> {
        found(&self.index)
    }

    /// Finds the image that `selector` means: a digest, a tag, a whole name, or without any the one tagged `latest`, or the only one.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if there is no such image.
    pub fn find(&self, selector: Option<&str>) -> Result<Descriptor> {
        let descriptors = &self.index.manifests;
        let not_found = || {
            let mut tried: Vec<_> =
                descriptors.iter().filter_map(|it| it.annotations.get(REF_NAME).cloned()).collect();
            tried.sort();
            let image = format!("{}:{}", self.folder.display(), selector.unwrap_or("latest"));
            Error::NotFound { image, reason: String::new(), tried }
        };
        let selector_digest =
            selector.and_then(|it| it.rsplit('@').next()).and_then(|it| it.parse::<Digest>().ok());
        if let Some(digest) = selector_digest {
            if let Some(found) = descriptors.iter().find(|it| it.digest == digest) {
                return Ok(found.clone());
            }
            return self.by_digest(digest).map_err(|_| not_found());
        }
        let tag = selector.unwrap_or("latest");
        let tagged = |it: &&Descriptor| {
            let names = [it.annotations.get(REF_NAME), it.annotations.get(IMAGE_NAME)];
            let matches = |name: &String| {
                name == tag
                    || ImageRef::parse(name)
                        .is_ok_and(|it| it.tag.as_deref() == Some(tag) && name.contains(':'))
            };
            names.into_iter().flatten().any(matches)
        };
        if let Some(found) = descriptors.iter().find(tagged) {
            return Ok(found.clone());
        }
        match (selector, descriptors.as_slice()) {
            (None, [only]) => Ok(only.clone()),
            _ => Err(not_found()),
        }
    }

    /// Describes a document that the index does not name.
    fn by_digest(&self, digest: Digest) -> Result<Descriptor> {
        let path = blob_path(&self.folder, &digest);
        let size = fs::metadata(&path)
            .map_err(|source| Error::File { action: "read", path, source })?
            .len();
        let bytes =
            read_document(self, &describe("", digest, size), Limits::default().document_bytes)?;
        let media_type = crate::document::document_type(&bytes, None, || format!("blob {digest}"))?;
        Ok(describe(&media_type, digest, size))
    }
}

impl BlobSource for Layout {
    fn open(&self, descriptor: &Descriptor) -> io::Result<Box<dyn Read + Send>> {
        let file = File::open(blob_path(&self.folder, &descriptor.digest))?;
        Ok(Box::new(Verified::new(file, descriptor)))
    }
}

/// Reads manifest and config of the image below `root`; of an index the one that suits `platform` best.
///
/// # Errors
///
/// [`Error::NoPlatform`] if the index has nothing for the platform, [`Error::Local`] if a blob is not there, and others if one is not what it
/// should be.
pub fn read_image(
    source: &dyn BlobSource,
    root: &Descriptor,
    platform: &Platform,
) -> Result<LocalImage> {
    let limit = Limits::default().document_bytes;
    let read = |descriptor: &Descriptor| -> Result<RawDocument> {
        let bytes = read_document(source, descriptor, limit)?;
        let what = || format!("blob {}", descriptor.digest);
        let media_type =
            crate::document::document_type(&bytes, Some(&descriptor.media_type), what)?;
        Ok(RawDocument { media_type, digest: descriptor.digest, bytes })
    };
    let mut document = read(root)?;
    let mut index = None;
    for _ in 0..crate::document::MAX_DEPTH {
        if !is_index(&document.media_type) {
            break;
        }
        let list: Index = parse(&document.bytes, || format!("index {}", document.digest))?;
        let chosen = choose(&list, platform, || document.digest.to_string())?.clone();
        index.get_or_insert(document);
        document = read(&chosen)?;
    }
    let what = || format!("manifest {}", document.digest);
    if !is_manifest(&document.media_type) {
        return Err(Error::Document { what: what(), problem: "is no image manifest".to_owned() });
    }
    let parsed: Manifest = parse(&document.bytes, what)?;
    let config_bytes = read_document(source, &parsed.config, limit)?;
    let config: ImageConfig = parse(&config_bytes, || format!("config {}", parsed.config.digest))?;
    crate::document::check_layers(&parsed, &config, || document.digest.to_string())?;
    Ok(LocalImage { index, manifest: document, parsed, config_bytes, config })
}

/// Writes images into the layout in `folder`, which is made if need be. Images that are there stay, but for those whose names are taken over.
///
/// # Errors
///
/// If a file cannot be written, a blob not read, or a blob is not what its descriptor says.
pub fn write_layout(folder: &Path, images: &[Named], source: &dyn BlobSource) -> Result<()> {
    let error = |action, path: &Path, source| Error::File { action, path: path.to_owned(), source };
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(|source| error("create", &blobs, source))?;
    for image in images {
        for descriptor in image.export.blobs()? {
            let path = blob_path(folder, &descriptor.digest);
            if fs::metadata(&path).is_ok_and(|it| it.len() == descriptor.size) {
                continue;
            }
            let blob = image.export.open(&descriptor, source);
            let what = format!("blob {}", descriptor.digest);
            let blob =
                blob.map_err(|source| Error::Local { action: "read", what: what.clone(), source })?;
            replace(&path, &mut Verified::new(blob, &descriptor))?;
        }
        for document in &image.export.documents {
            replace(&blob_path(folder, &document.digest), &mut document.bytes.as_slice())?;
        }
    }
    // Two exports into one folder at once must not lose each other's names.
    let lock = File::open(folder).map_err(|source| error("read", folder, source))?;
    lock.lock().map_err(|source| error("lock", folder, source))?;
    let marker = folder.join("oci-layout");
    if !marker.exists() {
        replace(&marker, &mut &*MARKER)?;
    }
    let path = folder.join("index.json");
    let mut index = match fs::read(&path) {
        Ok(bytes) => parse(&bytes, || format!("`{}`", path.display()))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => empty_index(),
        Err(source) => return Err(error("read", &path, source)),
    };
    for image in images {
        merge(&mut index, image)?;
    }
    let bytes = serde_json::to_vec(&index)
        .map_err(|source| Error::Json { what: "index".to_owned(), source })?;
    replace(&path, &mut bytes.as_slice())
}

/// Writes the file `path` by way of a temporary one.
fn replace(path: &Path, content: &mut dyn Read) -> Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let write = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        io::copy(content, &mut file)?;
        file.flush()?;
        fs::rename(&temporary, path)
    };
    let mut write = write;
    write().map_err(|source| {
        let _ = fs::remove_file(&temporary);
        Error::File { action: "write", path: path.to_owned(), source }
    })
}

pub(crate) fn empty_index() -> Index {
    Index {
        schema_version: 2,
        media_type: media_type::OCI_INDEX.to_owned(),
        manifests: Vec::new(),
        annotations: Default::default(),
        other: Default::default(),
    }
}

/// Enters an image into an index under its names, which are taken away from other images.
pub(crate) fn merge(index: &mut Index, image: &Named) -> Result<()> {
    let root = image.export.root_descriptor()?;
    if image.names.is_empty() {
        if !index.manifests.iter().any(|it| it.digest == root.digest) {
            index.manifests.push(root);
        }
        return Ok(());
    }
    index.manifests.retain(|it| it.digest != root.digest || it.annotations.contains_key(REF_NAME));
    for name in &image.names {
        let mut descriptor = root.clone();
        let tag = name.tag_or_latest().to_owned();
        let tagged = ImageRef { tag: Some(tag.clone()), digest: None, ..name.clone() };
        let whole = tagged.to_string();
        index.manifests.retain(|it| {
            match (it.annotations.get(IMAGE_NAME), it.annotations.get(REF_NAME)) {
                (Some(other), _) => *other != whole,
                (None, Some(other)) => *other != tag && *other != whole,
                (None, None) => true,
            }
        });
        descriptor.annotations.insert(IMAGE_NAME.to_owned(), whole);
        descriptor.annotations.insert(REF_NAME.to_owned(), tag);
        index.manifests.push(descriptor);
    }
    Ok(())
}

/// Returns the images of an index with their names.
pub(crate) fn found(index: &Index) -> Vec<Found> {
    let mut images: Vec<Found> = Vec::new();
    for descriptor in &index.manifests {
        if !is_index(&descriptor.media_type) && !is_manifest(&descriptor.media_type) {
            continue;
        }
        // A tag alone is no name; the name of a Podman archive stands where the tag should be.
        let whole = descriptor.annotations.get(IMAGE_NAME);
        let whole = whole
            .or_else(|| descriptor.annotations.get(REF_NAME).filter(|it| it.contains(['/', ':'])));
        let name = whole.and_then(|it| ImageRef::parse(it).ok());
        match images.iter_mut().find(|it| it.root.digest == descriptor.digest) {
            Some(image) => image.names.extend(name),
            None => {
                let mut root = descriptor.clone();
                root.annotations.remove(IMAGE_NAME);
                root.annotations.remove(REF_NAME);
                images.push(Found { names: name.into_iter().collect(), root });
            }
        }
    }
    images
}

pub(crate) fn check_marker(bytes: &[u8]) -> Result<(), &'static str> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Marker {
        image_layout_version: String,
    }
    match serde_json::from_slice::<Marker>(bytes) {
        Ok(marker) if marker.image_layout_version.starts_with("1.") => Ok(()),
        Ok(_) => Err("names a version of the layout that is not supported, only 1.0.0 is"),
        Err(_) => Err("is no marker of an OCI image layout"),
    }
}

fn blob_path(folder: &Path, digest: &Digest) -> PathBuf {
    folder.join("blobs/sha256").join(digest.hex())
}

/// Reads a file that is no larger than a document may be.
fn read_file(path: &Path) -> Result<Vec<u8>> {
    let limit = Limits::default().document_bytes;
    let error = |source| Error::File { action: "read", path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(error)?.take(limit + 1).read_to_end(&mut bytes).map_err(error)?;
    if bytes.len() as u64 > limit {
        return Err(Error::TooLarge { what: format!("`{}`", path.display()), limit });
    }
    Ok(bytes)
}
