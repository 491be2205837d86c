//! What the store takes up.

use std::{
    collections::{HashMap, HashSet},
    fs,
};

use image::{DiffId, ImageId};

use crate::{
    collect::Marks, error::StoreError, files, layer::LayerRecord, lease::Held, step::StepRecord,
    store::Store,
};

/// What a store takes up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Images and their layers.
    pub images: Part,
    /// Steps, and the layers that no image has.
    pub build_cache: Part,
    /// Cache mounts.
    pub cache_mounts: Part,
    /// Output of steps.
    pub logs: Part,
    /// Downloads that were cut off, digests of contexts, what is remembered of builds.
    pub other: Part,
}

/// One kind of things in a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// How many there are.
    pub n_total: u64,
    /// How many are in use: images by a container, the rest by a running build.
    pub n_active: u64,
    /// Their size in bytes. For trees that is the size of their tars.
    pub n_bytes: u64,
    /// What removing those not in use would free.
    pub n_reclaimable: u64,
}

/// A step in a listing of the build cache.
#[derive(Debug, Clone)]
pub struct CacheEntry {
    /// The step.
    pub step: StepRecord,
    /// The size of its layer in bytes.
    pub n_bytes: u64,
    /// A running build needs it.
    pub is_in_use: bool,
    /// The images that have its layer, by a name of theirs or else their id.
    pub images: Vec<String>,
}

impl Store {
    /// Adds up what the store takes up. `of_containers` are the configs of images that containers are made of.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if it cannot be read.
    pub fn disk_usage(&self, of_containers: &HashSet<ImageId>) -> Result<Usage, StoreError> {
        let held = self.held()?;
        let images = self.images()?;
        let layers = self.sizes()?;
        let mut usage = Usage::default();

        let mut in_images = Marks::default();
        let mut in_active = Marks::default();
        for image in &images {
            let mut marks = Marks::default();
            self.mark_image(image, &mut marks);
            usage.images.n_total += 1;
            if image.record.platforms.iter().any(|it| of_containers.contains(&it.config)) {
                usage.images.n_active += 1;
                in_active.layers.extend(&marks.layers);
            }
            in_images.layers.extend(&marks.layers);
            in_images.blobs.extend(&marks.blobs);
        }
        let is_held = |it: &DiffId| held.contains(&Held::Layer(*it.0.as_bytes()));
        for (diff_id, n_bytes) in &layers {
            let (part, is_active) = match in_images.layers.contains(diff_id) {
                true => (&mut usage.images, in_active.layers.contains(diff_id) || is_held(diff_id)),
                false => (&mut usage.build_cache, is_held(diff_id)),
            };
            part.n_bytes += n_bytes;
            part.n_reclaimable += if is_active { 0 } else { *n_bytes };
        }
        for step in self.steps()? {
            usage.build_cache.n_total += 1;
            usage.build_cache.n_active += u64::from(held.contains(&Held::Step(step.key.0)));
        }
        for mount in self.cache_mounts()? {
            let is_used = self.is_used(&mount);
            usage.cache_mounts.n_total += 1;
            usage.cache_mounts.n_active += u64::from(is_used);
            usage.cache_mounts.n_bytes += mount.n_bytes;
            usage.cache_mounts.n_reclaimable += if is_used { 0 } else { mount.n_bytes };
        }
        usage.logs.n_total = self.build_logs()?.len() as u64;
        usage.logs.n_bytes = files::disk_bytes(&self.path("logs"));
        usage.logs.n_reclaimable = usage.logs.n_bytes;
        for folder in ["partial", "stat-cache"] {
            usage.other.n_total += files::names(&self.path(folder))?.len() as u64;
            usage.other.n_bytes += files::disk_bytes(&self.path(folder));
        }
        usage.other.n_reclaimable = usage.other.n_bytes;
        // What is remembered of builds goes with time and with the steps.
        let (n_files, n_bytes) = self.journal_usage()?;
        usage.other.n_total += n_files;
        usage.other.n_bytes += n_bytes;
        Ok(usage)
    }

    /// Lists the build cache, the last used step first.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if it cannot be read.
    pub fn cache_entries(&self) -> Result<Vec<CacheEntry>, StoreError> {
        let held = self.held()?;
        let mut of_layers: HashMap<DiffId, Vec<String>> = HashMap::new();
        for image in self.images()? {
            let name =
                image.names.first().cloned().unwrap_or_else(|| image.record.id().to_string());
            let layers: HashSet<DiffId> =
                image.record.platforms.iter().flat_map(|it| it.layers.iter().copied()).collect();
            for diff_id in layers {
                of_layers.entry(diff_id).or_default().push(name.clone());
            }
        }
        let sizes = self.sizes()?;
        let mut entries: Vec<_> = self
            .steps()?
            .into_iter()
            .map(|step| CacheEntry {
                n_bytes: step.layer.and_then(|it| sizes.get(&it).copied()).unwrap_or(0),
                is_in_use: held.contains(&Held::Step(step.key.0)),
                images: step.layer.and_then(|it| of_layers.get(&it).cloned()).unwrap_or_default(),
                step,
            })
            .collect();
        entries.sort_by_key(|it| (std::cmp::Reverse(it.step.last_used), it.step.key));
        Ok(entries)
    }

    /// Returns the size of the layers that only steps have.
    pub(crate) fn unneeded_bytes(&self) -> Result<u64, StoreError> {
        let mut marks = Marks::default();
        self.images()?.iter().for_each(|it| self.mark_image(it, &mut marks));
        let held = self.held()?;
        let is_needed = |it: &DiffId| {
            marks.layers.contains(it) || held.contains(&Held::Layer(*it.0.as_bytes()))
        };
        let of_steps: HashSet<DiffId> =
            self.steps()?.into_iter().filter_map(|it| it.layer).collect();
        let sizes = self.sizes()?;
        Ok(of_steps.iter().filter(|it| !is_needed(it)).filter_map(|it| sizes.get(it)).sum())
    }

    /// Returns the size of each layer: what its blobs and its tree take up.
    pub(crate) fn sizes(&self) -> Result<HashMap<DiffId, u64>, StoreError> {
        Ok(self.layers()?.iter().map(|it| (it.diff_id, self.size(it))).collect())
    }

    fn size(&self, layer: &LayerRecord) -> u64 {
        let blobs =
            layer.blobs.iter().filter_map(|it| fs::metadata(self.blob_path(&it.digest)).ok());
        let has_tree = self.layer_file(&layer.diff_id, "tree").exists();
        blobs.map(|it| it.len()).sum::<u64>()
            + if has_tree { layer.tar_size.unwrap_or(0) } else { 0 }
    }
}
