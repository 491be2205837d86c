//! Looking through a store for what is damaged, and taking that away.
//!
//! Everything is read: blobs are hashed, trees compared with what their layers say, records unsealed and what they name looked up. It runs
//! beside builds: it keeps the collector out, and nothing that a running process holds is taken away.
//!
//! What can be made again is removed, and whatever counted on it goes with it, so that the next build makes it again. What cannot,
//! the list of images, is put aside as `images.json.damaged` and taken from its copy.
//!
//! - `find` looks, and says what would have to be done; `others` goes on with what nothing else counts on.
//! - `tree` compares an unpacked layer with its index.

mod find;
mod others;
mod tree;

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use image::{DiffId, Digest};

use crate::{
    error::{IoContext, StoreError},
    files,
    images::parse_images,
    lease::Held,
    store::Store,
};

/// What goes may be what something else counted on; after so many rounds that has come to an end.
const MAX_ROUNDS: usize = 8;

/// How a store is checked.
#[derive(Debug, Clone, Copy, Default)]
pub struct CheckOptions {
    /// Take away what is damaged.
    pub repair: bool,
}

/// What a check found.
#[derive(Debug, Clone, Default)]
pub struct CheckReport {
    /// What is damaged, what was found first first.
    pub problems: Vec<Problem>,
    /// What interrupted processes and power cuts left behind. It is never looked at, and the collector takes it.
    pub leftovers: Vec<PathBuf>,
    /// Images that were looked at.
    pub n_images: u64,
    /// Steps that were looked at.
    pub n_steps: u64,
    /// Layers that were looked at.
    pub n_layers: u64,
    /// Trees that were looked at.
    pub n_trees: u64,
    /// Blobs that were looked at.
    pub n_blobs: u64,
    /// The bytes of these blobs.
    pub n_bytes: u64,
}

impl CheckReport {
    /// Whether nothing is damaged now.
    pub fn is_sound(&self) -> bool {
        self.problems.iter().all(|it| it.outcome == Outcome::Repaired)
    }
}

/// Something damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What it is.
    pub kind: ProblemKind,
    /// Where it is, below the root of the store.
    pub path: PathBuf,
    /// How that shows.
    pub reason: String,
    /// The images and steps that need it.
    pub used_by: Vec<String>,
    /// What was done about it.
    pub outcome: Outcome,
}

/// What a file of the store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProblemKind {
    /// The format of the store.
    Format,
    /// A folder that every store has.
    Folder,
    /// The OCI layout around the blobs.
    Layout,
    /// A blob.
    Blob,
    /// The record of a layer.
    Layer,
    /// What is in a layer.
    Index,
    /// An unpacked layer.
    Tree,
    /// The record of a step.
    Step,
    /// The list of images.
    Images,
    /// An image.
    Image,
    /// The description of a cache mount.
    Mount,
    /// What is remembered of a build context.
    StatCache,
    /// What is remembered of a build.
    Journal,
    /// The list of what a build did.
    Log,
    /// How user ids are seen.
    Owners,
}

impl ProblemKind {
    /// Returns its name for scripts.
    pub fn code(self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::Folder => "folder",
            Self::Layout => "layout",
            Self::Blob => "blob",
            Self::Layer => "layer",
            Self::Index => "index",
            Self::Tree => "tree",
            Self::Step => "step",
            Self::Images => "images",
            Self::Image => "image",
            Self::Mount => "mount",
            Self::StatCache => "stat-cache",
            Self::Journal => "journal",
            Self::Log => "log",
            Self::Owners => "owners",
        }
    }
}

/// What was done about something damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing: that was not asked for.
    Found,
    /// It was taken away or put right.
    Repaired,
    /// Nothing: a running process holds it.
    InUse,
}

/// A problem, and how to get rid of it.
struct Finding {
    problem: Problem,
    fix: Fix,
    /// What must not be held by anybody while it is done.
    held: Option<Held>,
}

enum Fix {
    /// Removes a file, if it is still the one that was looked at.
    File { inode: u64 },
    /// Removes an unpacked layer with what vouches for it.
    Tree(DiffId),
    /// Makes a folder.
    Folder,
    /// Writes the frame of the OCI layout.
    Layout,
    /// Puts the list of images aside and takes its copy.
    Images,
    /// Takes an image off the list.
    Image(Digest),
}

impl Store {
    /// Looks through the whole store, and takes away what is damaged if that is asked for.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if something cannot be read for another reason than that it is damaged, or cannot be removed;
    /// [`StoreError::OtherOwners`] if the trees were made by somebody who sees ids differently, to whom they would all look damaged.
    pub fn check(&self, options: CheckOptions) -> Result<CheckReport, StoreError> {
        // What is wrong with a damaged one is said below.
        let owners = files::read_small(&self.path("owners"), 1 << 20).ok().flatten();
        if owners.is_some_and(|it| files::is_sealed(&it)) {
            self.check_owners()?;
        }
        let _lock = self.lock("prune")?;
        let mut report = CheckReport::default();
        let mut findings = find::Finder::new(self).find(&mut report, true)?;
        let mut seen = HashSet::new();
        for _ in 0..MAX_ROUNDS {
            findings.retain(|it| seen.insert((it.problem.path.clone(), it.problem.kind.code())));
            if findings.is_empty() {
                break;
            }
            if options.repair {
                self.repair(&mut findings)?;
            }
            report.problems.extend(findings.into_iter().map(|it| it.problem));
            if !options.repair {
                break;
            }
            findings = find::Finder::new(self).find(&mut CheckReport::default(), false)?;
        }
        if options.repair {
            self.refresh_layout()?;
        }
        Ok(report)
    }

    /// Takes away what was found, as far as no running process holds it.
    fn repair(&self, findings: &mut [Finding]) -> Result<(), StoreError> {
        let graveyard = self.scratch()?;
        files::ensure_dir(&graveyard, 0o700)?;
        // Folders first: a lease is a file in one of them.
        for finding in findings.iter_mut().filter(|it| matches!(it.fix, Fix::Folder)) {
            files::ensure_dir(&self.inner.root.join(&finding.problem.path), 0o755)?;
            finding.problem.outcome = Outcome::Repaired;
        }
        let stopped = self.stop_leases()?;
        let held = self.held()?;
        for (nth, finding) in findings.iter_mut().enumerate() {
            if finding.held.is_some_and(|it| held.contains(&it)) {
                finding.problem.outcome = Outcome::InUse;
                continue;
            }
            let path = self.inner.root.join(&finding.problem.path);
            match &finding.fix {
                Fix::Folder => {}
                Fix::File { inode } => remove_if(&path, *inode)?,
                Fix::Tree(diff_id) => {
                    files::remove_file(&self.layer_file(diff_id, "tree"))?;
                    let tree = self.tree_path(diff_id);
                    match fs::rename(&tree, graveyard.join(nth.to_string())) {
                        Err(err) if err.kind() == std::io::ErrorKind::NotFound => {}
                        result => result.at("move away", tree)?,
                    }
                    self.inner.indexes.remove(diff_id);
                }
                Fix::Layout => {}
                Fix::Images => self.restore_images()?,
                Fix::Image(target) => drop(self.remove_image(target)?),
            }
            finding.problem.outcome = Outcome::Repaired;
        }
        drop(stopped);
        files::remove_tree(&graveyard)?;
        if findings.iter().any(|it| matches!(it.fix, Fix::Layout)) {
            crate::store::write_layout_file(self)?;
        }
        Ok(())
    }

    /// Puts the list of images aside and takes its copy, if that is whole.
    fn restore_images(&self) -> Result<(), StoreError> {
        let _lock = self.lock("images")?;
        let (path, copy) = (self.images_path(), self.images_copy_path());
        let aside = path.with_extension("json.damaged");
        match fs::rename(&path, &aside) {
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {}
            result => result.at("move away", &path)?,
        }
        match files::read_small(&copy, 1 << 30)? {
            Some(bytes) if parse_images(&bytes).is_ok() => self.publish(&path, &bytes, true),
            _ => files::remove_file(&copy).map(drop),
        }
    }

    /// Tells whether the note of the store's format is damaged, which keeps it from being opened.
    pub fn is_damaged(root: &Path) -> bool {
        let found = files::read_small(&root.join("version"), 4096).ok().flatten();
        crate::store::has_damaged_format(root, &found.unwrap_or_default())
    }

    /// Puts a damaged note of the store's format right, if everything else looks like a store of this version of kiln.
    ///
    /// Only what nobody can have written is replaced: a store of another format stays as it is. The answer is whether it was replaced.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if it cannot be read or written.
    pub fn repair_format(root: &Path) -> Result<bool, StoreError> {
        crate::store::repair_format(root)
    }
}

/// Removes a file if it is still the one that was looked at: meanwhile somebody may have made a good one.
fn remove_if(path: &Path, inode: u64) -> Result<(), StoreError> {
    match fs::symlink_metadata(path) {
        Ok(it) if it.ino() == inode && it.is_dir() => files::remove_tree(path),
        Ok(it) if it.ino() == inode => files::remove_file(path).map(drop),
        Ok(_) => Ok(()),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(err) => Err(err).at("read", path),
    }
}
