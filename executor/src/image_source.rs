//! Base images: their configs for the planner, and their layers when a step needs them.
//!
//! A config is taken from the store if the name is there, and from the registry otherwise. Layers are only noted, and
//! fetched when something needs what is in them: a build whose steps are all known moves no layer.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use cache::{ImageRecord, LayerRecord, PlatformImage};
use image::{
    DiffId, Digest, ImageId, ImageRef, Platform,
    document::{Descriptor, ImageConfig, Manifest},
};
use planner::facts::{Facts, ImageFact, ImageOrigin, ImageQuery, Need};

use crate::{
    assemble::descriptor,
    error::ExecutorError,
    session::{Session, Task},
    time::Timestamp,
};

/// A document is never longer than this.
const DOCUMENT_LIMIT: u64 = 4 << 20;

/// How often a download that another process does is looked at.
const TURN_POLL: std::time::Duration = std::time::Duration::from_millis(50);

/// Where layers that are not in the store can be had.
#[derive(Default)]
pub(crate) struct RemoteLayers {
    layers: Mutex<HashMap<DiffId, (ImageRef, Descriptor)>>,
    /// One transfer per layer: others wait for the first.
    busy: Mutex<HashMap<DiffId, Arc<Mutex<()>>>>,
}

impl Session {
    /// Looks up what the planner asked for and adds it to `facts`.
    ///
    /// # Errors
    ///
    /// The name is neither in the store nor to be had from its registry, or what is there is no image.
    pub fn look_up(
        &self,
        needs: &[Need],
        facts: &mut Facts,
    ) -> Result<(), (Box<ImageQuery>, ExecutorError)> {
        for need in needs {
            let Need::Image(query) = need;
            self.cancel.check().map_err(|error| (Box::new(query.clone()), error))?;
            let fact = self.image_fact(query).map_err(|error| (Box::new(query.clone()), error))?;
            facts.images.insert(query.clone(), fact);
        }
        Ok(())
    }

    fn image_fact(&self, query: &ImageQuery) -> Result<ImageFact, ExecutorError> {
        match &query.origin {
            ImageOrigin::Reference(name) => self.reference_fact(name, &query.platform),
            ImageOrigin::OciLayout(text) => {
                crate::layout_source::layout_fact(self, text, &query.platform)
            }
        }
    }

    fn reference_fact(
        &self,
        name: &ImageRef,
        platform: &Platform,
    ) -> Result<ImageFact, ExecutorError> {
        if !self.pull
            && let Some(fact) = self.stored_fact(name, platform, false)?
        {
            return Ok(fact);
        }
        let task = self.task(format!("[internal] load metadata for {name}"));
        let result = self.remote_fact(name, platform);
        match (result, self.pull) {
            // As with a registry: the only platform there is will do, and the lint says that it is another.
            (Err(error), false) => match self.stored_fact(name, platform, true) {
                Ok(Some(fact)) => task.end(Ok(fact)),
                _ => task.end(Err(error)),
            },
            (Err(error), true) => match self.stored_fact(name, platform, false) {
                // Offline with --pull: better an image that may be old than none, but say so.
                Ok(Some(fact)) if is_unreachable(&error) => {
                    task.warn(format!(
                        "the registry cannot be asked, `{name}` is taken as it is here: {error}"
                    ));
                    task.end(Ok(fact))
                }
                _ => task.end(Err(error)),
            },
            (result, _) => task.end(result),
        }
    }

    fn stored_fact(
        &self,
        name: &ImageRef,
        platform: &Platform,
        any_platform: bool,
    ) -> Result<Option<ImageFact>, ExecutorError> {
        let Some(found) = self.store.resolve(&name.to_string())? else { return Ok(None) };
        let matcher = platform.only();
        let (platforms, target) = (&found.record.platforms, found.record.target.digest);
        let is_only = any_platform && platforms.len() == 1;
        let best = platforms.iter().filter(|it| is_only || matcher.matches(&it.platform));
        let Some(found) = best.min_by_key(|it| matcher.rank(&it.platform)) else { return Ok(None) };
        let Ok(bytes) = self.store.read_blob(&found.config.0, DOCUMENT_LIMIT) else {
            return Ok(None);
        };
        let config = parse_config(&bytes, name)?;
        let Ok(bytes) = self.store.read_blob(&found.manifest.digest, DOCUMENT_LIMIT) else {
            return Ok(None);
        };
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|source| {
            ExecutorError::Document { what: format!("manifest of {name}"), source }
        })?;
        self.note_layers(name, &config, &manifest, false);
        // An image made here has no blobs to fetch: its layers must be here.
        if !self.has_layers(&config)? {
            return Ok(None);
        }
        Ok(Some(ImageFact { manifest: found.manifest.digest, target, config }))
    }

    fn has_layers(&self, config: &ImageConfig) -> Result<bool, ExecutorError> {
        for layer in &config.rootfs.diff_ids {
            let is_remote = self
                .remote
                .layers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .contains_key(layer);
            if !is_remote && self.store.layer(layer)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn remote_fact(
        &self,
        name: &ImageRef,
        platform: &Platform,
    ) -> Result<ImageFact, ExecutorError> {
        let (fact, record) = self.remote_image(name, platform)?;
        self.store.tag(name, &record)?;
        Ok(fact)
    }

    /// Fetches an image from its registry, whatever the store has of it. It gets its name when all of it is here.
    ///
    /// # Errors
    ///
    /// The registry cannot be asked, has no such image, or something of it is not what its digest says.
    pub fn pull_image(
        &self,
        name: &ImageRef,
        platform: &Platform,
    ) -> Result<ImageRecord, ExecutorError> {
        let task = self.task(format!("pulling {name}"));
        let pull = || {
            let (fact, record) = self.remote_image(name, platform)?;
            self.ensure_layers(&fact.config.rootfs.diff_ids, Some(&TaskHandle(&task)))?;
            self.store.tag(name, &record)?;
            Ok(record)
        };
        let result = pull();
        task.end(result)
    }

    /// Fetches those layers of an image of the store that are not here: of a base image only what was needed may have come.
    ///
    /// # Errors
    ///
    /// A layer is not here, and neither is it to be had under `name`.
    pub fn complete(
        &self,
        name: Option<&ImageRef>,
        image: &PlatformImage,
    ) -> Result<(), ExecutorError> {
        let bytes = self.store.read_blob(&image.manifest.digest, DOCUMENT_LIMIT)?;
        let what = || format!("manifest {}", image.manifest.digest);
        let manifest: Manifest = serde_json::from_slice(&bytes)
            .map_err(|source| ExecutorError::Document { what: what(), source })?;
        if let Some(name) = name {
            let mut layers = self.remote.layers.lock().unwrap_or_else(PoisonError::into_inner);
            for (diff_id, blob) in
                image.layers.iter().zip(manifest.layers).filter(|(it, blob)| blob.digest != it.0)
            {
                layers.entry(*diff_id).or_insert((name.clone(), blob));
            }
        }
        self.ensure_layers(&image.layers, None)
    }

    /// Asks the registry for the documents of an image, and keeps them.
    fn remote_image(
        &self,
        name: &ImageRef,
        platform: &Platform,
    ) -> Result<(ImageFact, ImageRecord), ExecutorError> {
        let image = self.wait(self.client.pull_image(name, platform))??;
        self.note_layers(name, &image.config, &image.parsed, true);
        let manifest = self.store.put_blob(&image.manifest.bytes)?;
        let config_digest = self.store.put_blob(&image.config_bytes)?;
        let document = |it: &registry::RawDocument| {
            descriptor(&it.media_type, it.digest, it.bytes.len() as u64)
        };
        let target = match &image.index {
            Some(index) => {
                self.store.put_blob(&index.bytes)?;
                document(index)
            }
            None => document(&image.manifest),
        };
        let of_image = platform_of(&image.config);
        let mut platforms = match self.store.resolve(&name.to_string())? {
            Some(known) if known.record.target.digest == target.digest => known.record.platforms,
            _ => Vec::new(),
        };
        platforms.retain(|it| it.manifest.digest != manifest);
        platforms.push(PlatformImage {
            platform: of_image,
            manifest: document(&image.manifest),
            config: ImageId(config_digest),
            layers: image.config.rootfs.diff_ids.clone(),
        });
        let created = u64::try_from(Timestamp::now().secs).unwrap_or(0);
        Ok((
            ImageFact { manifest, target: target.digest, config: image.config },
            ImageRecord { target, platforms, created },
        ))
    }

    /// Notes where the layers of an image can be had. An image that was not pulled has no compressed blobs: of such a one
    /// nothing is noted unless `is_remote`.
    pub(crate) fn note_layers(
        &self,
        name: &ImageRef,
        config: &ImageConfig,
        manifest: &Manifest,
        is_remote: bool,
    ) {
        let mut layers = self.remote.layers.lock().unwrap_or_else(PoisonError::into_inner);
        for (diff_id, blob) in config.rootfs.diff_ids.iter().zip(&manifest.layers) {
            if is_remote || blob.digest != diff_id.0 {
                layers.insert(*diff_id, (name.clone(), blob.clone()));
            }
        }
    }

    /// The blob of a layer of an image that was pulled.
    pub(crate) fn remote_blob(&self, layer: &DiffId) -> Option<Descriptor> {
        let layers = self.remote.layers.lock().unwrap_or_else(PoisonError::into_inner);
        layers.get(layer).map(|(_, blob)| blob.clone())
    }

    /// All blobs that can be had from registries.
    pub(crate) fn remote_blobs(&self) -> Vec<(ImageRef, Descriptor)> {
        self.remote
            .layers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// Brings the layers into the store that are not there.
    ///
    /// # Errors
    ///
    /// A layer is not known, cannot be fetched, or is not what its digest says.
    pub fn ensure_layers(
        &self,
        layers: &[DiffId],
        task: Option<&TaskHandle<'_>>,
    ) -> Result<(), ExecutorError> {
        let mut missing = Vec::new();
        for layer in layers {
            if self.store.layer(layer)?.is_none() && !missing.contains(layer) {
                missing.push(*layer);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let own_task;
        let task = match task {
            Some(task) => task.0,
            None => {
                own_task = self.task("[internal] pull layers");
                &own_task
            }
        };
        let next = std::sync::atomic::AtomicUsize::new(0);
        let n_threads = missing.len().min(4);
        std::thread::scope(|scope| {
            let work = || -> Result<(), ExecutorError> {
                loop {
                    let nth = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(layer) = missing.get(nth) else { return Ok(()) };
                    self.fetch_layer(layer, task)?;
                }
            };
            let threads: Vec<_> = (0..n_threads).map(|_| scope.spawn(work)).collect();
            threads
                .into_iter()
                .map(|it| it.join().unwrap_or(Err(ExecutorError::Canceled)))
                .fold(Ok(()), Result::and)
        })
    }

    fn fetch_layer(&self, layer: &DiffId, task: &Task<'_>) -> Result<(), ExecutorError> {
        self.cancel.check()?;
        let turn = {
            let mut busy = self.remote.busy.lock().unwrap_or_else(PoisonError::into_inner);
            busy.entry(*layer).or_default().clone()
        };
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        if self.store.layer(layer)?.is_some() {
            return Ok(());
        }
        let known =
            self.remote.layers.lock().unwrap_or_else(PoisonError::into_inner).get(layer).cloned();
        let Some((name, blob)) = known else {
            return Err(ExecutorError::MissingLayer {
                digest: layer.to_string(),
                image: "the store".to_owned(),
            });
        };
        let mut n_attempts = 0;
        while !self.store.has_blob(&blob.digest)? {
            // Another process that downloads the same does it for both.
            let Some(mut staged) = self.store.try_resume_blob(&blob.digest)? else {
                std::thread::sleep(TURN_POLL);
                self.cancel.check()?;
                continue;
            };
            if self.store.has_blob(&blob.digest)? {
                break;
            }
            n_attempts += 1;
            let n_bytes = staged.n_bytes();
            if n_bytes > blob.size || n_attempts > 1 {
                staged.restart()?;
            }
            let n_bytes = staged.n_bytes();
            let part = blob.digest.to_string();
            let progress =
                |n_bytes: u64| task.progress(&part, n_bytes, Some(blob.size), n_bytes >= blob.size);
            self.wait(self.client.rest_of_blob(&name, &blob, n_bytes, &mut staged, &progress))??;
            match staged.commit(Some(&blob.digest)) {
                // What an earlier attempt left was not what it seemed; it is gone now.
                Err(cache::StoreError::DigestMismatch { .. }) if n_bytes > 0 => {}
                result => drop(result?),
            }
        }
        self.store.put_layer(&LayerRecord::of_blob(*layer, blob))?;
        Ok(())
    }
}

/// A task that other modules of the crate report to.
pub struct TaskHandle<'a>(pub(crate) &'a Task<'a>);

pub(crate) fn parse_config(bytes: &[u8], name: &ImageRef) -> Result<ImageConfig, ExecutorError> {
    serde_json::from_slice(bytes)
        .map_err(|source| ExecutorError::Document { what: format!("config of {name}"), source })
}

/// The platform that a config says it is for.
pub(crate) fn platform_of(config: &ImageConfig) -> Platform {
    Platform {
        architecture: config.architecture.clone(),
        os: config.os.clone(),
        os_version: config.os_version.clone(),
        os_features: config.os_features.clone(),
        variant: config.variant.clone(),
    }
    .normalized()
}

fn is_unreachable(error: &ExecutorError) -> bool {
    matches!(error, ExecutorError::Registry(error) if error.code() == "registry-unreachable")
}

/// The images of a plan by number, with all that steps need of them.
pub(crate) fn plan_images(
    plan: &planner::plan::Plan,
    facts: &Facts,
) -> BTreeMap<usize, (Digest, Vec<DiffId>)> {
    plan.images
        .iter()
        .enumerate()
        .filter_map(|(nth, planned)| {
            let fact = facts.images.get(&planned.query)?;
            Some((nth, (fact.manifest, fact.config.rootfs.diff_ids.clone())))
        })
        .collect()
}
