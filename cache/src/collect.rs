//! The collector: taking away what nobody needs.
//!
//! Marking and taking away happen while no process can write into its lease. What a lease, a name or a kept step leads to is never
//! removed; everything else that was chosen gets out of sight at once and is deleted afterwards.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs,
    path::PathBuf,
    time::Duration,
};

use image::{DiffId, Digest, document::Descriptor};

use crate::{
    error::{IoContext, StoreError},
    files,
    images::{Document, NamedImage},
    lease::{Held, unhex},
    step::{StepKey, StepRecord, modified, now},
    store::Store,
};

/// What is to be removed. Nothing by default.
#[derive(Debug, Clone, Default)]
pub struct PruneOptions {
    /// Images without a name.
    pub dangling_images: bool,
    /// Images with a name, too.
    pub all_images: bool,
    /// Steps whose layer no image has.
    pub steps: bool,
    /// All other steps, too. Their layers stay as long as an image has them.
    pub all_steps: bool,
    /// Cache mounts that nobody uses at the moment.
    pub cache_mounts: bool,
    /// Trees of layers whose blob is here, so that they can be unpacked again.
    pub trees: bool,
    /// Output of steps, cut-off downloads, digests of contexts, all but the youngest of builds that are remembered.
    pub logs: bool,
    /// Only what was not used for so long.
    pub until: Option<Duration>,
    /// Of steps only as many, the longest unused first, that their layers take up no more than this many bytes.
    pub keep_bytes: Option<u64>,
    /// Of images only these, by the digest of their target; `None` for all.
    pub only_images: Option<Vec<Digest>>,
    /// Only steps whose key begins with one of these; empty for all.
    pub ids: Vec<String>,
    /// Only steps whose description has this text in it.
    pub description: Option<String>,
}

impl PruneOptions {
    /// Everything that no running process needs.
    pub fn everything() -> Self {
        Self {
            dangling_images: true,
            all_images: true,
            steps: true,
            all_steps: true,
            cache_mounts: true,
            trees: true,
            logs: true,
            ..Self::default()
        }
    }
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// Images, by their names or else their id.
    pub images: Vec<String>,
    /// Steps by key.
    pub steps: Vec<StepKey>,
    /// Layers that are gone altogether.
    pub n_layers: u64,
    /// Blobs.
    pub n_blobs: u64,
    /// Cache mounts by id.
    pub cache_mounts: Vec<String>,
    /// What that freed, in bytes. For trees that is the size of their tars.
    pub n_bytes: u64,
}

/// What must stay.
#[derive(Default)]
pub(crate) struct Marks {
    pub(crate) blobs: HashSet<Digest>,
    pub(crate) layers: HashSet<DiffId>,
}

impl Store {
    /// Removes what was chosen and nobody needs.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if something cannot be read or removed. What was removed before stays removed, and what is left is whole.
    pub fn prune(&self, options: &PruneOptions) -> Result<PruneReport, StoreError> {
        let _lock = self.lock("prune")?;
        let mut report = PruneReport::default();
        // Old enough to go: not used since. A time in the future, from a clock that was wrong, counts as now.
        let oldest = now().saturating_sub(options.until.map_or(0, |it| it.as_secs()));
        let is_old = |time: u64| options.until.is_none() || time < oldest;
        let graveyard = self.scratch()?;
        files::ensure_dir(&graveyard, 0o700)?;

        let stopped = self.stop_leases()?;
        let held = self.held()?;
        let images = self.prune_images(options, &is_old, &held, &mut report)?;
        let mut marks = Marks::default();
        images.iter().for_each(|it| self.mark_image(it, &mut marks));
        for object in &held {
            match object {
                Held::Blob(hash) => drop(marks.blobs.insert(Digest::from_sha256(*hash))),
                Held::Layer(hash) => drop(marks.layers.insert(DiffId(Digest::from_sha256(*hash)))),
                Held::Step(_) => {}
            }
        }
        let sizes = self.sizes()?;
        for step in self.prune_steps(options, &is_old, &held, &marks, &sizes, &mut report)? {
            marks.layers.extend(step.layer);
        }
        let sweep =
            options.dangling_images || options.all_images || options.steps || options.all_steps;
        if sweep || options.trees {
            self.sweep_layers(sweep, options, &is_old, &held, &mut marks, &graveyard, &mut report)?;
        }
        if sweep {
            self.sweep_blobs(&is_old, &marks, &mut report)?;
        }
        drop(stopped);

        files::remove_tree(&graveyard)?;
        if options.cache_mounts {
            for mount in self.cache_mounts()?.iter().filter(|it| is_old(it.last_used)) {
                if self.remove_cache_mount(mount)? {
                    report.n_bytes += mount.n_bytes;
                    report.cache_mounts.push(mount.id.clone());
                }
            }
        }
        if options.logs {
            self.prune_files(&is_old, &mut report)?;
            self.prune_journal(&is_old, options.until.is_some(), &mut report)?;
        }
        if sweep {
            self.refresh_layout()?;
        }
        Ok(report)
    }

    /// Removes everything from the store, as if it were new.
    ///
    /// # Errors
    ///
    /// - [`StoreError::InUse`] if another process has a lease.
    /// - [`StoreError::Io`] if something cannot be removed.
    pub fn reset(&self) -> Result<(), StoreError> {
        let _lock = self.lock("prune")?;
        let stopped = self.stop_leases()?;
        let n_leases = files::names(&self.path("leases"))?
            .iter()
            .filter(|it| {
                !matches!(crate::store::try_existing(&self.path("leases").join(it)), Ok(Some(_)))
            }) // locked: alive
            .count();
        if n_leases > 0 {
            return Err(StoreError::InUse { path: self.root().to_owned() });
        }
        let graveyard = self.scratch()?;
        files::ensure_dir(&graveyard, 0o700)?;
        files::remove_file(&self.images_copy_path())?;
        files::remove_file(&self.images_path())?;
        for folder in [
            "steps",
            "layers",
            "trees",
            "oci/blobs/sha256",
            "partial",
            "mounts",
            "logs",
            "stat-cache",
        ] {
            let path = self.path(folder);
            fs::rename(&path, graveyard.join(folder.replace('/', "-"))).at("move away", &path)?;
            files::ensure_dir(&path, 0o755)?;
        }
        self.clear_journal()?;
        self.inner.indexes.clear();
        files::remove_file(&self.path("flushed"))?;
        files::remove_file(&self.path("owners"))?;
        self.inner.owners_are_checked.store(false, std::sync::atomic::Ordering::Relaxed);
        drop(stopped);
        self.refresh_layout()?;
        files::remove_tree(&graveyard)
    }

    /// Marks everything that an image leads to. What cannot be read leads nowhere.
    pub(crate) fn mark_image(&self, image: &NamedImage, marks: &mut Marks) {
        self.mark_document(&image.record.target, 0, marks);
        for platform in &image.record.platforms {
            self.mark_document(&platform.manifest, 0, marks);
            marks.blobs.insert(platform.config.0);
            marks.layers.extend(&platform.layers);
        }
    }

    fn mark_document(&self, target: &Descriptor, depth: usize, marks: &mut Marks) {
        marks.blobs.insert(target.digest);
        match self.document(target) {
            Ok(Document::Manifest(manifest)) => {
                marks.blobs.insert(manifest.config.digest);
                marks.blobs.extend(manifest.layers.iter().map(|it| it.digest));
            }
            Ok(Document::Index(index)) if depth < 4 => {
                index.manifests.iter().for_each(|it| self.mark_document(it, depth + 1, marks));
            }
            _ => {}
        }
    }

    /// Removes images and returns those that stay.
    fn prune_images(
        &self,
        options: &PruneOptions,
        is_old: &dyn Fn(u64) -> bool,
        held: &HashSet<Held>,
        report: &mut PruneReport,
    ) -> Result<Vec<NamedImage>, StoreError> {
        if !options.dangling_images && !options.all_images {
            return self.images();
        }
        let mut stay = Vec::new();
        self.change_images(|images| {
            let goes = |it: &NamedImage| {
                (options.all_images || it.names.is_empty())
                    && is_old(it.record.created)
                    && options
                        .only_images
                        .as_ref()
                        .is_none_or(|some| some.contains(&it.record.target.digest))
                    && !held.contains(&Held::Blob(*it.record.target.digest.as_bytes()))
            };
            let (gone, left): (Vec<_>, Vec<_>) = std::mem::take(images).into_iter().partition(goes);
            for image in &gone {
                match image.names.is_empty() {
                    true => report.images.push(image.record.id().to_string()),
                    false => report.images.extend(image.names.iter().cloned()),
                }
            }
            images.clone_from(&left);
            stay = left;
            !gone.is_empty()
        })?;
        Ok(stay)
    }

    /// Removes steps and returns those that stay.
    fn prune_steps(
        &self,
        options: &PruneOptions,
        is_old: &dyn Fn(u64) -> bool,
        held: &HashSet<Held>,
        marks: &Marks,
        sizes: &HashMap<DiffId, u64>,
        report: &mut PruneReport,
    ) -> Result<Vec<StepRecord>, StoreError> {
        let (mut steps, damaged) = self.all_steps()?;
        if !options.steps && !options.all_steps {
            return Ok(steps);
        }
        for key in damaged.iter().filter(|it| !held.contains(&Held::Step(it.0))) {
            self.remove_step(key)?;
        }
        steps.sort_by_key(|it| it.last_used);
        // Two steps may have the same layer; it is gone with the last of them.
        let mut n_users: HashMap<DiffId, u64> = HashMap::new();
        for diff_id in steps.iter().filter_map(|it| it.layer) {
            *n_users.entry(diff_id).or_default() += 1;
        }
        let size = |it: &DiffId| {
            if marks.layers.contains(it) { 0 } else { sizes.get(it).copied().unwrap_or(0) }
        };
        let mut n_bytes: u64 = n_users.keys().map(size).sum();
        let mut stay = Vec::new();
        for step in steps {
            let in_image = step.layer.is_some_and(|it| marks.layers.contains(&it));
            let hex = step.key.hex();
            let goes = !held.contains(&Held::Step(step.key.0))
                && (options.all_steps || !in_image)
                && is_old(step.last_used)
                && options.keep_bytes.is_none_or(|keep| n_bytes > keep)
                && (options.ids.is_empty() || options.ids.iter().any(|it| hex.starts_with(it)))
                && options.description.as_ref().is_none_or(|it| step.description.contains(it));
            if !goes {
                stay.push(step);
                continue;
            }
            self.remove_step(&step.key)?;
            report.steps.push(step.key);
            if let Some(diff_id) = step.layer
                && let Some(n) = n_users.get_mut(&diff_id)
            {
                *n -= 1;
                n_bytes -= if *n == 0 { size(&diff_id) } else { 0 };
            }
        }
        Ok(stay)
    }

    /// Removes layers that are not marked, and trees that can be made again. Marks the blobs of those that stay.
    #[expect(
        clippy::too_many_arguments,
        reason = "it is one step of `prune`, apart for its length only"
    )]
    fn sweep_layers(
        &self,
        sweep: bool,
        options: &PruneOptions,
        is_old: &dyn Fn(u64) -> bool,
        held: &HashSet<Held>,
        marks: &mut Marks,
        graveyard: &std::path::Path,
        report: &mut PruneReport,
    ) -> Result<(), StoreError> {
        let recorded = self.layers()?;
        for layer in &recorded {
            let diff_id = &layer.diff_id;
            let hex = diff_id.0.hex();
            let bury = || match fs::rename(self.tree_path(diff_id), graveyard.join(&hex)) {
                Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(()),
                result => result.at("move away", self.tree_path(diff_id)),
            };
            let path = self.layer_file(diff_id, "json");
            let has_mark = marks.layers.contains(diff_id);
            if !sweep || has_mark || !is_old(modified(&path)) {
                let is_held = held.contains(&Held::Layer(*diff_id.0.as_bytes()));
                // A blob of which only an image says that it holds the layer may turn out not to.
                if options.trees
                    && !is_held
                    && self.stored_blob(layer).is_some_and(|it| layer.is_proven(it))
                    && self.has_intact_tree(diff_id)?
                {
                    files::remove_file(&self.layer_file(diff_id, "tree"))?;
                    bury()?;
                    report.n_bytes += layer.tar_size.unwrap_or(0);
                }
                marks.layers.insert(*diff_id);
                marks.blobs.extend(layer.blobs.iter().map(|it| it.digest));
                continue;
            }
            if self.layer_file(diff_id, "tree").exists() {
                report.n_bytes += layer.tar_size.unwrap_or(0);
            }
            files::remove_file(&path)?;
            files::remove_file(&self.layer_file(diff_id, "tree"))?;
            files::remove_file(&self.layer_file(diff_id, "index"))?;
            bury()?;
            self.inner.indexes.remove(diff_id);
            report.n_layers += 1;
        }
        // Trees and indexes without a record, which a power cut may leave.
        let recorded: BTreeSet<String> = recorded.iter().map(|it| it.diff_id.0.hex()).collect();
        let is_stray = |name: &str| {
            let hex = name.split('.').next().unwrap_or(name);
            unhex(hex).is_some_and(|it| !recorded.contains(hex) && !held.contains(&Held::Layer(it)))
        };
        for name in
            files::names(&self.path("trees"))?.into_iter().filter(|it| sweep && is_stray(it))
        {
            let path = self.path("trees").join(&name);
            fs::rename(&path, graveyard.join(&name)).at("move away", path)?;
        }
        for name in
            files::names(&self.path("layers"))?.into_iter().filter(|it| sweep && is_stray(it))
        {
            files::remove_file(&self.path("layers").join(name))?;
        }
        Ok(())
    }

    fn sweep_blobs(
        &self,
        is_old: &dyn Fn(u64) -> bool,
        marks: &Marks,
        report: &mut PruneReport,
    ) -> Result<(), StoreError> {
        let folder = self.path("oci/blobs/sha256");
        for name in files::names(&folder)? {
            let Some(hash) = unhex(&name) else { continue };
            let path = folder.join(name);
            if marks.blobs.contains(&Digest::from_sha256(hash)) || !is_old(modified(&path)) {
                continue;
            }
            let n_bytes = fs::metadata(&path).map_or(0, |it| it.len());
            if files::remove_file(&path)? {
                report.n_blobs += 1;
                report.n_bytes += n_bytes;
            }
        }
        Ok(())
    }

    /// Removes logs, digests of contexts, and downloads that nobody continues.
    fn prune_files(
        &self,
        is_old: &dyn Fn(u64) -> bool,
        report: &mut PruneReport,
    ) -> Result<(), StoreError> {
        for log in self.build_logs()?.into_iter().filter(|it| is_old(it.modified)) {
            let path = self.path("logs").join(log.build);
            report.n_bytes += files::disk_bytes(&path);
            files::remove_tree(&path)?;
        }
        let remove = |path: PathBuf, report: &mut PruneReport| {
            let n_bytes = fs::metadata(&path).map_or(0, |it| it.len());
            if is_old(modified(&path)) && files::remove_file(&path)? {
                report.n_bytes += n_bytes;
            }
            Ok::<_, StoreError>(())
        };
        for name in files::names(&self.path("stat-cache"))? {
            remove(self.path("stat-cache").join(name), report)?;
        }
        for name in files::names(&self.path("partial"))? {
            if let Some(_lock) = self.try_lock(&format!("blob-{name}"))? {
                remove(self.path("partial").join(name), report)?;
            }
        }
        Ok(())
    }
}
