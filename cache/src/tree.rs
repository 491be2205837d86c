//! Trees: layers unpacked, and what a RUN leaves behind.

use std::{
    fs,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use image::{
    DiffId,
    document::{Descriptor, media_type},
    entry::{Entry, Kind},
    layer::{Change, IndexedTarReader, LayerIndex, Record},
};

use rustix::fs::lgetxattr;

use crate::{
    below::open_in_tree,
    error::{IoContext, StoreError, show},
    files,
    layer::LayerRecord,
    owners,
    store::Store,
    tar::descriptor,
    unpack::Unpacker,
};

/// A tree in the making: two folders on the file system of the store, as overlay needs them. Thrown away unless committed.
#[derive(Debug)]
pub struct StagedTree {
    store: Store,
    folder: PathBuf,
}

impl Store {
    /// Starts a tree. Its root is 0755 and owned by the caller until [`set_root`](StagedTree::set_root) says otherwise.
    ///
    /// # Errors
    ///
    /// [`StoreError::OtherOwners`] if the trees of this store are somebody else's, [`StoreError::Io`] if the folders cannot be made.
    pub fn stage_tree(&self) -> Result<StagedTree, StoreError> {
        self.check_owners()?;
        let folder = self.scratch()?;
        files::ensure_dir(&folder, 0o700)?;
        let staged = StagedTree { store: self.clone(), folder };
        files::ensure_dir(&staged.upper(), 0o755)?;
        files::ensure_dir(&staged.work(), 0o755)?;
        Ok(staged)
    }

    /// Returns the folder with the layer unpacked, after unpacking it if it is not. Two processes never unpack the same layer.
    ///
    /// # Errors
    ///
    /// - [`StoreError::LayerMissing`] if there is nothing to unpack it from.
    /// - [`StoreError::DigestMismatch`] if the blob does not have the layer's diff id.
    /// - [`StoreError::Layer`], [`StoreError::Entry`] or [`StoreError::EntryIo`] if it is malformed, or cannot be unpacked here.
    pub fn ensure_tree(&self, diff_id: &DiffId) -> Result<PathBuf, StoreError> {
        if !self.has_tree(diff_id)? {
            let _lock = self.tree_lock(diff_id)?;
            if !self.has_intact_tree(diff_id)? {
                let staged = self.stage_tree()?;
                let index = self.read_layer(diff_id, Some(&staged.upper()))?;
                self.put_index(&index)?;
                let _room = self.make_room(index.tar_size)?;
                self.publish_tree(&staged.upper(), diff_id)?;
                self.note_size(&index)?;
            }
        }
        Ok(self.tree_path(diff_id))
    }

    /// Returns what is in the layer, after reading it if that is not known.
    ///
    /// # Errors
    ///
    /// Those of [`ensure_tree`](Self::ensure_tree).
    pub fn index(&self, diff_id: &DiffId) -> Result<std::sync::Arc<LayerIndex>, StoreError> {
        self.hold(crate::lease::Held::Layer(*diff_id.0.as_bytes()))?;
        if let Some(index) = self.stored_index(diff_id)? {
            return Ok(index);
        }
        let _lock = self.tree_lock(diff_id)?;
        if let Some(index) = self.stored_index(diff_id)? {
            return Ok(index);
        }
        // A damaged one is in the way: a tree that kiln packed counts for nothing without its index, and is made again.
        files::remove_file(&self.layer_file(diff_id, "index"))?;
        let index = self.read_layer(diff_id, None)?;
        self.put_index(&index)?;
        self.note_size(&index)?;
        Ok(self.remember_index(index))
    }

    /// Opens the content of a file of a layer: from its tree, or out of its stored tar, else after unpacking it. Reading its end
    /// fails if the bytes are not those that the index tells of.
    ///
    /// `change` is the place of the file in `index.changes`, as [`image::view::Node::change`] says it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Entry`] if that is no file, and those of [`ensure_tree`](Self::ensure_tree).
    pub fn open_content(
        &self,
        index: &LayerIndex,
        change: usize,
    ) -> Result<Box<dyn Read + Send>, StoreError> {
        let Some(Change::Entry {
            entry: Entry { path, kind: Kind::File { size }, .. },
            content,
            offset,
        }) = index.changes.get(change)
        else {
            let entry = index.changes.get(change).map_or_else(String::new, |it| show(it.path()));
            return Err(StoreError::Entry { entry, reason: "it is no file".to_owned() });
        };
        let diff_id = &index.diff_id;
        self.ensure_readable(diff_id)?;
        if !self.has_tree(diff_id)? {
            let mut tar = self.open_blob(&diff_id.0)?;
            tar.seek(SeekFrom::Start(*offset)).at("read", self.blob_path(&diff_id.0))?;
            return Ok(Box::new(Intact::new(tar.take(*size), *size, *content, show(path))));
        }
        let tree = self.ensure_tree(diff_id)?;
        let folder = fs::File::open(&tree).at("open", &tree)?;
        let file = open_in_tree(&folder, path).of("open", path)?;
        Ok(Box::new(Intact::new(file.take(*size), *size, *content, show(path))))
    }

    /// Makes sure that files of the layer can be read: from its tree, or out of its tar.
    ///
    /// Who cannot make a tree as overlay needs it makes the tar, because a tree is one that a RUN may stand on.
    ///
    /// # Errors
    ///
    /// Those of [`ensure_tree`](Self::ensure_tree).
    pub fn ensure_readable(&self, diff_id: &DiffId) -> Result<(), StoreError> {
        if self.has_tree(diff_id)? || self.has_blob(&diff_id.0)? {
            return Ok(());
        }
        if self.makes_trees() {
            return self.ensure_tree(diff_id).map(drop);
        }
        let mut blob = self.stage_blob()?;
        self.write_tar(diff_id, &mut blob)?;
        let (digest, size) = blob.commit(Some(&diff_id.0))?;
        let blob = descriptor(media_type::OCI_LAYER, digest, size);
        self.put_layer(&LayerRecord::of_blob(*diff_id, blob))
    }

    /// Unpacks a layer that has a blob once more, beside its tree.
    pub(crate) fn unpack_again(&self, diff_id: &DiffId) -> Result<StagedTree, StoreError> {
        let staged = self.stage_tree()?;
        self.read_layer(diff_id, Some(&staged.upper()))?;
        Ok(staged)
    }

    /// Reads a layer from one of its blobs, and unpacks it on the way. A blob that does not hold it is forgotten, and the
    /// next one tried.
    fn read_layer(&self, diff_id: &DiffId, into: Option<&Path>) -> Result<LayerIndex, StoreError> {
        let mut error = StoreError::LayerMissing { diff_id: *diff_id };
        let Some(record) = self.layer_record(diff_id)? else { return Err(error) };
        for (nth, blob) in self.stored_blobs(&record).into_iter().enumerate() {
            if let Some(folder) = into.filter(|_| nth > 0) {
                files::remove_tree(folder)?;
                files::ensure_dir(folder, 0o755)?;
            }
            match self.read_blob_of(diff_id, blob, into) {
                Ok(index) => {
                    self.note_proven(diff_id, blob)?;
                    return Ok(index);
                }
                Err(found) => {
                    if matches!(found, StoreError::DigestMismatch { .. }) {
                        self.forget_blob(diff_id, blob)?;
                    }
                    error = found;
                }
            }
        }
        Err(error)
    }

    fn read_blob_of(
        &self,
        diff_id: &DiffId,
        blob: &Descriptor,
        into: Option<&Path>,
    ) -> Result<LayerIndex, StoreError> {
        let path = self.blob_path(&blob.digest);
        let tar = self.decompressed(self.open_blob(&blob.digest)?, &path.display().to_string())?;
        let index = self.read_tar(tar, into, &format!("`{diff_id}`"))?;
        if index.diff_id != *diff_id {
            let what = format!("the layer in `{}`", path.display());
            return Err(StoreError::DigestMismatch {
                what,
                expected: diff_id.0,
                found: index.diff_id.0,
            });
        }
        Ok(index)
    }

    /// Reads a tar to its end, and unpacks it on the way.
    pub(crate) fn read_tar(
        &self,
        tar: impl Read,
        into: Option<&Path>,
        what: &str,
    ) -> Result<LayerIndex, StoreError> {
        let failed = |source| StoreError::Layer { what: what.to_owned(), source };
        let mut reader = IndexedTarReader::new(tar, self.inner.options.limits);
        if let Some(folder) = into {
            let mut unpacker = Unpacker::new(folder)?;
            while let Some(record) = reader.next().map_err(failed)? {
                match record {
                    Record::Entry(entry) => unpacker.entry(&entry, &mut reader)?,
                    Record::Whiteout { path } => unpacker.whiteout(&path)?,
                    Record::Opaque { path } => unpacker.opaque(&path)?,
                }
            }
            unpacker.finish()?;
        }
        let (_, index) = reader.finish().map_err(failed)?;
        Ok(index)
    }

    /// Notes the size of a layer whose record was made without looking into it.
    fn note_size(&self, index: &LayerIndex) -> Result<(), StoreError> {
        let tar_size = Some(index.tar_size);
        self.put_layer(&LayerRecord { tar_size, ..LayerRecord::of(index.diff_id) })
    }
}

/// Reads a file of a layer through, and fails instead of giving its last bytes if they are not what the index tells of.
struct Intact<R> {
    input: R,
    n_missing: u64,
    expected: Option<[u8; 32]>,
    hasher: blake3::Hasher,
    entry: String,
}

impl<R> Intact<R> {
    fn new(input: R, size: u64, expected: Option<[u8; 32]>, entry: String) -> Self {
        Self { input, n_missing: size, expected, hasher: blake3::Hasher::new(), entry }
    }
}

impl<R: Read> Read for Intact<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n_read = self.input.read(buffer)?;
        self.hasher.update(&buffer[..n_read]);
        self.n_missing = self.n_missing.saturating_sub(n_read as u64);
        let is_end = self.n_missing == 0 || (n_read == 0 && !buffer.is_empty());
        if is_end
            && let Some(expected) = self.expected.take()
            && *self.hasher.finalize().as_bytes() != expected
        {
            let damaged = StoreError::Content { entry: std::mem::take(&mut self.entry) };
            return Err(io::Error::new(io::ErrorKind::InvalidData, damaged));
        }
        Ok(n_read)
    }
}

impl StagedTree {
    /// Returns the folder that becomes the tree.
    pub fn upper(&self) -> PathBuf {
        self.folder.join("upper")
    }

    /// Returns the folder that overlay works in.
    pub fn work(&self) -> PathBuf {
        self.folder.join("work")
    }

    /// Gives the root of the tree owner and mode of `entry`: overlay shows those of its uppermost folder.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if they cannot be set.
    pub fn set_root(&self, entry: &Entry) -> Result<(), StoreError> {
        use std::os::unix::fs::PermissionsExt;
        let upper = self.upper();
        owners::give(&upper, entry.uid, entry.gid).at("set the owner of", &upper)?;
        fs::set_permissions(&upper, fs::Permissions::from_mode(entry.mode & 0o7777))
            .at("set the mode of", &upper)
    }

    /// Makes the upper folder the tree of the layer that was packed from it. It must not be mounted any more.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if it cannot be stored.
    pub fn commit(self, index: &LayerIndex) -> Result<LayerRecord, StoreError> {
        let store = &self.store;
        let record = LayerRecord {
            tar_size: Some(index.tar_size),
            can_be_remade: true,
            ..LayerRecord::of(index.diff_id)
        };
        let _lock = store.tree_lock(&index.diff_id)?;
        let _room = store.make_room(index.tar_size)?;
        store.hold(crate::lease::Held::Layer(*index.diff_id.0.as_bytes()))?;
        store.put_index(index)?;
        if !store.has_intact_tree(&index.diff_id)? {
            store.publish_tree(&self.upper(), &index.diff_id)?;
        }
        store.put_layer(&record)?;
        Ok(record)
    }
}

impl Drop for StagedTree {
    fn drop(&mut self) {
        let _ = files::remove_tree(&self.folder);
    }
}

/// Tells whether the root of a tree hides all that is below: of folders overlay goes by that mark, of the roots of layers it does not.
pub(crate) fn is_opaque(tree: &Path) -> bool {
    ["trusted.overlay.opaque", "user.overlay.opaque"].iter().any(|name| {
        let mut value = [0; 8];
        lgetxattr(tree, *name, value.as_mut_slice()).is_ok_and(|it| value[..it] == *b"y")
    })
}
