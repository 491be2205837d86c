//! Step records: what a step of a plan made, by the key of the step.
//!
//! One sealed JSON file per key. It is published whole and not flushed: after a power cut it is either what it was or counts as
//! absent, and what it points to is looked up before it is believed.

use std::{
    fmt, fs,
    io::ErrorKind,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use image::DiffId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::{
    error::{IoContext, StoreError},
    files,
    lease::{Held, hex, unhex},
    lock::Lock,
    store::Store,
};

/// A record larger than this is not one.
const MAX_RECORD_BYTES: u64 = 64 << 20;
/// The time of last use is noted at most this often.
const TOUCH_AFTER: Duration = Duration::from_secs(600);

/// The identity of a step's result before it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepKey(pub [u8; 32]);

impl StepKey {
    /// Returns the 64 hexadecimal digits.
    pub fn hex(&self) -> String {
        hex(&self.0)
    }
}

impl fmt::Display for StepKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl Serialize for StepKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StepKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        unhex(&text)
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom("a step key has 64 hexadecimal digits"))
    }
}

/// What the store remembers of a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The key of the step.
    pub key: StepKey,
    /// The key of the step below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<StepKey>,
    /// The layer it made; `None` if it changed nothing.
    pub layer: Option<DiffId>,
    /// The key that names contents, where this one names the layers that they are in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_as: Option<StepKey>,
    /// The step as people read it.
    pub description: String,
    /// What the key was made of, so that a miss can be explained.
    #[serde(default)]
    pub recipe: Value,
    /// When it ran, in seconds since the Unix epoch.
    pub created: u64,
    /// How long it ran.
    pub duration_ms: u64,
    /// When it was last looked up, in seconds since the Unix epoch. Kept by the store; what is given to `put_step` is ignored.
    #[serde(skip)]
    pub last_used: u64,
}

impl Store {
    pub(crate) fn step_path(&self, key: &StepKey) -> PathBuf {
        let hex = key.hex();
        self.path("steps").join(&hex[..2]).join(format!("{hex}.json"))
    }

    /// Looks a step up. `None` if it is not known, or if its layer is gone.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the record cannot be read for another reason than that it is not there.
    pub fn step(&self, key: &StepKey) -> Result<Option<StepRecord>, StoreError> {
        self.hold(Held::Step(key.0))?;
        let Some(record) = self.step_record(key)? else { return Ok(None) };
        if let Some(diff_id) = &record.layer
            && self.layer(diff_id)?.is_none()
        {
            return Ok(None);
        }
        if now().saturating_sub(record.last_used) > TOUCH_AFTER.as_secs() {
            let path = self.step_path(key);
            let file = fs::File::open(&path).at("open", &path)?;
            file.set_modified(SystemTime::now()).at("set the time of", path)?;
        }
        Ok(Some(record))
    }

    /// Reads a step record without asking whether its layer is there.
    pub(crate) fn step_record(&self, key: &StepKey) -> Result<Option<StepRecord>, StoreError> {
        let path = self.step_path(key);
        let Some(bytes) = files::read_small(&path, MAX_RECORD_BYTES)? else { return Ok(None) };
        // What a power cut left of a record is no record.
        let parsed = files::unseal(&bytes).map(serde_json::from_slice::<StepRecord>);
        let Some(Ok(mut record)) = parsed else { return Ok(None) };
        if record.key != *key {
            return Ok(None);
        }
        record.last_used =
            fs::metadata(&path).ok().and_then(|it| it.modified().ok()).map_or(0, seconds);
        Ok(Some(record))
    }

    /// Remembers a step. Its layer must be stored before.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the record cannot be written.
    pub fn put_step(&self, record: &StepRecord) -> Result<(), StoreError> {
        self.hold(Held::Step(record.key.0))?;
        let path = self.step_path(&record.key);
        let bytes = serde_json::to_vec(record).map_err(|source| StoreError::Document {
            what: format!("the record of step `{}`", record.key),
            source,
        })?;
        let bytes = files::seal(bytes);
        match self.publish(&path, &bytes, false) {
            Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                files::ensure_dir(path.parent().unwrap_or(&path), 0o755)?;
                self.publish(&path, &bytes, false)
            }
            result => result,
        }
    }

    /// Forgets a step. Its layer stays until it is collected.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the record cannot be removed.
    pub fn remove_step(&self, key: &StepKey) -> Result<(), StoreError> {
        files::remove_file(&self.step_path(key))?;
        files::remove_file(&self.step_files_path(key)).map(|_| ())
    }

    /// Waits until no other process or thread runs this step. Look the step up again afterwards.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the lock file cannot be made or locked.
    pub fn step_lock(&self, key: &StepKey) -> Result<Lock, StoreError> {
        self.lock(&format!("step-{key}"))
    }

    /// Lists all steps that are recorded, by key. Damaged records are left out.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if they cannot be read.
    pub fn steps(&self) -> Result<Vec<StepRecord>, StoreError> {
        Ok(self.all_steps()?.0)
    }

    /// Lists all steps that are recorded, and the keys of those whose record is damaged: what a power cut leaves.
    pub(crate) fn all_steps(&self) -> Result<(Vec<StepRecord>, Vec<StepKey>), StoreError> {
        let folder = self.path("steps");
        let (mut steps, mut damaged) = (Vec::new(), Vec::new());
        for shard in files::names(&folder)? {
            for name in files::names(&folder.join(shard))? {
                let Some(key) = name.strip_suffix(".json").and_then(unhex) else { continue };
                match self.step_record(&StepKey(key))? {
                    Some(step) => steps.push(step),
                    None => damaged.push(StepKey(key)),
                }
            }
        }
        Ok((steps, damaged))
    }
}

/// Returns the seconds since the Unix epoch.
pub(crate) fn now() -> u64 {
    seconds(SystemTime::now())
}

/// Returns when a file or folder was last changed, in seconds since the Unix epoch.
pub(crate) fn modified(path: &std::path::Path) -> u64 {
    fs::metadata(path).and_then(|it| it.modified()).map_or(0, seconds)
}

/// Turns a time into seconds since the Unix epoch.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs())
}
