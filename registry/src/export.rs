//! An image that is to leave: its documents, and where its blobs are.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read},
};

use image::{
    Digest,
    digest::HashingBeside,
    document::{Descriptor, Index, Manifest},
};

use crate::{
    client::RawDocument,
    document::{check_size, describe, is_index, is_manifest, parse},
    error::{Error, Result},
};

/// Where blobs are read from: the seam towards the store.
pub trait BlobSource: Sync {
    /// Opens a blob. What it yields is checked by who reads it here.
    ///
    /// # Errors
    ///
    /// Of the kind [`NotFound`](io::ErrorKind::NotFound) if there is no such blob, and others.
    fn open(&self, descriptor: &Descriptor) -> io::Result<Box<dyn Read + Send>>;

    /// Whether a blob was hashed a moment ago, when this process wrote it, and needs no check.
    fn is_checked(&self, _descriptor: &Descriptor) -> bool {
        false
    }
}

/// Where blobs are written to: the other half of that seam.
pub trait BlobSink: Sync {
    /// Keeps all that `content` yields, and returns its digest and number of bytes, computed over what was kept.
    ///
    /// # Errors
    ///
    /// Those of `content` and of the store; of the kind [`InvalidData`](io::ErrorKind::InvalidData) if `expected` is another digest. Nothing is
    /// kept then.
    fn put(&self, expected: Option<Digest>, content: &mut dyn Read) -> io::Result<(Digest, u64)>;
}

/// An image, or several under one index, without the layers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Export {
    /// Manifests and indexes, each after what it refers to. The last is what names stand for.
    pub documents: Vec<RawDocument>,
    /// Image configs and other small blobs. What is not here is asked of the [`BlobSource`].
    pub configs: Vec<Vec<u8>>,
    /// Annotations of the root's descriptor, where something lists it: in a layout or an archive of one.
    pub root_annotations: BTreeMap<String, String>,
}

/// What to write under which names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// The names, none for an image without.
    pub names: Vec<image::ImageRef>,
    /// The image.
    pub export: Export,
}

impl Export {
    /// Returns the document that names stand for.
    ///
    /// # Errors
    ///
    /// [`Error::Document`] if there is none.
    pub fn root(&self) -> Result<&RawDocument> {
        self.documents.last().ok_or_else(|| Error::Document {
            what: "image".to_owned(),
            problem: "has no manifest".to_owned(),
        })
    }

    /// Returns the descriptor of that document, with its annotations.
    ///
    /// # Errors
    ///
    /// As [`root`](Self::root).
    pub fn root_descriptor(&self) -> Result<Descriptor> {
        let annotations = self.root_annotations.clone();
        Ok(Descriptor { annotations, ..self.root()?.descriptor() })
    }

    /// Returns the manifests among the documents.
    ///
    /// # Errors
    ///
    /// If a document is not what its media type says, or bytes and digest do not go together.
    pub fn manifests(&self) -> Result<Vec<(&RawDocument, Manifest)>> {
        let mut manifests = Vec::new();
        for document in &self.documents {
            let what = || format!("document {}", document.digest);
            let found = Digest::of(&document.bytes);
            if found != document.digest {
                return Err(Error::DigestMismatch {
                    what: what(),
                    expected: document.digest,
                    found,
                });
            }
            if is_manifest(&document.media_type) {
                manifests.push((document, parse(&document.bytes, what)?));
            } else if is_index(&document.media_type) {
                let _: Index = parse(&document.bytes, what)?;
            } else {
                let problem =
                    format!("has media type `{}`, which is not supported", document.media_type);
                return Err(Error::Document { what: what(), problem });
            }
        }
        Ok(manifests)
    }

    /// Returns all blobs, each once: of each manifest the layers and the config.
    ///
    /// # Errors
    ///
    /// As [`manifests`](Self::manifests).
    pub fn blobs(&self) -> Result<Vec<Descriptor>> {
        let mut seen = BTreeSet::new();
        let mut blobs = Vec::new();
        for (_, manifest) in self.manifests()? {
            blobs.extend(
                manifest
                    .layers
                    .into_iter()
                    .chain([manifest.config])
                    .filter(|it| seen.insert(it.digest)),
            );
        }
        Ok(blobs)
    }

    /// Opens one of the blobs.
    pub(crate) fn open(
        &self,
        descriptor: &Descriptor,
        source: &dyn BlobSource,
    ) -> io::Result<Box<dyn Read + Send>> {
        match self.configs.iter().find(|it| Digest::of(it) == descriptor.digest) {
            Some(bytes) => Ok(Box::new(io::Cursor::new(bytes.clone()))),
            None => source.open(descriptor),
        }
    }
}

impl RawDocument {
    /// Makes a document of its bytes.
    pub fn new(media_type: &str, bytes: Vec<u8>) -> Self {
        Self { media_type: media_type.to_owned(), digest: Digest::of(&bytes), bytes }
    }

    /// Returns the descriptor of the document.
    pub fn descriptor(&self) -> Descriptor {
        describe(&self.media_type, self.digest, self.bytes.len() as u64)
    }
}

/// Reads a blob and fails at its end, or past it, if it is not the one of the descriptor.
pub struct Verified<R> {
    inner: Option<HashingBeside<R>>,
    expected: Digest,
    size: u64,
}

impl<R: Read> Verified<R> {
    /// Wraps `reader`, which must yield the blob of `descriptor`.
    pub fn new(reader: R, descriptor: &Descriptor) -> Self {
        Self {
            inner: Some(HashingBeside::new(reader)),
            expected: descriptor.digest,
            size: descriptor.size,
        }
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(inner) = &mut self.inner else { return Ok(0) };
        let n = inner.read(buffer)?;
        if inner.n_bytes() > self.size {
            return Err(invalid(format!(
                "blob {} has more than {} bytes",
                self.expected, self.size
            )));
        }
        if n == 0
            && !buffer.is_empty()
            && let Some(inner) = self.inner.take()
        {
            let (_, found, n_bytes) = inner.finish()?;
            if n_bytes != self.size {
                return Err(invalid(format!(
                    "blob {} has {n_bytes} bytes instead of {}",
                    self.expected, self.size
                )));
            }
            if found != self.expected {
                return Err(invalid(format!("blob {} has digest {found}", self.expected)));
            }
        }
        Ok(n)
    }
}

fn invalid(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// Reads a blob that is a document, and checks it.
pub(crate) fn read_document(
    source: &dyn BlobSource,
    descriptor: &Descriptor,
    limit: u64,
) -> Result<Vec<u8>> {
    let what = || format!("blob {}", descriptor.digest);
    if descriptor.size > limit {
        return Err(Error::TooLarge { what: what(), limit });
    }
    let error = |source| Error::Local { action: "read", what: what(), source };
    let mut bytes = Vec::new();
    source
        .open(descriptor)
        .map_err(error)?
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(error)?;
    check_size(bytes.len() as u64, descriptor.size, what)?;
    let found = Digest::of(&bytes);
    if found != descriptor.digest {
        return Err(Error::DigestMismatch { what: what(), expected: descriptor.digest, found });
    }
    Ok(bytes)
}
