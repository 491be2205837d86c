//! Room: how large the store may become, kept before something is stored and not after.
//!
//! Before a blob or a tree gets its name, what has to go for it goes, the longest unused first: steps that no image needs, then trees that
//! can be unpacked again, then images without a name. What has a name, or is held by a running process, stays; if that is too
//! much already, nothing is stored and the caller fails.

use std::{fs, time::Duration};

use crate::{
    PruneOptions, PruneReport,
    error::{IoContext, StoreError},
    files,
    lock::Lock,
    step::{now, seconds},
    store::Store,
};

/// What is smaller is stored without asking: documents of images, records.
const SMALL: u64 = 64 << 10;
/// What became old is looked for this often.
const COLLECT_EVERY: Duration = Duration::from_secs(600);

/// How large the store may become.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoomOptions {
    /// The store never becomes larger than this, in bytes: blobs, and trees counted as large as their tars.
    pub max_used: Option<u64>,
    /// So many bytes of the file system stay free.
    pub min_free: Option<u64>,
    /// What was not used for so long goes, unless an image needs it.
    pub keep: Option<Duration>,
}

impl Store {
    /// Makes room for `n_bytes`, which are to be stored while what is returned is kept: nobody else stores anything meanwhile.
    ///
    /// The order of locks is that of a tree, this one, that of the collector.
    ///
    /// # Errors
    ///
    /// - [`StoreError::NoRoom`] if what must stay leaves too little.
    /// - [`StoreError::Io`] if something cannot be removed.
    pub(crate) fn make_room(&self, n_bytes: u64) -> Result<Option<Lock>, StoreError> {
        let room = &self.inner.options.room;
        if n_bytes < SMALL || (room.max_used.is_none() && room.min_free.is_none()) {
            return Ok(None);
        }
        let turn = self.lock("room")?;
        let steps = PruneOptions { steps: true, ..PruneOptions::default() };
        let trees = PruneOptions { trees: true, ..PruneOptions::default() };
        let dangling = PruneOptions { dangling_images: true, ..PruneOptions::default() };
        for options in [steps, trees, dangling] {
            let excess = self.excess(n_bytes)?;
            if excess == 0 {
                return Ok(Some(turn));
            }
            let keep_bytes = match options.steps {
                true => Some(self.unneeded_bytes()?.saturating_sub(excess)),
                false => None,
            };
            self.prune(&PruneOptions { keep_bytes, ..options })?;
        }
        match self.excess(n_bytes)? {
            0 => Ok(Some(turn)),
            _ => Err(StoreError::NoRoom {
                path: self.root().to_owned(),
                n_bytes,
                used: self.used_bytes()?,
                limit: room.max_used.unwrap_or(u64::MAX),
            }),
        }
    }

    /// Says how much of the build cache a prune may leave, from the three limits that docker has: `max_used` is how much at most,
    /// `min_free` how much of the file system should be free afterwards, and `reserved` what stays in any case.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if something cannot be read.
    pub fn keep_bytes(
        &self,
        max_used: Option<u64>,
        min_free: Option<u64>,
        reserved: Option<u64>,
    ) -> Result<Option<u64>, StoreError> {
        if max_used.is_none() && min_free.is_none() && reserved.is_none() {
            return Ok(None);
        }
        let mut keep = max_used;
        if let Some(wanted) = min_free {
            let short = wanted.saturating_sub(self.free_bytes()?);
            let left = self.unneeded_bytes()?.saturating_sub(short);
            keep = Some(keep.map_or(left, |it| it.min(left)));
        }
        Ok(Some(keep.unwrap_or(0).max(reserved.unwrap_or(0))))
    }

    /// Removes what became old. Does nothing if that was done a moment ago.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if something cannot be removed.
    pub fn collect(&self) -> Result<Option<PruneReport>, StoreError> {
        let room = &self.inner.options.room;
        let Some(keep) = room.keep else { return Ok(None) };
        let mark = self.path("collected");
        let last = fs::metadata(&mark).and_then(|it| it.modified()).map_or(0, seconds);
        if now().saturating_sub(last) < COLLECT_EVERY.as_secs() {
            return Ok(None);
        }
        self.publish(&mark, b"", false)?;
        let options = PruneOptions {
            dangling_images: true,
            steps: true,
            cache_mounts: true,
            logs: true,
            until: Some(keep),
            ..PruneOptions::default()
        };
        self.prune(&options).map(Some)
    }

    /// How much has to go before `n_bytes` more fit in.
    fn excess(&self, n_bytes: u64) -> Result<u64, StoreError> {
        let room = &self.inner.options.room;
        let over = match room.max_used {
            Some(limit) => self.used_bytes()?.saturating_add(n_bytes).saturating_sub(limit),
            None => 0,
        };
        let short = match room.min_free {
            Some(wanted) => wanted.saturating_add(n_bytes).saturating_sub(self.free_bytes()?),
            None => 0,
        };
        Ok(over.max(short))
    }

    /// Returns what blobs and trees take up.
    fn used_bytes(&self) -> Result<u64, StoreError> {
        let folder = self.path("oci/blobs/sha256");
        let mut sum = 0;
        for name in files::names(&folder)? {
            sum += fs::metadata(folder.join(name)).map_or(0, |it| it.len());
        }
        for layer in self.layers()? {
            if self.layer_file(&layer.diff_id, "tree").exists() {
                sum += layer.tar_size.unwrap_or(0);
            }
        }
        Ok(sum)
    }

    /// Returns how much of the file system is free.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if it does not say.
    pub fn free_bytes(&self) -> Result<u64, StoreError> {
        let found =
            rustix::fs::statvfs(self.root()).at("look at the file system of", self.root())?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
}
