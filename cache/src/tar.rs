//! Layers as tars: taken in, and given out.

use std::{
    fs::File,
    io::{self, BufReader, Read, Write},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use image::{
    DiffId, Digest,
    compress::decompress_limited,
    digest::Hashing,
    document::{Descriptor, media_type},
    error::LayerError,
    layer::{Change, LayerIndex, rewrite},
};
use sha2::{Digest as _, Sha256};

use crate::{
    below::open_in_tree,
    blob::StagedBlob,
    error::{IoContext, StoreError},
    layer::LayerRecord,
    lease::Held,
    store::{Store, guard},
};

/// So many pieces of a tar are made ahead.
const AHEAD: usize = 4;
/// So many bytes of a blob are read at once.
const READ_AHEAD: usize = 256 * 1024;

impl Store {
    /// Opens the tar of a layer: a stored one, a blob decompressed, or made again from its tree.
    ///
    /// The last read fails if the bytes were not those of the diff id.
    ///
    /// # Errors
    ///
    /// [`StoreError::LayerMissing`] if there is nothing to make it from, [`StoreError::Io`] if that cannot be opened.
    pub fn open_tar(&self, diff_id: &DiffId) -> Result<Box<dyn Read + Send>, StoreError> {
        let missing = || StoreError::LayerMissing { diff_id: *diff_id };
        let record = self.layer(diff_id)?.ok_or_else(missing)?;
        if let Some(blob) = self.proven_blob(&record)? {
            let name = self.blob_path(&blob.digest).display().to_string();
            let tar = self.decompressed(self.open_blob(&blob.digest)?, &name)?;
            return Ok(Box::new(Verified::new(tar, diff_id.0)));
        }
        let index = self.index(diff_id)?;
        let tree = File::open(self.tree_path(diff_id)).at("open", self.tree_path(diff_id))?;
        let (sender, receiver) = sync_channel(AHEAD);
        let thread = std::thread::Builder::new()
            .name("layer-tar".to_owned())
            .spawn(move || remake(&index, &tree, Pieces(sender)).map(|_| ()))
            .at("start a thread for", self.tree_path(diff_id))?;
        Ok(Box::new(Remade {
            receiver: Some(receiver),
            piece: Vec::new(),
            at: 0,
            thread: Some(thread),
        }))
    }

    /// Opens the tar of a layer if it is here as such, and calls `each` for every file that is in it, with its BLAKE3 and its offset.
    /// Nothing is checked: whoever reads a file there compares it with the hash.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if something of it is here and cannot be read.
    pub fn look_into_tar(
        &self,
        diff_id: &DiffId,
        mut each: impl FnMut([u8; 32], u64),
    ) -> Result<Option<File>, StoreError> {
        let path = self.blob_path(&diff_id.0);
        let tar = match File::open(&path) {
            Ok(tar) => tar,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(err).at("open", &path),
        };
        let Some(bytes) = self.index_bytes(diff_id)? else { return Ok(None) };
        let decoded = LayerIndex::decode_each(&bytes, |_, change| {
            if let Change::Entry { content: Some(content), offset, .. } = change {
                each(content, offset);
            }
        });
        Ok(decoded.is_ok_and(|(found, _)| found == *diff_id).then_some(tar))
    }

    /// Returns a blob of the layer that is here and holds it.
    fn proven_blob<'a>(
        &self,
        record: &'a LayerRecord,
    ) -> Result<Option<&'a Descriptor>, StoreError> {
        for blob in self.stored_blobs(record) {
            if self.proves(&record.diff_id, blob)? {
                return Ok(Some(blob));
            }
        }
        Ok(None)
    }

    /// Writes the tar of a layer, as [`open_tar`](Self::open_tar) gives it.
    ///
    /// # Errors
    ///
    /// Those of [`open_tar`](Self::open_tar), [`StoreError::Layer`] if the tar cannot be made, read or written, and
    /// [`StoreError::DigestMismatch`] if the bytes were not those of the diff id.
    pub fn write_tar(&self, diff_id: &DiffId, mut out: impl Write) -> Result<(), StoreError> {
        let missing = || StoreError::LayerMissing { diff_id: *diff_id };
        let record = self.layer(diff_id)?.ok_or_else(missing)?;
        if self.proven_blob(&record)?.is_some() {
            let failed = |source: io::Error| StoreError::Layer {
                what: format!("`{diff_id}`"),
                source: LayerError::Read { source },
            };
            return io::copy(&mut self.open_tar(diff_id)?, &mut out).map(|_| ()).map_err(failed);
        }
        let index = self.index(diff_id)?;
        let tree = File::open(self.tree_path(diff_id)).at("open", self.tree_path(diff_id))?;
        remake(&index, &tree, out).map(|_| ())
    }

    /// Stores a layer that kiln has just written as a tar.
    ///
    /// # Errors
    ///
    /// - [`StoreError::DigestMismatch`] if the blob is not the tar that the index is of.
    /// - [`StoreError::Io`] if it cannot be stored.
    pub fn put_tar(&self, tar: StagedBlob, index: &LayerIndex) -> Result<LayerRecord, StoreError> {
        self.hold(Held::Layer(*index.diff_id.0.as_bytes()))?;
        let (digest, size) = tar.commit(Some(&index.diff_id.0))?;
        self.put_index(index)?;
        let record = LayerRecord {
            diff_id: index.diff_id,
            tar_size: Some(index.tar_size),
            blobs: vec![descriptor(media_type::OCI_LAYER, digest, size)],
            can_be_remade: true,
            proven: Vec::new(),
        };
        self.put_layer(&record)?;
        Ok(record)
    }

    /// Takes a layer in from outside in one pass: stores the blob as it is, computes its digest and diff id, learns what is in it, and
    /// unpacks it on request.
    ///
    /// # Shapes and units
    ///
    /// - `input`: a tar, compressed or not, to its end.
    /// - `blob`: what the manifest says of it; without it the media type is guessed from the first bytes.
    /// - `expected`: the diff id that the image config says.
    ///
    /// # Errors
    ///
    /// - [`StoreError::DigestMismatch`] if the blob or the tar is not what was expected. Nothing is stored then.
    /// - [`StoreError::Layer`], [`StoreError::Entry`], [`StoreError::EntryIo`] if it is malformed, or cannot be unpacked here.
    pub fn import_layer(
        &self,
        input: impl Read + Send,
        blob: Option<&Descriptor>,
        expected: Option<&DiffId>,
        unpack: bool,
    ) -> Result<LayerRecord, StoreError> {
        let what = blob.map_or_else(|| "a layer".to_owned(), |it| format!("`{}`", it.digest));
        let failed = |source: io::Error| StoreError::Layer {
            what: what.clone(),
            source: LayerError::Read { source },
        };
        let staged = if unpack { Some(self.stage_tree()?) } else { None };
        let into = staged.as_ref().map(crate::tree::StagedTree::upper);

        let tee = Arc::new(Mutex::new(Tee { input, blob: self.stage_blob()?, start: Vec::new() }));
        let tar = self.decompressed(Shared(tee.clone()), &what)?;
        let index = self.read_tar(tar, into.as_deref(), &what)?;
        io::copy(&mut Shared(tee.clone()), &mut io::sink()).map_err(failed)?;
        // All clones of it went with the reader.
        let Some(tee) = Arc::into_inner(tee) else {
            return Err(failed(io::ErrorKind::ResourceBusy.into()));
        };
        let tee = tee.into_inner().unwrap_or_else(PoisonError::into_inner);

        if let Some(expected) = expected
            && *expected != index.diff_id
        {
            return Err(StoreError::DigestMismatch {
                what,
                expected: expected.0,
                found: index.diff_id.0,
            });
        }
        self.hold(Held::Layer(*index.diff_id.0.as_bytes()))?;
        let (digest, size) = tee.blob.commit(blob.map(|it| &it.digest))?;
        let blob =
            blob.cloned().unwrap_or_else(|| descriptor(guess_media_type(&tee.start), digest, size));
        let lock = self.tree_lock(&index.diff_id)?;
        self.put_index(&index)?;
        if let Some(staged) = &staged
            && !self.has_intact_tree(&index.diff_id)?
        {
            self.publish_tree(&staged.upper(), &index.diff_id)?;
        }
        drop(lock);
        let record = LayerRecord {
            diff_id: index.diff_id,
            tar_size: Some(index.tar_size),
            proven: vec![blob.digest],
            blobs: vec![blob],
            can_be_remade: false,
        };
        self.put_layer(&record)?;
        Ok(record)
    }
}

impl Store {
    /// Reads a blob as the tar that is in it, whatever it is compressed with.
    pub(crate) fn decompressed<'a>(
        &self,
        blob: impl Read + Send + 'a,
        what: &str,
    ) -> Result<Box<dyn Read + Send + 'a>, StoreError> {
        let input = BufReader::with_capacity(READ_AHEAD, blob);
        decompress_limited(input, self.inner.options.decompress).map(|(_, tar)| tar).map_err(
            |source| StoreError::Layer {
                what: what.to_owned(),
                source: LayerError::Read { source },
            },
        )
    }
}

/// Makes a descriptor without the optional parts.
pub(crate) fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
        urls: Vec::new(),
        annotations: Default::default(),
        platform: None,
        other: Default::default(),
    }
}

fn guess_media_type(start: &[u8]) -> &'static str {
    match start {
        [0x1f, 0x8b, ..] => media_type::OCI_LAYER_GZIP,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => media_type::OCI_LAYER_ZSTD,
        _ => media_type::OCI_LAYER,
    }
}

/// Writes the tar of a tree again and compares the digest.
fn remake<W: Write>(index: &LayerIndex, tree: &File, out: W) -> Result<W, StoreError> {
    let failed = |source| StoreError::Layer { what: format!("`{}`", index.diff_id), source };
    let out = rewrite(index, |path| open_in_tree(tree, path), Hashing::new(out)).map_err(failed)?;
    let (out, found, _) = out.finish();
    if found != index.diff_id.0 {
        let what = format!("the tar made again of layer `{}`", index.diff_id);
        return Err(StoreError::DigestMismatch { what, expected: index.diff_id.0, found });
    }
    Ok(out)
}

/// Reads through, writing what passes into a blob.
struct Tee<R> {
    input: R,
    blob: StagedBlob,
    start: Vec<u8>,
}

/// A reader with two owners: the one who reads a tar, and the one who needs the rest of the blob afterwards.
struct Shared<R>(Arc<Mutex<Tee<R>>>);

impl<R: Read> Read for Shared<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut tee = guard(&self.0);
        let tee = &mut *tee;
        let n_read = tee.input.read(buffer)?;
        tee.blob.write_all(&buffer[..n_read])?;
        let n_wanted = 4_usize.saturating_sub(tee.start.len()).min(n_read);
        tee.start.extend_from_slice(&buffer[..n_wanted]);
        Ok(n_read)
    }
}

/// Reads through, and fails at the end if the bytes do not have the digest they should have.
struct Verified<R> {
    input: R,
    expected: Digest,
    hasher: Option<Sha256>,
}

impl<R> Verified<R> {
    fn new(input: R, expected: Digest) -> Self {
        Self { input, expected, hasher: Some(Sha256::new()) }
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n_read = self.input.read(buffer)?;
        if n_read > 0 {
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&buffer[..n_read]);
            }
        } else if !buffer.is_empty()
            && let Some(hasher) = self.hasher.take()
        {
            let (found, expected) = (Digest::from_sha256(hasher.finalize().into()), self.expected);
            if found != expected {
                let mismatch =
                    StoreError::DigestMismatch { what: "layer".to_owned(), expected, found };
                return Err(io::Error::new(io::ErrorKind::InvalidData, mismatch));
            }
        }
        Ok(n_read)
    }
}

/// The writing end of a tar that is made by another thread.
struct Pieces(SyncSender<Vec<u8>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The reading end. The other thread stops when this is dropped.
struct Remade {
    receiver: Option<Receiver<Vec<u8>>>,
    piece: Vec<u8>,
    at: usize,
    thread: Option<JoinHandle<Result<(), StoreError>>>,
}

impl Read for Remade {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while self.at == self.piece.len() {
            match self.receiver.as_ref().map(Receiver::recv) {
                Some(Ok(piece)) => (self.piece, self.at) = (piece, 0),
                Some(Err(_)) | None => {
                    return match self.thread.take().map(JoinHandle::join) {
                        None | Some(Ok(Ok(()))) => Ok(0),
                        Some(Ok(Err(err))) => Err(io::Error::other(err)),
                        Some(Err(_)) => {
                            Err(io::Error::other("the thread that makes the tar has panicked"))
                        }
                    };
                }
            }
        }
        let n_bytes = buffer.len().min(self.piece.len() - self.at);
        buffer[..n_bytes].copy_from_slice(&self.piece[self.at..self.at + n_bytes]);
        self.at += n_bytes;
        Ok(n_bytes)
    }
}

impl Drop for Remade {
    fn drop(&mut self) {
        self.receiver = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
