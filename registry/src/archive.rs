//! Image archives: one tar with an OCI layout in it, with `manifest.json` besides for Docker.
//!
//! Writing gives the same bytes for the same images: entries sorted by path, all times the epoch, no owner.
//! Reading takes the entries as they come, hands blobs on at once, and makes sense of them at the end.

use std::{
    collections::BTreeMap,
    io::{self, BufReader, Read, Write},
};

use image::{
    Digest, ImageRef,
    compress::{Detected, decompress},
    document::{Descriptor, ImageConfig, Index, media_type},
    entry::{Entry, Kind, Time},
    error::LayerError,
    layer::{self, Mode, Record, TarReader, TarWriter},
};

use crate::{
    client::RawDocument,
    config::Limits,
    docker_archive,
    document::{check_layers, describe, is_manifest, parse},
    error::{Error, Result},
    export::{BlobSink, BlobSource, Named, Verified, read_document},
    layout::{Found, MARKER, check_marker, empty_index, found, merge},
};

/// More entries than this has no image archive.
const MAX_ENTRIES: u64 = 100_000;
/// Bytes that are read at a time.
const BUFFER: usize = 128 * 1024;
/// Links to links are followed this far.
const MAX_LINKS: usize = 16;

/// What kind of archive to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// An OCI layout.
    Oci,
    /// An OCI layout with `manifest.json`, which `docker load` of any age reads.
    Docker,
}

/// Writes `images` to `out` as an archive and returns `out`, which is not flushed.
///
/// # Errors
///
/// If `out` fails, a blob cannot be read, or a blob is not what its descriptor says. What was written is to be thrown away then.
pub fn write_archive<W: Write>(
    out: W,
    format: Format,
    images: &[Named],
    source: &dyn BlobSource,
) -> Result<W> {
    let mut index = empty_index();
    let mut entries = Vec::new();
    let mut blobs = BTreeMap::new();
    for image in images {
        merge(&mut index, image)?;
        if format == Format::Docker {
            entries.push(docker_archive::entry(image)?);
        }
        for descriptor in image.export.blobs()? {
            blobs.entry(descriptor.digest.hex()).or_insert((descriptor, image, None));
        }
        for document in &image.export.documents {
            blobs.insert(document.digest.hex(), (document.descriptor(), image, Some(document)));
        }
    }
    let json = |what: &str, result: serde_json::Result<Vec<u8>>| {
        result.map_err(|source| Error::Json { what: what.to_owned(), source })
    };
    let mut tar = Writer(TarWriter::new_plain(out));
    tar.folder("blobs")?;
    tar.folder("blobs/sha256")?;
    for (hex, (descriptor, image, document)) in blobs {
        let path = format!("blobs/sha256/{hex}");
        match document {
            Some(document) => tar.file(&path, descriptor.size, &mut document.bytes.as_slice())?,
            None => {
                let blob =
                    image.export.open(&descriptor, source).map_err(|source| Error::Local {
                        action: "read",
                        what: format!("blob {}", descriptor.digest),
                        source,
                    })?;
                match source.is_checked(&descriptor) {
                    true => tar.file(&path, descriptor.size, &mut { blob })?,
                    false => tar.blob(&path, &descriptor, blob)?,
                }
            }
        }
    }
    tar.small("index.json", &json("index", serde_json::to_vec(&index))?)?;
    if format == Format::Docker {
        tar.small("manifest.json", &json("manifest.json", serde_json::to_vec(&entries))?)?;
    }
    tar.small("oci-layout", MARKER)?;
    tar.0.finish().map_err(write_error)
}

struct Writer<W>(TarWriter<W>);

impl<W: Write> Writer<W> {
    fn folder(&mut self, path: &str) -> Result<()> {
        self.append(path, Kind::Directory, 0o755, &mut io::empty())
    }

    fn small(&mut self, path: &str, content: &[u8]) -> Result<()> {
        let mut content = content;
        self.file(path, content.len() as u64, &mut content)
    }

    fn file(&mut self, path: &str, size: u64, content: &mut dyn Read) -> Result<()> {
        self.append(path, Kind::File { size }, 0o644, content)
    }

    fn blob(
        &mut self,
        path: &str,
        descriptor: &Descriptor,
        blob: Box<dyn Read + Send>,
    ) -> Result<()> {
        let mut blob = Verified::new(blob, descriptor);
        self.file(path, descriptor.size, &mut blob)?;
        // The tar takes as many bytes as it was told; only at the end shows whether they were the right ones.
        let at_end = blob.read(&mut [0]);
        at_end.map(|_| ()).map_err(|source| Error::Local {
            action: "read",
            what: format!("`{path}`"),
            source,
        })
    }

    fn append(&mut self, path: &str, kind: Kind, mode: u32, content: &mut dyn Read) -> Result<()> {
        let (path, xattrs) = (path.as_bytes().to_vec(), BTreeMap::new());
        let entry = Entry { path, kind, mode, uid: 0, gid: 0, mtime: Time::default(), xattrs };
        self.0.append(&entry, content).map(|_| ()).map_err(write_error)
    }
}

fn write_error(source: LayerError) -> Error {
    Error::Tar { action: "write", archive: "image archive".to_owned(), source }
}

/// Reads an image archive of either kind from `input`, which may be compressed, puts all blobs into `store`, and returns the images. `archive` is how messages name it.
///
/// Nothing is kept in memory but documents. Blobs that belong to no image are put into the store as well, for its own clean-up to find.
///
/// # Errors
///
/// [`Error::Archive`] if it is no image archive or lacks something, [`Error::Tar`] if it is no good tar, [`Error::DigestMismatch`] if a blob is not what
/// its name says, [`Error::Local`] if the store fails.
pub fn load<S: BlobSource + BlobSink>(
    input: impl Read + Send,
    archive: &str,
    store: &S,
) -> Result<Vec<Found>> {
    let mut contents = Contents {
        archive,
        store,
        files: BTreeMap::new(),
        links: BTreeMap::new(),
        small: BTreeMap::new(),
    };
    let (_, input) = decompress(BufReader::with_capacity(BUFFER, input))
        .map_err(|source| Error::Local { action: "read", what: archive.to_owned(), source })?;
    contents.read(input)?;
    let manifest_json = contents.small.get("manifest.json");
    let entries: Vec<docker_archive::Entry> = match manifest_json {
        Some(bytes) => parse(bytes, || format!("`manifest.json` in {archive}"))?,
        None => Vec::new(),
    };
    let images = match contents.small.get("index.json") {
        Some(bytes) if contents.small.contains_key("oci-layout") => {
            contents.layout_images(bytes, &entries)?
        }
        _ if manifest_json.is_some() => contents.docker_images(&entries)?,
        _ if contents.small.contains_key("repositories") => {
            return Err(contents.problem(
                "was written by Docker before 1.10, which is not supported; save it again",
            ));
        }
        _ => {
            return Err(contents
                .problem("is no image archive: it has neither `index.json` nor `manifest.json`"));
        }
    };
    if images.is_empty() {
        return Err(contents.problem("has no image in it"));
    }
    Ok(images)
}

/// A file of an archive that is in the store now.
#[derive(Debug, Clone, Copy)]
struct Stored {
    digest: Digest,
    size: u64,
    compression: Detected,
}

/// What was found in an archive.
struct Contents<'a, S> {
    archive: &'a str,
    store: &'a S,
    files: BTreeMap<String, Stored>,
    links: BTreeMap<String, String>,
    /// Documents with a fixed name.
    small: BTreeMap<String, Vec<u8>>,
}

impl<S: BlobSource + BlobSink> Contents<'_, S> {
    fn read(&mut self, input: impl Read) -> Result<()> {
        let limits = layer::Limits { max_entries: MAX_ENTRIES, ..layer::Limits::default() };
        let mut tar = TarReader::with(input, Mode::Archive, limits);
        let archive = self.archive;
        let tar_error = |source| Error::Tar { action: "read", archive: archive.to_owned(), source };
        let mut is_tar = false;
        loop {
            let next = tar.next().map_err(|source| match source {
                LayerError::Header { .. } | LayerError::Truncated { .. } if !is_tar => {
                    let problem = "is no image archive: it is no tar".to_owned();
                    Error::Archive { archive: archive.to_owned(), problem }
                }
                source => tar_error(source),
            })?;
            is_tar = true;
            let entry = match next {
                None => break,
                Some(Record::Entry(entry)) => entry,
                Some(_) => continue,
            };
            let unknown = |path: &[u8]| {
                let path = String::from_utf8_lossy(path);
                let problem = format!(
                    "is no image archive: `{}` does not belong into one",
                    path.escape_debug()
                );
                Error::Archive { archive: self.archive.to_owned(), problem }
            };
            let Ok(path) = String::from_utf8(entry.path.clone()) else {
                return Err(unknown(&entry.path));
            };
            match entry.kind {
                Kind::Directory => {}
                Kind::File { size } => {
                    if path.matches('/').count() > 1 && !path.starts_with("blobs/") {
                        return Err(unknown(&entry.path));
                    }
                    self.file(path, size, &mut tar)?;
                }
                Kind::Symlink { target } => {
                    let target = resolve(&path, &target).ok_or_else(|| unknown(&entry.path))?;
                    self.links.insert(path, target);
                }
                Kind::Hardlink { target } => {
                    let target = String::from_utf8(target).map_err(|_| unknown(&entry.path))?;
                    self.links.insert(path, target);
                }
                _ => return Err(unknown(&entry.path)),
            }
        }
        tar.finish().map(|_| ()).map_err(tar_error)
    }

    fn file(&mut self, path: String, size: u64, content: &mut dyn Read) -> Result<()> {
        let read_error = |source| Error::Local {
            action: "read",
            what: format!("`{path}` of {}", self.archive),
            source,
        };
        if matches!(path.as_str(), "index.json" | "oci-layout" | "manifest.json" | "repositories") {
            let limit = Limits::default().document_bytes;
            if size > limit {
                return Err(Error::TooLarge {
                    what: format!("`{path}` in {}", self.archive),
                    limit,
                });
            }
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes).map_err(read_error)?;
            self.small.insert(path, bytes);
            return Ok(());
        }
        if path.ends_with("/json") || path.ends_with("/VERSION") {
            return Ok(()); // What Docker before 1.10 would want to know.
        }
        let expected = match path.strip_prefix("blobs/sha256/") {
            Some(hex) => match format!("sha256:{hex}").parse::<Digest>() {
                Ok(digest) => Some(digest),
                Err(_) => {
                    return Err(
                        self.problem(&format!("has a blob whose name is no digest: `{path}`"))
                    );
                }
            },
            None => None,
        };
        // Enough to tell a tar from a compressed one, read before the store sees it.
        let mut start = Vec::new();
        content.take(Detected::N_BYTES as u64).read_to_end(&mut start).map_err(read_error)?;
        let compression = Detected::of(&start);
        let what = || format!("`{path}` of {}", self.archive);
        let put = self.store.put(expected, &mut start.as_slice().chain(content));
        let (found, size) =
            put.map_err(|source| Error::Local { action: "store", what: what(), source })?;
        if let Some(expected) = expected.filter(|it| *it != found) {
            return Err(Error::DigestMismatch { what: what(), expected, found });
        }
        self.files.insert(path, Stored { digest: found, size, compression });
        Ok(())
    }

    /// Makes sense of an OCI layout. Names that only `manifest.json` knows are taken from there.
    fn layout_images(&self, index: &[u8], entries: &[docker_archive::Entry]) -> Result<Vec<Found>> {
        if let Some(Err(problem)) = self.small.get("oci-layout").map(|it| check_marker(it)) {
            return Err(self.problem(&format!("has an `oci-layout` that {problem}")));
        }
        let index: Index = parse(index, || format!("`index.json` in {}", self.archive))?;
        let mut images = found(&index);
        for image in &mut images {
            if !is_manifest(&image.root.media_type) {
                continue;
            }
            let bytes = self.document(&image.root)?;
            let manifest: image::document::Manifest =
                parse(&bytes, || format!("manifest {}", image.root.digest))?;
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                let path = format!("blobs/sha256/{}", blob.digest.hex());
                if !self.files.contains_key(&path) && blob.urls.is_empty() {
                    return Err(self.problem(&format!("lacks `{path}`")));
                }
            }
            if image.names.is_empty() {
                let is_ours = |it: &&docker_archive::Entry| {
                    it.config.ends_with(&manifest.config.digest.hex())
                };
                image.names = entries.iter().filter(is_ours).flat_map(names).collect();
            }
        }
        Ok(images)
    }

    /// Makes manifests for the images of a `manifest.json`.
    fn docker_images(&self, entries: &[docker_archive::Entry]) -> Result<Vec<Found>> {
        let mut images = Vec::new();
        for entry in entries {
            let stored = self.find(&entry.config)?;
            let config = describe(media_type::OCI_CONFIG, stored.digest, stored.size);
            let bytes = self.document(&config)?;
            let parsed: ImageConfig =
                parse(&bytes, || format!("`{}` in {}", entry.config, self.archive))?;
            let mut layers = Vec::new();
            for path in entry.layers.iter().flatten() {
                let stored = self.find(path)?;
                let Some(layer_type) = docker_archive::layer_type(stored.compression) else {
                    let problem = format!("has `{path}` in a compression that images do not have");
                    return Err(self.problem(&problem));
                };
                layers.push(describe(layer_type, stored.digest, stored.size));
            }
            let manifest = docker_archive::manifest(config, layers);
            check_layers(&manifest, &parsed, || format!("`{}` in {}", entry.config, self.archive))?;
            for (layer, diff_id) in manifest.layers.iter().zip(&parsed.rootfs.diff_ids) {
                if layer.media_type == media_type::OCI_LAYER && layer.digest != diff_id.0 {
                    let what = format!("layer of `{}` in {}", entry.config, self.archive);
                    return Err(Error::DigestMismatch {
                        what,
                        expected: diff_id.0,
                        found: layer.digest,
                    });
                }
            }
            let json = serde_json::to_vec(&manifest)
                .map_err(|source| Error::Json { what: "manifest".to_owned(), source })?;
            let document = RawDocument::new(media_type::OCI_MANIFEST, json);
            self.store.put(Some(document.digest), &mut document.bytes.as_slice()).map_err(
                |source| Error::Local {
                    action: "store",
                    what: format!("manifest {}", document.digest),
                    source,
                },
            )?;
            images.push(Found { names: names(entry), root: document.descriptor() });
        }
        Ok(images)
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let path = format!("blobs/sha256/{}", descriptor.digest.hex());
        let stored = self.files.values().any(|it| it.digest == descriptor.digest);
        if !stored {
            return Err(self.problem(&format!("lacks `{path}`")));
        }
        read_document(self.store, descriptor, Limits::default().document_bytes)
    }

    /// Finds a file, through links if need be.
    fn find(&self, path: &str) -> Result<Stored> {
        let mut path = path.trim_start_matches("./");
        for _ in 0..MAX_LINKS {
            if let Some(stored) = self.files.get(path) {
                return Ok(*stored);
            }
            match self.links.get(path) {
                Some(target) => path = target,
                None => break,
            }
        }
        Err(self.problem(&format!("lacks `{}`", path.escape_debug())))
    }

    fn problem(&self, problem: &str) -> Error {
        Error::Archive { archive: self.archive.to_owned(), problem: problem.to_owned() }
    }
}

fn names(entry: &docker_archive::Entry) -> Vec<ImageRef> {
    entry.repo_tags.iter().flatten().filter_map(|it| ImageRef::parse(it).ok()).collect()
}

/// Returns what the link at `path` points to, as a path of the archive.
fn resolve(path: &str, target: &[u8]) -> Option<String> {
    let target = std::str::from_utf8(target).ok()?;
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" if parts.is_empty() => return None,
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    (!target.starts_with('/')).then(|| parts.join("/"))
}
