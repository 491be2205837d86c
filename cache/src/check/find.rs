//! Goes through a store and says what is damaged.
//!
//! What names other things is listed before those: whoever stores something stores it the other way round, so that what a record
//! names is there by the time it is looked for.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use image::{
    DiffId, Digest,
    digest::Hashing,
    document::{Descriptor, Index},
};

use super::{CheckReport, Finding, Fix, Outcome, Problem, ProblemKind, tree::difference};
use crate::{
    collect::Marks,
    error::{IoContext, StoreError},
    files,
    images::{Document, NamedImage},
    layer::LayerRecord,
    lease::{Held, hex, unhex},
    owners,
    step::{StepKey, StepRecord},
    store::{FOLDERS, LAYOUT, Store, guard},
};

/// No record is larger.
pub(super) const MAX_RECORD_BYTES: u64 = 1 << 30;

pub(super) struct Finder<'a> {
    pub(super) store: &'a Store,
    findings: Vec<Finding>,
    /// Who needs a layer, and who needs a blob.
    of_layers: HashMap<DiffId, BTreeSet<String>>,
    of_blobs: HashMap<Digest, BTreeSet<String>>,
}

impl<'a> Finder<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        let (of_layers, of_blobs) = (HashMap::new(), HashMap::new());
        Self { store, findings: Vec::new(), of_layers, of_blobs }
    }

    /// Looks at everything. Without `is_thorough` what is in blobs and trees is taken for what it was.
    pub(super) fn find(
        mut self,
        report: &mut CheckReport,
        is_thorough: bool,
    ) -> Result<Vec<Finding>, StoreError> {
        self.folders();
        let images = self.images()?;
        let steps = self.steps(report)?;
        let records = self.layer_records(report)?;
        let blobs = files::names(&self.store.path("oci/blobs/sha256"))?;
        report.n_images = images.len() as u64;

        for image in &images {
            self.note_image(image);
        }
        for step in &steps {
            if let Some(diff_id) = step.layer {
                let user = format!("step `{}`", step.description);
                self.of_layers.entry(diff_id).or_default().insert(user);
            }
        }
        for record in records.values() {
            let users = self.of_layers.get(&record.diff_id).cloned().unwrap_or_default();
            for blob in &record.blobs {
                self.of_blobs.entry(blob.digest).or_default().extend(users.iter().cloned());
            }
        }
        self.blobs(&blobs, &records, report, is_thorough)?;
        self.layers(&records, report, is_thorough)?;
        for image in &images {
            self.image(image, &records)?;
        }
        for step in &steps {
            if let Some(diff_id) = step.layer
                && !self.can_be_had(records.get(&diff_id))?
            {
                // A power cut took a tree that nobody had vouched for. Such a step is not known any more.
                report.leftovers.push(step_path(&step.key));
            }
        }
        self.layout(report)?;
        self.others(report)?;
        Ok(self.findings)
    }

    fn push(
        &mut self,
        kind: ProblemKind,
        path: PathBuf,
        reason: String,
        used_by: Vec<String>,
        (fix, held): (Fix, Option<Held>),
    ) {
        let problem = Problem { kind, path, reason, used_by, outcome: Outcome::Found };
        self.findings.push(Finding { problem, fix, held });
    }

    /// Notes a file that has to go.
    pub(super) fn file(
        &mut self,
        kind: ProblemKind,
        path: PathBuf,
        reason: String,
        used_by: Vec<String>,
        held: Option<Held>,
    ) {
        let inode = fs::symlink_metadata(self.store.root().join(&path)).map_or(0, |it| it.ino());
        self.push(kind, path, reason, used_by, (Fix::File { inode }, held));
    }

    fn folders(&mut self) {
        for folder in FOLDERS {
            if !self.store.path(folder).is_dir() {
                let reason = "the folder is not there".to_owned();
                self.push(
                    ProblemKind::Folder,
                    PathBuf::from(folder),
                    reason,
                    Vec::new(),
                    (Fix::Folder, None),
                );
            }
        }
    }

    fn images(&mut self) -> Result<Vec<NamedImage>, StoreError> {
        match self.store.images() {
            Err(StoreError::Damaged { reason, .. }) => {
                let fix = (Fix::Images, None);
                let users = vec!["all images".to_owned()];
                self.push(ProblemKind::Images, "images.json".into(), reason, users, fix);
                Ok(Vec::new())
            }
            result => result,
        }
    }

    fn note_image(&mut self, image: &NamedImage) {
        let user = name_of(image);
        let mut marks = Marks::default();
        self.store.mark_image(image, &mut marks);
        for digest in marks.blobs {
            self.of_blobs.entry(digest).or_default().insert(user.clone());
        }
        for diff_id in marks.layers {
            self.of_layers.entry(diff_id).or_default().insert(user.clone());
        }
    }

    /// An image needs its documents, and those of its layers that nobody could fetch again.
    fn image(
        &mut self,
        image: &NamedImage,
        records: &HashMap<DiffId, LayerRecord>,
    ) -> Result<(), StoreError> {
        let mut missing = None;
        for platform in &image.record.platforms {
            let manifest = match self.store.document(&platform.manifest) {
                Ok(Document::Manifest(manifest)) => manifest,
                _ => {
                    missing = Some(format!("its manifest `{}`", platform.manifest.digest));
                    break;
                }
            };
            if !self.is_whole(&platform.config.0) {
                missing = Some(format!("its config `{}`", platform.config));
                break;
            }
            for (diff_id, blob) in platform.layers.iter().zip(&manifest.layers) {
                let is_made_here = blob.digest == diff_id.0;
                if is_made_here && !self.can_be_had(records.get(diff_id))? {
                    missing = Some(format!("its layer `{diff_id}`"));
                    break;
                }
            }
        }
        if !self.is_whole(&image.record.target.digest) {
            missing = Some(format!("its target `{}`", image.record.target.digest));
        }
        if let Some(missing) = missing {
            let digest = image.record.target.digest;
            let fix = (Fix::Image(digest), Some(Held::Blob(*digest.as_bytes())));
            let path = PathBuf::from("images.json").join(digest.to_string());
            let reason = format!("{missing} is not in the store");
            self.push(ProblemKind::Image, path, reason, vec![name_of(image)], fix);
        }
        Ok(())
    }

    /// Whether a document is here. Those that are damaged are known by now, and go before anything that counts on them.
    fn is_whole(&self, digest: &Digest) -> bool {
        self.store.blob_path(digest).exists()
    }

    fn can_be_had(&self, record: Option<&LayerRecord>) -> Result<bool, StoreError> {
        let Some(record) = record else { return Ok(false) };
        Ok(self.store.stored_blob(record).is_some()
            || (record.can_be_remade
                && self.store.layer_file(&record.diff_id, "index").exists()
                && self.store.has_intact_tree(&record.diff_id)?))
    }

    fn steps(&mut self, report: &mut CheckReport) -> Result<Vec<StepRecord>, StoreError> {
        let mut steps = Vec::new();
        let root = self.store.path("steps");
        for shard in files::names(&root)? {
            for name in files::names(&root.join(&shard))? {
                let path = Path::new("steps").join(&shard).join(&name);
                let key = name.strip_suffix(".json").and_then(unhex).map(StepKey);
                let step = match &key {
                    Some(key) => self.store.step_record(key)?,
                    None => None,
                };
                match (key, step) {
                    (Some(key), Some(step)) if path == step_path(&key) => steps.push(step),
                    (key, _) => {
                        self.record(ProblemKind::Step, path, key.map(|it| Held::Step(it.0)), report)
                    }
                }
            }
        }
        report.n_steps = steps.len() as u64;
        Ok(steps)
    }

    /// Notes a record that cannot be read. One that a power cut left empty is no damage: it was never vouched for.
    pub(super) fn record(
        &mut self,
        kind: ProblemKind,
        path: PathBuf,
        held: Option<Held>,
        report: &mut CheckReport,
    ) {
        let bytes = files::read_small(&self.store.root().join(&path), MAX_RECORD_BYTES);
        match bytes {
            Ok(None) => {}
            Ok(Some(bytes)) if bytes.iter().all(|it| *it == 0) => report.leftovers.push(path),
            _ => self.file(kind, path, "it is not what was written".to_owned(), Vec::new(), held),
        }
    }

    fn layer_records(
        &mut self,
        report: &mut CheckReport,
    ) -> Result<HashMap<DiffId, LayerRecord>, StoreError> {
        let mut records = HashMap::new();
        for name in files::names(&self.store.path("layers"))? {
            let Some(hex) = name.strip_suffix(".json") else { continue };
            let path = Path::new("layers").join(&name);
            let diff_id = unhex(hex).map(|it| DiffId(Digest::from_sha256(it)));
            let record = match &diff_id {
                Some(diff_id) => self.store.layer_record(diff_id)?,
                None => None,
            };
            match (diff_id, record) {
                (Some(diff_id), Some(record)) => drop(records.insert(diff_id, record)),
                (diff_id, _) => {
                    let held = diff_id.map(|it| Held::Layer(*it.0.as_bytes()));
                    self.record(ProblemKind::Layer, path, held, report);
                }
            }
        }
        report.n_layers = records.len() as u64;
        Ok(records)
    }

    fn users(&self, diff_id: &DiffId) -> Vec<String> {
        self.of_layers.get(diff_id).into_iter().flatten().cloned().collect()
    }

    /// Looks at what lies beside the records of layers: indexes, trees, and what vouches for them.
    fn layers(
        &mut self,
        records: &HashMap<DiffId, LayerRecord>,
        report: &mut CheckReport,
        is_thorough: bool,
    ) -> Result<(), StoreError> {
        for name in files::names(&self.store.path("layers"))? {
            let path = Path::new("layers").join(&name);
            let (stem, extension) = name.split_once('.').unwrap_or((&name, ""));
            let diff_id = unhex(stem).map(|it| DiffId(Digest::from_sha256(it)));
            let is_known = diff_id.is_some_and(|it| records.contains_key(&it));
            match (diff_id, extension) {
                (Some(_), "json") => {}
                (Some(diff_id), "index") if is_known => {
                    self.store.inner.indexes.remove(&diff_id);
                    if self.store.stored_index(&diff_id)?.is_none() {
                        let held = Some(Held::Layer(*diff_id.0.as_bytes()));
                        self.record(ProblemKind::Index, path, held, report);
                    }
                    // They may be large, and are not needed all at once.
                    self.store.inner.indexes.remove(&diff_id);
                }
                (Some(diff_id), "tree") if is_known => {
                    let is_there = self.store.tree_path(&diff_id).is_dir();
                    let is_intact = self.store.has_intact_tree(&diff_id)?;
                    if !is_there {
                        let reason = "the tree that it vouches for is not there".to_owned();
                        let held = Some(Held::Layer(*diff_id.0.as_bytes()));
                        self.file(ProblemKind::Tree, path, reason, self.users(&diff_id), held);
                    } else if !is_intact && self.store.layer_mark(&diff_id)?.is_none() {
                        let held = Some(Held::Layer(*diff_id.0.as_bytes()));
                        self.record(ProblemKind::Tree, path, held, report);
                    } else if !is_intact {
                        report.leftovers.push(path);
                    }
                }
                _ => report.leftovers.push(path),
            }
        }
        for name in files::names(&self.store.path("trees"))? {
            let path = Path::new("trees").join(&name);
            let diff_id = unhex(&name).map(|it| DiffId(Digest::from_sha256(it)));
            let record = diff_id.and_then(|it| records.get(&it));
            let Some(record) = record else {
                report.leftovers.push(path);
                continue;
            };
            if !self.store.has_intact_tree(&record.diff_id)? {
                report.leftovers.push(path);
                continue;
            }
            report.n_trees += 1;
            if is_thorough && let Some(reason) = self.tree(record)? {
                let diff_id = record.diff_id;
                let fix = (Fix::Tree(diff_id), Some(Held::Layer(*diff_id.0.as_bytes())));
                self.push(ProblemKind::Tree, path, reason, self.users(&diff_id), fix);
            }
        }
        Ok(())
    }

    /// Returns in what a tree is not what its layer says.
    fn tree(&self, record: &LayerRecord) -> Result<Option<String>, StoreError> {
        let diff_id = &record.diff_id;
        let path = self.store.tree_path(diff_id);
        let has_owners = self.store.can_own() && !owners::are_beside();
        let is_exact = !record.can_be_remade;
        let index = match self.store.stored_index(diff_id)? {
            Some(index) => index,
            // It is made again from a blob. A tree that kiln packed is worth nothing without it, and goes with it.
            None if self.store.stored_blob(record).is_some() => return Ok(None),
            None => return Ok(Some("nothing says what should be in it".to_owned())),
        };
        let found = difference(&path, &index, is_exact, has_owners);
        self.store.inner.indexes.remove(diff_id);
        if found.is_none() || record.can_be_remade {
            return Ok(found);
        }
        // Layers from elsewhere may have entries below links, or twice: what counts is what unpacking makes of them.
        let again = self.store.unpack_again(diff_id);
        let is_like_that = match &again {
            Ok(again) => difference(&again.upper(), &index, is_exact, has_owners) == found,
            Err(_) => false,
        };
        Ok(found.filter(|_| !is_like_that))
    }

    fn blobs(
        &mut self,
        names: &[String],
        records: &HashMap<DiffId, LayerRecord>,
        report: &mut CheckReport,
        is_thorough: bool,
    ) -> Result<(), StoreError> {
        let folder = self.store.path("oci/blobs/sha256");
        let sizes: HashMap<Digest, u64> = records
            .values()
            .flat_map(|it| &it.blobs)
            .map(|it: &Descriptor| (it.digest, it.size))
            .collect();
        let next = AtomicUsize::new(0);
        let bad = Mutex::new(Vec::new());
        let n_bytes = Mutex::new((0, 0));
        let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
        let look = || -> Result<(), StoreError> {
            while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                let path = folder.join(name);
                let expected = unhex(name).map(Digest::from_sha256);
                let reason = match (expected, fs::symlink_metadata(&path)) {
                    // Somebody removed it meanwhile.
                    (_, Err(_)) => None,
                    (None, Ok(_)) => Some("its name is no digest".to_owned()),
                    (Some(_), Ok(it)) if !it.is_file() => Some("it is no file".to_owned()),
                    (Some(digest), Ok(it)) => {
                        let mut sum = guard(&n_bytes);
                        *sum = (sum.0 + 1, sum.1 + it.len());
                        drop(sum);
                        match sizes.get(&digest) {
                            Some(size) if *size != it.len() => {
                                Some(format!("it has {} bytes instead of {size}", it.len()))
                            }
                            _ if is_thorough => hash(&path, &digest)?,
                            _ => None,
                        }
                    }
                };
                if let Some(reason) = reason {
                    guard(&bad).push((name.clone(), reason));
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..n_threads).map(|_| scope.spawn(look)).collect();
            threads.into_iter().map(|it| it.join().unwrap_or(Ok(()))).fold(Ok(()), Result::and)
        })?;
        (report.n_blobs, report.n_bytes) = *guard(&n_bytes);
        let mut bad = std::mem::take(&mut *guard(&bad));
        bad.sort();
        for (name, reason) in bad {
            let hash = unhex(&name);
            let users = hash.and_then(|it| self.of_blobs.get(&Digest::from_sha256(it)));
            let users = users.into_iter().flatten().cloned().collect();
            let path = Path::new("oci/blobs/sha256").join(&name);
            self.file(ProblemKind::Blob, path, reason, users, hash.map(Held::Blob));
        }
        Ok(())
    }

    fn layout(&mut self, report: &mut CheckReport) -> Result<(), StoreError> {
        let frame = files::read_small(&self.store.path("oci/oci-layout"), 4096)?;
        if frame.as_deref() != Some(LAYOUT) {
            let fix = (Fix::Layout, None);
            let reason = "it is not what was written".to_owned();
            self.push(ProblemKind::Layout, "oci/oci-layout".into(), reason, Vec::new(), fix);
        }
        let _lock = self.store.lock("images")?;
        let bytes = files::read_small(&self.store.path("oci/index.json"), MAX_RECORD_BYTES)?;
        let path = PathBuf::from("oci/index.json");
        if bytes.as_ref().is_none_or(|it| serde_json::from_slice::<Index>(it).is_err()) {
            let reason = "it is not what was written".to_owned();
            self.push(ProblemKind::Layout, path, reason, Vec::new(), (Fix::Layout, None));
        } else if let Ok(images) = self.store.images()
            && bytes != Some(self.store.layout(&images)?)
        {
            // It follows from the images, kiln never reads it, and whoever dies before it is written leaves the old one.
            report.leftovers.push(path);
        }
        Ok(())
    }
}

/// Hashes a blob and returns how it is not what its name says.
fn hash(path: &Path, expected: &Digest) -> Result<Option<String>, StoreError> {
    let mut file = match fs::File::open(path) {
        Ok(file) => file,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(err).at("open", path),
    };
    let mut hasher = Hashing::new(std::io::sink());
    if let Err(err) = std::io::copy(&mut file, &mut hasher) {
        return Ok(Some(format!("it cannot be read: {err}")));
    }
    let (_, found, _) = hasher.finish();
    Ok((found != *expected).then(|| format!("its bytes have the digest `{found}`")))
}

fn step_path(key: &StepKey) -> PathBuf {
    let hex = hex(&key.0);
    Path::new("steps").join(&hex[..2]).join(format!("{hex}.json"))
}

fn name_of(image: &NamedImage) -> String {
    match image.names.first() {
        Some(name) => format!("image `{name}`"),
        None => format!("image `{}`", image.record.id()),
    }
}
