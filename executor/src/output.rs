//! Finished images into the store, into archives and layouts, to registries; file trees into folders and tars.
//!
//! A local name needs the diff ids only: the manifest of an image made here names the tars of its layers, which are made
//! when somebody asks for them. An export compresses each layer once and remembers the blob.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
};

use cache::{ImageRecord, PlatformImage};
use image::{
    DiffId, ImageRef, Platform,
    canonical::to_canonical_json,
    compress::Compression,
    document::{Descriptor, Index, media_type},
    layer::TarWriter,
};
use registry::{BlobSource, Export, Named, RawDocument};

use crate::{
    assemble::{Built, descriptor, manifest},
    attest::{self, Documents},
    error::ExecutorError,
    export,
    session::{Session, Task},
    ship::oci_type,
    time::Timestamp,
    tree::{Chain, Layers, Tree, join},
};

/// How an image is written.
#[derive(Debug, Clone, Default)]
pub struct ExportOptions {
    /// How layers without a compressed blob are compressed; nothing leaves them as they are.
    pub compression: Option<Compression>,
    /// Compress layers again that have another compression.
    pub force_compression: bool,
    /// Make an index even of one image.
    pub as_index: bool,
    /// Push under no tag: the image has its digest only.
    pub push_by_digest: bool,
    /// Annotations of the manifests.
    pub annotations: Vec<PlatformAnnotation>,
    /// Annotations of the index.
    pub index_annotations: BTreeMap<String, String>,
    /// Annotations of the index's descriptor in a layout.
    pub index_descriptor_annotations: BTreeMap<String, String>,
    /// Annotations of the manifests' descriptors, in the index or in a layout.
    pub descriptor_annotations: Vec<PlatformAnnotation>,
    /// Docker's media types instead of OCI's. They have no annotations and no attestations: with some, it is OCI's all the same.
    pub docker_media_types: bool,
    /// What attestations call the image.
    pub names: Vec<ImageRef>,
    /// Attestations are images of no platform, as before OCI had artifacts.
    pub attestations_as_images: bool,
}

/// An annotation of the images of one platform, or of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatformAnnotation {
    /// Which images have it; none for all.
    pub platform: Option<Platform>,
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
}

impl ExportOptions {
    /// These options, but for what attestations need: an index, and OCI's media types.
    fn for_images(&self, images: &[Built]) -> Self {
        let has_some = images.iter().any(|it| !it.attestations.is_empty());
        Self {
            as_index: self.as_index || has_some,
            docker_media_types: self.docker_media_types && !has_some,
            ..self.clone()
        }
    }

    fn is_docker(&self) -> bool {
        self.docker_media_types
            && self.annotations.is_empty()
            && self.index_annotations.is_empty()
            && self.index_descriptor_annotations.is_empty()
            && self.descriptor_annotations.is_empty()
    }

    /// The name of a kind of document as these options have it.
    fn media_type(&self, oci: &'static str) -> &'static str {
        match oci {
            _ if !self.is_docker() => oci,
            media_type::OCI_INDEX => media_type::DOCKER_INDEX,
            media_type::OCI_MANIFEST => media_type::DOCKER_MANIFEST,
            media_type::OCI_CONFIG => media_type::DOCKER_CONFIG,
            media_type::OCI_LAYER => media_type::DOCKER_LAYER,
            media_type::OCI_LAYER_GZIP => media_type::DOCKER_LAYER_GZIP,
            other => other,
        }
    }
}

/// Those annotations that are for a platform.
fn annotations_of(all: &[PlatformAnnotation], platform: &Platform) -> BTreeMap<String, String> {
    let is_for = |it: &&PlatformAnnotation| {
        it.platform.as_ref().is_none_or(|it| it.normalized() == platform.normalized())
    };
    all.iter().filter(is_for).map(|it| (it.key.clone(), it.value.clone())).collect()
}

pub use registry::archive::Format as ArchiveFormat;

impl Session {
    /// Makes the documents of an image whose layers all have the blobs that the documents name.
    ///
    /// # Errors
    ///
    /// A layer cannot be had or compressed.
    pub fn export(
        &self,
        images: &[Built],
        options: &ExportOptions,
    ) -> Result<Export, ExecutorError> {
        let task = self.task("exporting layers");
        let result = self.make_export(images, options, &task, &|_| {});
        task.end(result)
    }

    fn make_export(
        &self,
        images: &[Built],
        options: &ExportOptions,
        task: &Task<'_>,
        ready: &dyn Fn(&Descriptor),
    ) -> Result<Export, ExecutorError> {
        let options = &options.for_images(images);
        let mut export = Export::default();
        let (mut descriptors, mut attested) = (Vec::new(), Vec::new());
        for image in images {
            self.ensure_layers(&image.layers, None)?;
            let mut layers = Vec::with_capacity(image.layers.len());
            for layer in &image.layers {
                self.cancel.check()?;
                let blob = self.shown_blob(layer, options, task)?;
                ready(&blob);
                layers.push(blob);
            }
            let document = self.manifest_document(image, layers, options)?;
            let mut described = document.descriptor();
            described.platform = Some(image.platform.clone());
            described.annotations =
                annotations_of(&options.descriptor_annotations, &image.platform);
            descriptors.push(described);
            attested.extend(attest::documents(
                image,
                &document.descriptor(),
                &options.names,
                !options.attestations_as_images,
            )?);
            export.documents.push(document);
            export.configs.push(image.config_bytes.clone());
        }
        for Documents { manifest, described, blobs } in attested {
            descriptors.push(described);
            export.documents.push(manifest);
            export.configs.extend(blobs);
        }
        if images.len() > 1 || options.as_index {
            export.documents.push(index_document(descriptors, options)?);
            export.root_annotations.clone_from(&options.index_descriptor_annotations);
        } else if let Some(described) = descriptors.pop() {
            export.root_annotations = described.annotations;
        }
        Ok(export)
    }

    fn manifest_document(
        &self,
        image: &Built,
        layers: Vec<Descriptor>,
        options: &ExportOptions,
    ) -> Result<RawDocument, ExecutorError> {
        let mut manifest = manifest(&image.config_bytes, layers);
        manifest.annotations = annotations_of(&options.annotations, &image.platform);
        manifest.media_type = options.media_type(media_type::OCI_MANIFEST).to_owned();
        manifest.config.media_type = options.media_type(media_type::OCI_CONFIG).to_owned();
        for layer in &mut manifest.layers {
            layer.media_type = options.media_type(oci_type(&layer.media_type)).to_owned();
        }
        let bytes =
            to_canonical_json(&manifest).map_err(|source| ExecutorError::Encode { source })?;
        Ok(RawDocument::new(options.media_type(media_type::OCI_MANIFEST), bytes))
    }

    /// The blob of a layer, as the options want it, with its progress.
    fn shown_blob(
        &self,
        layer: &DiffId,
        options: &ExportOptions,
        task: &Task<'_>,
    ) -> Result<Descriptor, ExecutorError> {
        let part = format!("compressing {layer}");
        let tell = |n_bytes, total, is_done| {
            task.progress(&part, n_bytes, total, is_done);
            Ok(())
        };
        self.layer_blob(layer, options, crate::threads(), &tell)
    }

    /// Keeps an image in the store and gives it `names`. Its layers stay as they are.
    ///
    /// # Errors
    ///
    /// The store cannot be written.
    pub fn keep(
        &self,
        images: &[Built],
        names: &[ImageRef],
        options: &ExportOptions,
    ) -> Result<ImageRecord, ExecutorError> {
        let task = self.task("exporting to image");
        let result = self.keep_images(images, names, options, &task);
        task.end(result)
    }

    fn keep_images(
        &self,
        images: &[Built],
        names: &[ImageRef],
        options: &ExportOptions,
        task: &Task<'_>,
    ) -> Result<ImageRecord, ExecutorError> {
        let options = &options.for_images(images);
        let mut platforms = Vec::new();
        let (mut descriptors, mut attested) = (Vec::new(), Vec::new());
        for image in images {
            // An image in the store is whole: it runs without the registry that its base came from.
            self.ensure_layers(&image.layers, None)?;
            let mut layers = Vec::with_capacity(image.layers.len());
            for layer in &image.layers {
                layers.push(self.kept_blob(layer, options, task)?);
            }
            let document = self.manifest_document(image, layers, options)?;
            self.store.put_blob(&image.config_bytes)?;
            self.store.put_blob(&document.bytes)?;
            let mut described = document.descriptor();
            platforms.push(PlatformImage {
                platform: image.platform.clone(),
                manifest: described.clone(),
                config: image.id,
                layers: image.layers.clone(),
            });
            attested.extend(attest::documents(
                image,
                &described,
                &options.names,
                !options.attestations_as_images,
            )?);
            described.platform = Some(image.platform.clone());
            descriptors.push(described);
        }
        for Documents { manifest, described, blobs } in attested {
            for bytes in blobs.iter().chain([&manifest.bytes]) {
                self.store.put_blob(bytes)?;
            }
            descriptors.push(described);
        }
        let target = match (descriptors.as_slice(), options.as_index) {
            ([_], false) => platforms[0].manifest.clone(),
            _ => {
                let document = index_document(descriptors, options)?;
                self.store.put_blob(&document.bytes)?;
                document.descriptor()
            }
        };
        let created = u64::try_from(Timestamp::now().secs).unwrap_or(0);
        let record = ImageRecord { target, platforms, created };
        self.store.put_image(names, &record)?;
        for name in names {
            task.progress(&format!("naming to {name}"), 0, None, true);
        }
        Ok(record)
    }

    /// What the manifest of an image in the store says of a layer: its blob where there is one, else its tar.
    fn kept_blob(
        &self,
        layer: &DiffId,
        options: &ExportOptions,
        task: &Task<'_>,
    ) -> Result<Descriptor, ExecutorError> {
        if options.compression.is_some() {
            self.ensure_layers(std::slice::from_ref(layer), None)?;
            return self.shown_blob(layer, options, task);
        }
        if let Some(blob) = self.remote_blob(layer) {
            return Ok(descriptor(oci_type(&blob.media_type), blob.digest, blob.size));
        }
        self.shown_blob(layer, &ExportOptions::default(), task)
    }

    /// Writes an image archive.
    ///
    /// # Errors
    ///
    /// The archive or the store fails.
    pub fn write_archive(
        &self,
        export: Export,
        names: &[ImageRef],
        format: ArchiveFormat,
        out: impl Write,
    ) -> Result<(), ExecutorError> {
        let task = self.task(match format {
            ArchiveFormat::Docker => "exporting to docker image format",
            _ => "exporting to oci image format",
        });
        let named = Named { names: names.to_vec(), export };
        let result =
            registry::archive::write_archive(out, format, std::slice::from_ref(&named), self)
                .map_err(ExecutorError::from)
                .and_then(|mut out| {
                    out.flush()
                        .map_err(|source| ExecutorError::Write { path: "archive".into(), source })
                });
        task.end(result)
    }

    /// Writes an image into an OCI layout folder; other images in it stay.
    ///
    /// # Errors
    ///
    /// The folder or the store fails.
    pub fn write_layout(
        &self,
        export: Export,
        names: &[ImageRef],
        folder: &Path,
    ) -> Result<(), ExecutorError> {
        let task = self.task("exporting to oci image layout");
        let named = Named { names: names.to_vec(), export };
        let result = registry::layout::write_layout(folder, std::slice::from_ref(&named), self);
        task.end(result.map_err(ExecutorError::from))
    }

    /// Pushes an image under each of its names.
    ///
    /// # Errors
    ///
    /// The registry cannot be reached or refuses.
    pub fn push(&self, export: &Export, names: &[ImageRef]) -> Result<(), ExecutorError> {
        for name in names {
            let task = self.task(format!("pushing {name}"));
            let progress = |blob: &Descriptor, n_bytes: u64| {
                task.progress(
                    &blob.digest.to_string(),
                    n_bytes,
                    Some(blob.size),
                    n_bytes >= blob.size,
                );
            };
            let result =
                self.wait(self.client.push(name, export, &self.mountable(), self, &progress))?;
            task.end(result.map(drop).map_err(ExecutorError::from))?;
        }
        Ok(())
    }

    /// Does what [`export`](Self::export) and [`push`](Self::push) do, and sends blobs from the first on while later ones are compressed.
    ///
    /// # Errors
    ///
    /// Those of both.
    pub fn export_and_push(
        &self,
        images: &[Built],
        options: &ExportOptions,
        names: &[ImageRef],
    ) -> Result<Export, ExecutorError> {
        let Some(first) = names.first() else { return self.export(images, options) };
        let known = self.mountable();
        let (sender, receiver) = mpsc::channel::<Descriptor>();
        let (receiver, is_over) = (Mutex::new(receiver), AtomicBool::new(false));
        let upload = || loop {
            let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(blob) = next else { return };
            // What is left then, and what fails, is for the push itself: it sends several at a time, and tells.
            if is_over.load(Ordering::SeqCst) {
                return;
            }
            let sent = self.client.push_blob(first, &blob, &known, self);
            let _ = self.wait(sent);
        };
        let task = self.task("exporting layers");
        let result = std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(upload);
            }
            let result = self.make_export(images, options, &task, &|blob| {
                let _ = sender.send(blob.clone());
            });
            is_over.store(true, Ordering::SeqCst);
            drop(sender);
            result
        });
        let export = task.end(result)?;
        match options.push_by_digest {
            true => {
                let digest = export.root_descriptor()?.digest;
                let name = |it: &ImageRef| ImageRef { tag: None, ..it.with_digest(digest) };
                self.push(&export, &names.iter().map(name).collect::<Vec<_>>())?;
            }
            false => self.push(&export, names)?,
        }
        Ok(export)
    }

    /// Writes the files of images into a folder: of one into it, of several into one below it for each platform.
    ///
    /// # Errors
    ///
    /// The folder or the store fails.
    pub fn write_folder(
        &self,
        images: &[Built],
        folder: &Path,
        split: bool,
    ) -> Result<(), ExecutorError> {
        let task = self.task("exporting to client directory");
        let result = images.iter().try_for_each(|image| {
            let tree = self.image_tree(&image.layers)?;
            let folder = match split {
                true => folder.join(platform_folder(&image.platform)),
                false => folder.to_owned(),
            };
            export::write_folder(&tree, b"", &folder, false, image.epoch)?;
            for (name, bytes) in self.statements(image, &tree, images.len() > 1 && !split)? {
                export::add_file(&folder, &name, &bytes, image.epoch)?;
            }
            Ok(())
        });
        task.end(result)
    }

    /// Writes the files of images as one tar.
    ///
    /// # Errors
    ///
    /// The tar or the store fails.
    pub fn write_tar(
        &self,
        images: &[Built],
        split: bool,
        out: impl Write,
    ) -> Result<(), ExecutorError> {
        let task = self.task("sending tarball");
        let mut writer = TarWriter::new_plain(io::BufWriter::with_capacity(1 << 18, out));
        let result = images
            .iter()
            .try_for_each(|image| {
                let tree = self.image_tree(&image.layers)?;
                let prefix = if split { platform_folder(&image.platform) } else { String::new() };
                export::write_tar(&tree, prefix.as_bytes(), image.epoch, &mut writer)?;
                for (name, bytes) in self.statements(image, &tree, images.len() > 1 && !split)? {
                    let path = join(prefix.as_bytes(), name.as_bytes());
                    export::append_file(path, &bytes, image.epoch, &mut writer)?;
                }
                Ok(())
            })
            .and_then(|()| {
                let mut out = writer.finish()?;
                out.flush()
                    .map_err(|source| ExecutorError::Write { path: "archive".into(), source })
            });
        task.end(result)
    }

    /// The files beside an image that is files: what is said of it, each with its name.
    fn statements(
        &self,
        image: &Built,
        tree: &Tree,
        names_platform: bool,
    ) -> Result<Vec<(String, Vec<u8>)>, ExecutorError> {
        let attestations: Vec<_> = image.attestations.iter().filter(|it| !it.inline_only).collect();
        if attestations.is_empty() {
            return Ok(Vec::new());
        }
        let subjects = export::subjects(tree)?;
        let mut files = Vec::new();
        for attestation in attestations {
            let mut name = attestation.filename.clone();
            if names_platform {
                let platform = platform_folder(&image.platform);
                name = match name.rsplit_once('.') {
                    Some((stem, ending)) => format!("{stem}.{platform}.{ending}"),
                    None => format!("{name}.{platform}"),
                };
            }
            if tree.lookup(name.as_bytes())?.is_some() {
                return Err(ExecutorError::Unsupported {
                    message: format!("the image has a file `{name}`, as its provenance would be"),
                    hint: "give that another name with `--provenance=filename=NAME`".to_owned(),
                });
            }
            let mut bytes = serde_json::to_vec_pretty(&attestation.statement(&subjects))
                .map_err(|source| ExecutorError::Encode { source })?;
            bytes.push(b'\n');
            files.push((name, bytes));
        }
        Ok(files)
    }

    /// Blobs that came from a registry, and where they lie there: it can take them over itself.
    fn mountable(&self) -> BTreeMap<image::Digest, Vec<ImageRef>> {
        self.remote_blobs().into_iter().map(|(name, blob)| (blob.digest, vec![name])).collect()
    }

    fn image_tree(&self, layers: &[DiffId]) -> Result<Tree, ExecutorError> {
        self.ensure_layers(layers, None)?;
        Ok(Tree::Layers(std::sync::Arc::new(Layers::open(&self.store, &Chain::new(layers))?)))
    }
}

impl BlobSource for Session {
    fn open(&self, blob: &Descriptor) -> io::Result<Box<dyn Read + Send>> {
        let failed = |error: cache::StoreError| io::Error::other(error);
        if self.store.has_blob(&blob.digest).map_err(failed)? {
            return Ok(Box::new(self.store.open_blob(&blob.digest).map_err(failed)?));
        }
        // A tar that is not kept is made again from the layer's files.
        self.store.open_tar(&DiffId(blob.digest)).map_err(failed)
    }

    fn is_checked(&self, blob: &Descriptor) -> bool {
        self.store.has_written(&blob.digest)
    }
}

fn index_document(
    descriptors: Vec<Descriptor>,
    options: &ExportOptions,
) -> Result<RawDocument, ExecutorError> {
    let index = Index {
        schema_version: 2,
        media_type: options.media_type(media_type::OCI_INDEX).to_owned(),
        manifests: descriptors,
        annotations: options.index_annotations.clone(),
        other: Default::default(),
    };
    let bytes = to_canonical_json(&index).map_err(|source| ExecutorError::Encode { source })?;
    Ok(RawDocument::new(options.media_type(media_type::OCI_INDEX), bytes))
}

fn platform_folder(platform: &Platform) -> String {
    platform.to_string().replace('/', "_")
}
