//! The output of steps, kept so that it can be shown again, and what else is remembered of builds and contexts.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    error::{IoContext, StoreError},
    files,
    step::seconds,
    store::Store,
};

/// The file of a build's steps.
pub(crate) const STEPS: &str = "steps.json";
const MAX_STEPS_BYTES: u64 = 256 << 20;
const MAX_STAT_CACHE_BYTES: u64 = 4 << 30;

/// A build whose output is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildLog {
    /// Its id, as given to `new_log`.
    pub build: String,
    /// When the last step began, in seconds since the Unix epoch.
    pub modified: u64,
    /// The files of output; numbers in the order of numbers.
    pub files: Vec<String>,
    /// What happened, in order, once the build has ended.
    pub steps: Vec<BuildStep>,
}

/// Something that a build did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildStep {
    /// What to call it: `[build 2/5] RUN make`.
    pub name: String,
    /// How it ended: `done`, `cached`, `canceled`, `failed`.
    pub outcome: String,
    /// The file of its output, which is there if it wrote anything.
    pub log: String,
}

impl Store {
    /// Starts the log of a step.
    ///
    /// # Errors
    ///
    /// [`StoreError::BadName`] if one of the names cannot be a file name, [`StoreError::Io`] if the file cannot be made.
    pub fn new_log(&self, build: &str, step: &str) -> Result<File, StoreError> {
        let path = self.log_path(build, step)?;
        self.session()?;
        files::ensure_dir(path.parent().unwrap_or(&path), 0o755)?;
        let _ = fs::remove_file(&path);
        files::create_new(&path, 0o644)
    }

    /// Opens the log of a step. `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`StoreError::BadName`], [`StoreError::Io`].
    pub fn open_log(&self, build: &str, step: &str) -> Result<Option<File>, StoreError> {
        let path = self.log_path(build, step)?;
        match File::open(&path) {
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(None),
            result => result.map(Some).at("open", path),
        }
    }

    /// Lists the builds whose output is kept, the youngest first.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if they cannot be listed.
    pub fn build_logs(&self) -> Result<Vec<BuildLog>, StoreError> {
        let root = self.path("logs");
        let mut builds = Vec::new();
        for build in files::names(&root)? {
            let folder = root.join(&build);
            let names = files::names(&folder)?;
            let mut outputs: Vec<String> =
                names.iter().filter_map(|it| it.strip_suffix(".log")).map(str::to_owned).collect();
            outputs.sort_by_cached_key(|it| (it.parse::<u64>().unwrap_or(u64::MAX), it.clone()));
            let steps = files::read_small(&folder.join(STEPS), MAX_STEPS_BYTES)?;
            let steps = steps.and_then(|it| serde_json::from_slice(files::unseal(&it)?).ok());
            let modified = fs::metadata(&folder).and_then(|it| it.modified());
            builds.push((
                modified.as_ref().ok().copied(),
                BuildLog {
                    build,
                    modified: modified.map_or(0, seconds),
                    files: outputs,
                    steps: steps.unwrap_or_default(),
                },
            ));
        }
        builds.sort_by(|a, b| (&b.0, &b.1.build).cmp(&(&a.0, &a.1.build)));
        Ok(builds.into_iter().map(|(_, it)| it).collect())
    }

    /// Remembers what a build did, whether any of it has output or not.
    ///
    /// # Errors
    ///
    /// [`StoreError::BadName`] if the build cannot be a file name, [`StoreError::Io`] if the file cannot be written.
    pub fn save_build_steps(&self, build: &str, steps: &[BuildStep]) -> Result<(), StoreError> {
        let folder = self.log_path(build, "steps")?.with_file_name("");
        self.session()?;
        files::ensure_dir(&folder, 0o755)?;
        let bytes = serde_json::to_vec(steps).map_err(|source| StoreError::Document {
            what: "the list of a build's steps".to_owned(),
            source,
        })?;
        self.publish(&folder.join(STEPS), &files::seal(bytes), false)
    }

    /// Removes the output of all but the `n` youngest builds.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if they cannot be listed or removed.
    pub fn keep_logs(&self, n: usize) -> Result<(), StoreError> {
        let root = self.path("logs");
        let names = files::names(&root)?;
        if names.len() <= n {
            return Ok(());
        }
        let age = |name: &String| fs::metadata(root.join(name)).and_then(|it| it.modified()).ok();
        let mut builds: Vec<_> = names.into_iter().map(|it| (age(&it), it)).collect();
        builds.sort_unstable_by(|a, b| b.cmp(a));
        for (_, old) in builds.iter().skip(n) {
            files::remove_tree(&root.join(old))?;
        }
        Ok(())
    }

    fn log_path(&self, build: &str, step: &str) -> Result<PathBuf, StoreError> {
        for name in [build, step] {
            let plain = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_' | b'.');
            if name.is_empty()
                || name.len() > 200
                || name.starts_with('.')
                || !name.bytes().all(plain)
            {
                return Err(StoreError::BadName { name: name.to_owned() });
            }
        }
        Ok(self.path("logs").join(build).join(format!("{step}.log")))
    }

    /// Loads what was saved for a build context. `None` if there is nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the file cannot be read.
    pub fn load_stat_cache(&self, context: &Path) -> Result<Option<Vec<u8>>, StoreError> {
        let bytes = files::read_small(&self.stat_cache_path(context), MAX_STAT_CACHE_BYTES)?;
        Ok(bytes.and_then(files::unsealed))
    }

    /// Saves something for a build context, in place of what was saved before.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the file cannot be written.
    pub fn save_stat_cache(&self, context: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        self.publish(&self.stat_cache_path(context), &files::seal(bytes.to_vec()), false)
    }

    fn stat_cache_path(&self, context: &Path) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        let hash = blake3::hash(context.as_os_str().as_bytes());
        self.path("stat-cache").join(hash.to_hex().as_str())
    }
}
