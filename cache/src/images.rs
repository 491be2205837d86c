//! Images and their names.
//!
//! All of them are in one file, `images.json`, which is read whole, changed under a lock, and replaced atomically. The index of the OCI
//! layout lists those whose blobs are all present, so that other tools can read them.

use std::{collections::BTreeSet, path::PathBuf};

use image::{
    DiffId, Digest, ImageId, ImageRef, Platform,
    document::{Descriptor, Index, Manifest, media_type},
};
use serde::{Deserialize, Serialize};

use crate::{error::StoreError, files, lease::Held, store::Store};

const MAX_FILE_BYTES: u64 = 1 << 30;
/// What the specification asks clients to accept at most.
const MAX_DOCUMENT_BYTES: u64 = 4 << 20;

/// One image, of one or several platforms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Its manifest or index, a blob of this store.
    pub target: Descriptor,
    /// Its platforms that are in this store.
    pub platforms: Vec<PlatformImage>,
    /// When it was made here or pulled, in seconds since the Unix epoch.
    pub created: u64,
}

/// An image of one platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlatformImage {
    /// What it runs on.
    pub platform: Platform,
    /// Its manifest, a blob of this store.
    pub manifest: Descriptor,
    /// Its config, a blob of this store.
    pub config: ImageId,
    /// Its layers from the bottom up.
    pub layers: Vec<DiffId>,
}

/// An image and its names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedImage {
    /// Its names in canonical form, sorted; empty for one that lost them.
    pub names: BTreeSet<String>,
    /// The image.
    #[serde(flatten)]
    pub record: ImageRecord,
}

#[derive(Default, Serialize, Deserialize)]
struct ImagesFile {
    images: Vec<NamedImage>,
}

impl ImageRecord {
    /// Returns the id that listings show: that of the config of the first platform, else the digest of the target.
    pub fn id(&self) -> Digest {
        self.platforms.first().map_or(self.target.digest, |it| it.config.0)
    }
}

impl Store {
    pub(crate) fn images_path(&self) -> PathBuf {
        self.path("images.json")
    }

    /// Where the same is written once more, for when the disk loses the first.
    pub(crate) fn images_copy_path(&self) -> PathBuf {
        self.path("images.copy.json")
    }

    /// Lists all images, the youngest first.
    ///
    /// # Errors
    ///
    /// - [`StoreError::Damaged`] if `images.json` does not parse.
    /// - [`StoreError::Io`] if it cannot be read.
    pub fn images(&self) -> Result<Vec<NamedImage>, StoreError> {
        let path = self.images_path();
        let Some(bytes) = files::read_small(&path, MAX_FILE_BYTES)? else {
            // Both are written, the copy after it, so none without the other.
            return match self.images_copy_path().exists() {
                false => Ok(Vec::new()),
                true => Err(StoreError::Damaged { path, reason: "it is gone".to_owned() }),
            };
        };
        let mut images =
            parse_images(&bytes).map_err(|reason| StoreError::Damaged { path, reason })?;
        images.sort_by(|a, b| {
            (b.record.created, &a.names, &a.record.target.digest).cmp(&(
                a.record.created,
                &b.names,
                &b.record.target.digest,
            ))
        });
        Ok(images)
    }

    /// Gives an image a name, taking it away from any other. The image that loses its last name stays, without one.
    ///
    /// Everything stored before survives a power cut when this returns.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the file cannot be written.
    pub fn tag(&self, name: &ImageRef, record: &ImageRecord) -> Result<(), StoreError> {
        self.put_image(std::slice::from_ref(name), record)
    }

    /// Stores an image and gives it these names, none or several.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the file cannot be written.
    pub fn put_image(&self, names: &[ImageRef], record: &ImageRecord) -> Result<(), StoreError> {
        self.hold_image(record)?;
        let names: BTreeSet<String> = names.iter().map(canonical).collect();
        self.change_images(|images| {
            let is_same = |it: &NamedImage| {
                it.record.target == record.target
                    && it.record.platforms == record.platforms
                    && names.iter().all(|name| it.names.contains(name))
            };
            if images.iter().any(is_same) {
                return false;
            }
            for image in images.iter_mut() {
                image.names.retain(|it| !names.contains(it));
            }
            match images.iter_mut().find(|it| it.record.target.digest == record.target.digest) {
                Some(image) => {
                    image.names.extend(names.iter().cloned());
                    image.record = merged(&image.record, record);
                }
                None => images.push(NamedImage { names: names.clone(), record: record.clone() }),
            }
            true
        })
        .map(|_| ())
    }

    /// Takes a name away and returns the image that had it. Without names the image stays until it is collected.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the file cannot be written.
    pub fn untag(&self, name: &ImageRef) -> Result<Option<NamedImage>, StoreError> {
        let name = canonical(name);
        let mut untagged = None;
        self.change_images(|images| {
            for image in images.iter_mut() {
                if image.names.remove(&name) {
                    untagged = Some(image.clone());
                }
            }
            untagged.is_some()
        })?;
        Ok(untagged)
    }

    /// Removes an image with all its names. Its layers stay until they are collected.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the file cannot be written.
    pub fn remove_image(&self, target: &Digest) -> Result<bool, StoreError> {
        self.change_images(|images| {
            let n_before = images.len();
            images.retain(|it| it.record.target.digest != *target);
            images.len() != n_before
        })
    }

    /// Finds an image by name, by digest, or by the first digits of its id.
    ///
    /// A name comes before an id, a name without tag means `latest`. With both tag and digest the digest decides.
    ///
    /// # Errors
    ///
    /// - [`StoreError::AmbiguousId`] if several images have such an id.
    /// - The errors of [`images`](Self::images).
    pub fn resolve(&self, text: &str) -> Result<Option<NamedImage>, StoreError> {
        let images = self.images()?;
        let found = find(&images, text)?.cloned();
        if let Some(image) = &found {
            self.hold_image(&image.record)?;
        }
        Ok(found)
    }

    fn hold_image(&self, record: &ImageRecord) -> Result<(), StoreError> {
        self.hold(Held::Blob(*record.target.digest.as_bytes()))?;
        for platform in &record.platforms {
            self.hold(Held::Blob(*platform.manifest.digest.as_bytes()))?;
            self.hold(Held::Blob(*platform.config.0.as_bytes()))?;
            for diff_id in &platform.layers {
                self.hold(Held::Layer(*diff_id.0.as_bytes()))?;
            }
        }
        Ok(())
    }

    /// Changes the images under their lock. `change` tells whether it changed anything.
    pub(crate) fn change_images(
        &self,
        change: impl FnOnce(&mut Vec<NamedImage>) -> bool,
    ) -> Result<bool, StoreError> {
        let _lock = self.lock("images")?;
        let mut images = self.images()?;
        if !change(&mut images) {
            return Ok(false);
        }
        // A name must not outlive what it names.
        self.flush()?;
        let path = self.images_path();
        let mut bytes = serde_json::to_vec_pretty(&ImagesFile { images: images.clone() }).map_err(
            |source| StoreError::Document { what: "the list of images".to_owned(), source },
        )?;
        bytes.push(b'\n');
        let bytes = files::seal(bytes);
        self.publish(&path, &bytes, true)?;
        self.publish(&self.images_copy_path(), &bytes, false)?;
        self.write_layout(&images)?;
        Ok(true)
    }

    /// Writes the index of the OCI layout anew: call it when blobs of tagged images came.
    ///
    /// # Errors
    ///
    /// The errors of [`images`](Self::images), and [`StoreError::Io`] if the index cannot be written.
    pub fn refresh_layout(&self) -> Result<(), StoreError> {
        let _lock = self.lock("images")?;
        self.write_layout(&self.images()?)
    }

    fn write_layout(&self, images: &[NamedImage]) -> Result<(), StoreError> {
        // It can be made again, but other tools read it, and could not if a power cut left it empty.
        self.publish(&self.path("oci/index.json"), &self.layout(images)?, true)
    }

    /// Makes the index of the OCI layout.
    pub(crate) fn layout(&self, images: &[NamedImage]) -> Result<Vec<u8>, StoreError> {
        let mut manifests = Vec::new();
        for image in images.iter().filter(|it| self.is_complete(&it.record.target, 0)) {
            let mut named = false;
            for name in &image.names {
                let mut descriptor = image.record.target.clone();
                descriptor
                    .annotations
                    .insert("org.opencontainers.image.ref.name".to_owned(), name.clone());
                descriptor.annotations.insert("io.containerd.image.name".to_owned(), name.clone());
                manifests.push(descriptor);
                named = true;
            }
            if !named {
                manifests.push(image.record.target.clone());
            }
        }
        let index = Index {
            schema_version: 2,
            media_type: media_type::OCI_INDEX.to_owned(),
            manifests,
            annotations: Default::default(),
            other: Default::default(),
        };
        let mut bytes = serde_json::to_vec(&index).map_err(|source| StoreError::Document {
            what: "the index of the OCI layout".to_owned(),
            source,
        })?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Tells whether a manifest or index is here with all that it points to.
    fn is_complete(&self, target: &Descriptor, depth: usize) -> bool {
        if !self.blob_path(&target.digest).exists() {
            return false;
        }
        let Ok(document) = self.document(target) else { return false };
        match document {
            Document::Manifest(manifest) => std::iter::once(&manifest.config)
                .chain(&manifest.layers)
                .all(|it| self.blob_path(&it.digest).exists()),
            Document::Index(index) => {
                depth < 4 && index.manifests.iter().all(|it| self.is_complete(it, depth + 1))
            }
            Document::Other => true,
        }
    }

    /// Reads the blob of a descriptor as what its media type says.
    pub(crate) fn document(&self, target: &Descriptor) -> Result<Document, StoreError> {
        let bytes = || self.read_blob_unheld(&target.digest, MAX_DOCUMENT_BYTES);
        let broken =
            |source| StoreError::Document { what: format!("blob `{}`", target.digest), source };
        match target.media_type.as_str() {
            media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST => {
                serde_json::from_slice(&bytes()?)
                    .map(|it| Document::Manifest(Box::new(it)))
                    .map_err(broken)
            }
            media_type::OCI_INDEX | media_type::DOCKER_INDEX => {
                serde_json::from_slice(&bytes()?).map(Document::Index).map_err(broken)
            }
            _ => Ok(Document::Other),
        }
    }
}

/// Reads the file of all images, or says what is wrong with it.
pub(crate) fn parse_images(bytes: &[u8]) -> Result<Vec<NamedImage>, String> {
    let bytes = files::unseal(bytes).ok_or("it is not what was written")?;
    serde_json::from_slice::<ImagesFile>(bytes).map(|it| it.images).map_err(|it| it.to_string())
}

/// A document of an image.
pub(crate) enum Document {
    Manifest(Box<Manifest>),
    Index(Index),
    Other,
}

/// Returns the form a name is stored in: with `latest` if it has neither tag nor digest.
fn canonical(name: &ImageRef) -> String {
    name.with_default_tag().to_string()
}

/// Joins what is known of the same target: the platforms of both.
fn merged(old: &ImageRecord, new: &ImageRecord) -> ImageRecord {
    let mut merged = new.clone();
    let is_new = |it: &&PlatformImage| {
        new.platforms.iter().all(|new| new.manifest.digest != it.manifest.digest)
    };
    merged.platforms.extend(old.platforms.iter().filter(is_new).cloned());
    merged
}

fn find<'a>(images: &'a [NamedImage], text: &str) -> Result<Option<&'a NamedImage>, StoreError> {
    if let Ok(name) = ImageRef::parse(text) {
        let canonical = canonical(&name);
        if let Some(image) = images.iter().find(|it| it.names.contains(&canonical)) {
            return Ok(Some(image));
        }
        if let Some(digest) = name.digest {
            let repository = name.repository();
            let is_named = |it: &&NamedImage| {
                has_digest(&it.record, &digest)
                    && it
                        .names
                        .iter()
                        .filter_map(|it| ImageRef::parse(it).ok())
                        .any(|it| it.repository() == repository)
            };
            if let Some(image) = images.iter().find(is_named) {
                return Ok(Some(image));
            }
        }
    }
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    if digits.is_empty()
        || digits.len() > 64
        || !digits.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
    {
        return Ok(None);
    }
    let mut found =
        images.iter().filter(|it| all_digests(&it.record).any(|it| it.hex().starts_with(digits)));
    match (found.next(), found.next()) {
        (Some(_), Some(_)) => Err(StoreError::AmbiguousId { text: text.to_owned() }),
        (found, _) => Ok(found),
    }
}

fn has_digest(record: &ImageRecord, digest: &Digest) -> bool {
    all_digests(record).any(|it| it == *digest)
}

/// The digests an image is known by: of its target, its manifests and its configs.
fn all_digests(record: &ImageRecord) -> impl Iterator<Item = Digest> {
    let platforms = record.platforms.iter().flat_map(|it| [it.manifest.digest, it.config.0]);
    std::iter::once(record.target.digest).chain(platforms)
}
