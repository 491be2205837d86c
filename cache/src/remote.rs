//! The seam for a cache that others share: a registry, an S3 bucket, an engine of the Bazel Remote Execution API. There is no such cache yet.
//!
//! It may be slow and may fail, and its bytes are believed only for their digests. What it says of a key is believed: who may write into it
//! may decide what a step makes. It is asked by [`Store::step_from`] and told by [`Store::step_to`].

use std::{error::Error, io::Read};

use image::{
    Digest,
    document::{Descriptor, media_type},
};
use serde::{Deserialize, Serialize};

use crate::{
    error::StoreError,
    step::{StepKey, StepRecord},
    store::Store,
    tar::descriptor,
};

/// What a remote cache answers.
pub type RemoteResult<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Records by key, blobs by digest. Called from many threads.
pub trait RemoteCache: Send + Sync {
    /// Returns what is known of a step.
    ///
    /// # Errors
    ///
    /// It cannot be asked.
    fn get(&self, key: &StepKey) -> RemoteResult<Option<RemoteStep>>;

    /// Remembers a step. The blob of its layer was put before.
    ///
    /// # Errors
    ///
    /// It cannot be told.
    fn put(&self, step: &RemoteStep) -> RemoteResult<()>;

    /// Opens a blob. Whether the bytes are those of the digest is for the caller to see.
    ///
    /// # Errors
    ///
    /// It cannot be asked.
    fn blob(&self, digest: &Digest) -> RemoteResult<Option<Box<dyn Read + Send>>>;

    /// Stores a blob, if it is not there.
    ///
    /// # Errors
    ///
    /// It cannot be told, or `bytes` cannot be read.
    fn put_blob(&self, blob: &Descriptor, bytes: &mut dyn Read) -> RemoteResult<()>;
}

/// A step as it is shared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RemoteStep {
    /// What the store remembers of it.
    pub record: StepRecord,
    /// The blob of its layer; none if it changed nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<Descriptor>,
}

impl Store {
    /// Takes a step over from a remote cache, with its layer. `None` if it is not known there, or its layer is gone.
    ///
    /// # Errors
    ///
    /// - [`StoreError::Remote`] if the cache cannot be asked, or tells of another step.
    /// - [`StoreError::DigestMismatch`] if its bytes are wrong, and the other errors of [`import_layer`](Self::import_layer). Nothing is
    ///   stored then.
    pub fn step_from(
        &self,
        remote: &dyn RemoteCache,
        key: &StepKey,
    ) -> Result<Option<StepRecord>, StoreError> {
        match remote.get(key).map_err(failed("ask for a step"))? {
            Some(step) if step.record.key == *key => self.take_over(remote, step),
            Some(step) => Err(failed("ask for a step")(
                format!("it answered with step `{}`", step.record.key).into(),
            )),
            None => Ok(None),
        }
    }

    /// Takes over what was made elsewhere, after fetching its layer if that is not here.
    ///
    /// # Errors
    ///
    /// Those of [`step_from`](Self::step_from).
    pub fn take_over(
        &self,
        remote: &dyn RemoteCache,
        step: RemoteStep,
    ) -> Result<Option<StepRecord>, StoreError> {
        let RemoteStep { record, layer } = step;
        if let Some(diff_id) = &record.layer
            && self.layer(diff_id)?.is_none()
        {
            let Some(blob) = layer else { return Ok(None) };
            let Some(bytes) = remote.blob(&blob.digest).map_err(failed("fetch a layer"))? else {
                return Ok(None);
            };
            // One byte too many is enough to see that it is another blob.
            let bytes = bytes.take(blob.size.saturating_add(1));
            self.import_layer(bytes, Some(&blob), Some(diff_id), false)?;
        }
        self.put_step(&record)?;
        Ok(Some(record))
    }

    /// Tells a remote cache of a step of this store.
    ///
    /// # Errors
    ///
    /// [`StoreError::Remote`] if it cannot be told, and the errors of [`open_tar`](Self::open_tar).
    pub fn step_to(&self, remote: &dyn RemoteCache, record: &StepRecord) -> Result<(), StoreError> {
        let mut layer = None;
        if let Some(diff_id) = &record.layer {
            let missing = || StoreError::LayerMissing { diff_id: *diff_id };
            let known = self.layer(diff_id)?.ok_or_else(missing)?;
            let share = failed("share a layer");
            let blob = match self.stored_blob(&known) {
                Some(blob) => {
                    let mut bytes = self.open_blob(&blob.digest)?;
                    remote.put_blob(blob, &mut bytes).map_err(share)?;
                    blob.clone()
                }
                None => {
                    let size = self.index(diff_id)?.tar_size;
                    let blob = descriptor(media_type::OCI_LAYER, diff_id.0, size);
                    remote.put_blob(&blob, &mut self.open_tar(diff_id)?).map_err(share)?;
                    blob
                }
            };
            layer = Some(blob);
        }
        let step = RemoteStep { record: record.clone(), layer };
        remote.put(&step).map_err(failed("share a step"))
    }
}

fn failed(action: &'static str) -> impl Fn(Box<dyn Error + Send + Sync>) -> StoreError {
    move |source| StoreError::Remote { action, source }
}
