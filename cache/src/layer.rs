//! Layers: one record per diff id, which faces it has, and what is in it.
//!
//! ```text
//! layers/HEX.json    the record: sizes and compressed blobs; sealed
//! layers/HEX.index   what is in the layer (image::layer::LayerIndex::encode); checks itself
//! layers/HEX.tree    there is a tree, and the batch it was written in; the last thing written
//! trees/HEX/         the tree
//! ```
//!
//! A layer counts as present if its tar can be had: from a blob, or from a tree that kiln itself packed.

use std::{
    collections::HashMap,
    fs, io,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use image::{DiffId, Digest, digest::Hashing, document::Descriptor, layer::LayerIndex};
use serde::{Deserialize, Serialize};

use crate::{
    error::{IoContext, StoreError},
    files,
    lease::Held,
    store::{Store, guard},
};

const MAX_RECORD_BYTES: u64 = 4 << 20;
const MAX_INDEX_BYTES: u64 = 4 << 30;

/// What the store knows of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// The digest of its tar.
    pub diff_id: DiffId,
    /// The length of its tar in bytes, once it was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tar_size: Option<u64>,
    /// The blobs it is compressed into, or its tar itself. Not all of them need to be here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blobs: Vec<Descriptor>,
    /// Those of the blobs that were seen to hold the layer: kiln compressed or read them itself. Of the others only the
    /// images say so that they came with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proven: Vec<Digest>,
    /// The tar comes out right when it is made again from tree and index, because kiln wrote it.
    #[serde(default)]
    pub can_be_remade: bool,
}

impl LayerRecord {
    /// Makes a record of a layer of which only the diff id is known.
    pub fn of(diff_id: DiffId) -> Self {
        Self {
            diff_id,
            tar_size: None,
            blobs: Vec::new(),
            proven: Vec::new(),
            can_be_remade: false,
        }
    }

    /// Says whether a blob is known to hold this layer, and not only said to.
    pub fn is_proven(&self, blob: &Descriptor) -> bool {
        blob.digest == self.diff_id.0 || self.proven.contains(&blob.digest)
    }

    /// Makes a record of a layer of which only the diff id and one blob are known: one that was pulled and not looked into.
    pub fn of_blob(diff_id: DiffId, blob: Descriptor) -> Self {
        Self { blobs: vec![blob], ..Self::of(diff_id) }
    }

    /// Joins what two records know of the same layer.
    fn merge(&mut self, other: &Self) {
        self.tar_size = self.tar_size.or(other.tar_size);
        self.can_be_remade |= other.can_be_remade;
        for blob in &other.blobs {
            if !self.blobs.contains(blob) {
                self.blobs.push(blob.clone());
            }
        }
        for digest in &other.proven {
            if !self.proven.contains(digest) {
                self.proven.push(*digest);
            }
        }
    }
}

/// What vouches for a tree.
#[derive(Debug, Serialize, Deserialize)]
struct TreeMark {
    batch: String,
}

/// The indexes that this process has read.
#[derive(Debug, Default)]
pub(crate) struct IndexCache(Mutex<HashMap<DiffId, Arc<LayerIndex>>>);

impl IndexCache {
    /// Forgets one index.
    pub(crate) fn remove(&self, diff_id: &DiffId) {
        guard(&self.0).remove(diff_id);
    }

    /// Forgets all indexes.
    pub(crate) fn clear(&self) {
        guard(&self.0).clear();
    }
}

impl Store {
    pub(crate) fn layer_file(&self, diff_id: &DiffId, extension: &str) -> PathBuf {
        self.path("layers").join(format!("{}.{extension}", diff_id.0.hex()))
    }

    /// Looks a layer up. `None` if it is not known, or if nothing is left to make its tar from.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the record cannot be read for another reason than that it is not there.
    pub fn layer(&self, diff_id: &DiffId) -> Result<Option<LayerRecord>, StoreError> {
        let lease = self.current_lease();
        if let Some(record) = lease.as_ref().and_then(|it| it.whole_layer(diff_id)) {
            return Ok(Some(record));
        }
        self.hold(Held::Layer(*diff_id.0.as_bytes()))?;
        let Some(record) = self.layer_record(diff_id)? else { return Ok(None) };
        let can_be_had = self.stored_blob(&record).is_some()
            || (record.can_be_remade
                && self.layer_file(diff_id, "index").exists()
                && self.has_intact_tree(diff_id)?);
        if !can_be_had {
            return Ok(None);
        }
        if let Some(lease) = lease {
            lease.note_layer(record.clone());
        }
        Ok(Some(record))
    }

    /// Reads the record of a layer without asking whether anything is left of it.
    pub(crate) fn layer_record(&self, diff_id: &DiffId) -> Result<Option<LayerRecord>, StoreError> {
        let Some(bytes) = files::read_small(&self.layer_file(diff_id, "json"), MAX_RECORD_BYTES)?
        else {
            return Ok(None);
        };
        // What a power cut left of a record is no record.
        let parsed = files::unseal(&bytes).and_then(|it| serde_json::from_slice(it).ok());
        Ok(parsed.filter(|it: &LayerRecord| it.diff_id == *diff_id))
    }

    /// Returns the blob of this layer that is here and quickest to read.
    pub(crate) fn stored_blob<'a>(&self, record: &'a LayerRecord) -> Option<&'a Descriptor> {
        self.stored_blobs(record).into_iter().next()
    }

    /// Returns the blobs of this layer that are here: first those that are proven, else by how quick they are to read.
    pub(crate) fn stored_blobs<'a>(&self, record: &'a LayerRecord) -> Vec<&'a Descriptor> {
        let is_here = |it: &&Descriptor| {
            fs::metadata(self.blob_path(&it.digest)).is_ok_and(|file| file.len() == it.size)
        };
        let mut found: Vec<&Descriptor> = record.blobs.iter().filter(is_here).collect();
        found.sort_by_key(|it| {
            let is_tar = it.digest == record.diff_id.0;
            (!record.is_proven(it), !is_tar, !it.media_type.contains("zstd"))
        });
        found
    }

    /// Says whether a blob that is here holds this layer, after reading it if that is not known. One that does not is
    /// forgotten: an image that lies about its layers must not spoil others that have them.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the blob cannot be opened or the record not be written.
    pub fn proves(&self, diff_id: &DiffId, blob: &Descriptor) -> Result<bool, StoreError> {
        let is_known = |it: LayerRecord| it.is_proven(blob);
        if blob.digest == diff_id.0 || self.layer_record(diff_id)?.is_some_and(is_known) {
            return Ok(true);
        }
        let name = self.blob_path(&blob.digest).display().to_string();
        let mut tar = self.decompressed(self.open_blob(&blob.digest)?, &name)?;
        let mut out = Hashing::new(io::sink());
        // What cannot be decompressed is no layer.
        let is_read = io::copy(&mut tar, &mut out).is_ok();
        if is_read && out.finish().1 == diff_id.0 {
            self.note_proven(diff_id, blob)?;
            return Ok(true);
        }
        self.forget_blob(diff_id, blob)?;
        Ok(false)
    }

    pub(crate) fn note_proven(
        &self,
        diff_id: &DiffId,
        blob: &Descriptor,
    ) -> Result<(), StoreError> {
        self.put_layer(&LayerRecord { proven: vec![blob.digest], ..LayerRecord::of(*diff_id) })
    }

    /// Takes a blob out of the record of a layer that it does not hold.
    pub(crate) fn forget_blob(
        &self,
        diff_id: &DiffId,
        blob: &Descriptor,
    ) -> Result<(), StoreError> {
        let _lock = self.lock(&format!("record-{}", diff_id.0.hex()))?;
        let Some(mut record) = self.layer_record(diff_id)? else { return Ok(()) };
        record.blobs.retain(|it| it.digest != blob.digest);
        self.write_record(&record)?;
        // Whether it still can be had is to be seen.
        if let Some(lease) = self.current_lease() {
            lease.forget_layer(diff_id);
        }
        Ok(())
    }

    fn write_record(&self, record: &LayerRecord) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(record).map_err(|source| StoreError::Document {
            what: format!("the record of layer `{}`", record.diff_id),
            source,
        })?;
        self.publish(&self.layer_file(&record.diff_id, "json"), &files::seal(bytes), false)?;
        if let Some(lease) = self.current_lease()
            && lease.whole_layer(&record.diff_id).is_some()
        {
            lease.note_layer(record.clone());
        }
        Ok(())
    }

    /// Remembers a layer. What is known already, other blobs above all, is kept.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the record cannot be written.
    pub fn put_layer(&self, record: &LayerRecord) -> Result<(), StoreError> {
        self.hold(Held::Layer(*record.diff_id.0.as_bytes()))?;
        let _lock = self.lock(&format!("record-{}", record.diff_id.0.hex()))?;
        let mut merged = record.clone();
        if let Some(known) = self.layer_record(&record.diff_id)? {
            let mut sum = known.clone();
            sum.merge(record);
            if sum == known {
                return Ok(());
            }
            merged = sum;
        }
        self.write_record(&merged)
    }

    /// Lists all layers that are recorded, by diff id.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if they cannot be read.
    pub fn layers(&self) -> Result<Vec<LayerRecord>, StoreError> {
        let mut layers = Vec::new();
        for name in files::names(&self.path("layers"))? {
            let diff_id = name
                .strip_suffix(".json")
                .and_then(|it| format!("sha256:{it}").parse::<DiffId>().ok());
            let Some(diff_id) = diff_id else { continue };
            layers.extend(self.layer_record(&diff_id)?);
        }
        Ok(layers)
    }

    /// Returns where the tree of a layer is, or would be.
    pub fn tree_path(&self, diff_id: &DiffId) -> PathBuf {
        self.path("trees").join(diff_id.0.hex())
    }

    /// Tells whether the layer is unpacked.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the lease cannot be written or the mark cannot be read.
    pub fn has_tree(&self, diff_id: &DiffId) -> Result<bool, StoreError> {
        let lease = self.current_lease();
        if lease.as_ref().is_some_and(|it| it.has_tree(diff_id)) {
            return Ok(true);
        }
        self.hold(Held::Layer(*diff_id.0.as_bytes()))?;
        let is_here = self.has_intact_tree(diff_id)?;
        if let Some(lease) = lease.filter(|_| is_here) {
            lease.note_tree(diff_id);
        }
        Ok(is_here)
    }

    pub(crate) fn has_intact_tree(&self, diff_id: &DiffId) -> Result<bool, StoreError> {
        let Some(batch) = self.layer_mark(diff_id)? else { return Ok(false) };
        Ok(self.is_intact(&batch) && self.tree_path(diff_id).is_dir())
    }

    /// Returns the batch that the tree of a layer belongs to, if something vouches for the tree.
    pub(crate) fn layer_mark(&self, diff_id: &DiffId) -> Result<Option<String>, StoreError> {
        let Some(bytes) = files::read_small(&self.layer_file(diff_id, "tree"), 4096)? else {
            return Ok(None);
        };
        let mark = files::unseal(&bytes).map(serde_json::from_slice::<TreeMark>);
        Ok(mark.and_then(Result::ok).map(|it| it.batch))
    }

    /// Gives a staged folder the name of the layer's tree. Whatever stood there without a valid mark goes.
    ///
    /// The caller holds the lock of the tree.
    pub(crate) fn publish_tree(
        &self,
        staged: &std::path::Path,
        diff_id: &DiffId,
    ) -> Result<(), StoreError> {
        self.hold(Held::Layer(*diff_id.0.as_bytes()))?;
        let path = self.tree_path(diff_id);
        let mark = self.layer_file(diff_id, "tree");
        files::remove_file(&mark)?;
        if path.exists() {
            let old = self.scratch()?;
            fs::rename(&path, &old).at("move away", &path)?;
            files::remove_tree(&old)?;
        }
        let batch = self.batch();
        fs::rename(staged, &path).at("create", &path)?;
        let bytes = format!("{{\"batch\":\"{}\"}}\n", batch.name);
        self.publish(&mark, &files::seal(bytes.into_bytes()), false)
    }

    /// Waits for the right to make the tree of a layer.
    pub(crate) fn tree_lock(&self, diff_id: &DiffId) -> Result<crate::lock::Lock, StoreError> {
        self.lock(&format!("tree-{}", diff_id.0.hex()))
    }

    /// Reads the stored index of a layer. `None` if there is none, or a damaged one.
    pub(crate) fn stored_index(
        &self,
        diff_id: &DiffId,
    ) -> Result<Option<Arc<LayerIndex>>, StoreError> {
        if let Some(index) = guard(&self.inner.indexes.0).get(diff_id) {
            return Ok(Some(index.clone()));
        }
        let Some(bytes) = self.index_bytes(diff_id)? else { return Ok(None) };
        let Ok(index) = LayerIndex::decode(&bytes) else { return Ok(None) };
        if index.diff_id != *diff_id {
            return Ok(None);
        }
        Ok(Some(self.remember_index(index)))
    }

    pub(crate) fn index_bytes(&self, diff_id: &DiffId) -> Result<Option<Vec<u8>>, StoreError> {
        files::read_small(&self.layer_file(diff_id, "index"), MAX_INDEX_BYTES)
    }

    pub(crate) fn remember_index(&self, index: LayerIndex) -> Arc<LayerIndex> {
        let index = Arc::new(index);
        guard(&self.inner.indexes.0).entry(index.diff_id).or_insert(index).clone()
    }

    /// Stores what is in a layer.
    pub(crate) fn put_index(&self, index: &LayerIndex) -> Result<(), StoreError> {
        let path = self.layer_file(&index.diff_id, "index");
        if !path.exists() || self.stored_index(&index.diff_id)?.is_none() {
            files::publish_with(&self.scratch()?, &path, false, |file| index.encode(file))?;
        }
        Ok(())
    }
}
