//! Blobs: bytes named by their digest, in an OCI layout.
//!
//! A blob is flushed before it gets its name, so what has the name of a digest has that digest, also after a power cut.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::PathBuf,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use image::{Digest, digest::Hashing};

use crate::{
    error::{IoContext, StoreError},
    files,
    lease::Held,
    lock::Lock,
    store::Store,
};

/// A blob that is being written. Dropping it without [`commit`](Self::commit) throws it away, unless it is a resumable download.
pub struct StagedBlob {
    store: Store,
    path: PathBuf,
    writer: Option<Writer>,
    /// The lock of a resumable download, which is kept when dropped.
    download: Option<Lock>,
    write_back: WriteBack,
}

/// Sends a large blob to the disk while it is written, so that the flush at its end finds less to do.
#[derive(Default)]
struct WriteBack {
    n_bytes: u64,
    is_busy: Arc<AtomicBool>,
}

impl WriteBack {
    /// Begins after so many bytes.
    const PIECE: u64 = 8 << 20;

    fn wrote(&mut self, file: &File, n_bytes: usize) {
        self.n_bytes += n_bytes as u64;
        if self.n_bytes < Self::PIECE || self.is_busy.swap(true, Ordering::SeqCst) {
            return;
        }
        self.n_bytes = 0;
        let Ok(file) = file.try_clone() else { return };
        let is_busy = self.is_busy.clone();
        // It promises nothing: the flush at the end does.
        let work = move || {
            let _ = file.sync_data();
            is_busy.store(false, Ordering::SeqCst);
        };
        let _ = thread::Builder::new().name("write-back".to_owned()).spawn(work);
    }
}

/// How the digest of a blob becomes known.
enum Writer {
    Hashing(Hashing<File>),
    /// Whoever writes it computes it; this many bytes were written.
    Told(File, u64),
}

impl Store {
    /// Returns where the blob is, or would be.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path("oci/blobs/sha256").join(digest.hex())
    }

    /// Tells whether the blob is there.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the lease cannot be written.
    pub fn has_blob(&self, digest: &Digest) -> Result<bool, StoreError> {
        self.hold(Held::Blob(*digest.as_bytes()))?;
        Ok(self.blob_path(digest).exists())
    }

    /// Whether this process has written the blob, and hashed it while it did: it needs no check.
    pub fn has_written(&self, digest: &Digest) -> bool {
        self.inner.written.lock().unwrap_or_else(PoisonError::into_inner).contains(digest)
    }

    /// Returns the size of the blob in bytes if it is there.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the lease cannot be written.
    pub fn blob_size(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        self.hold(Held::Blob(*digest.as_bytes()))?;
        Ok(fs::metadata(self.blob_path(digest)).ok().map(|it| it.len()))
    }

    /// Opens a blob. Its bytes are not verified here: whoever passes them on hashes them.
    ///
    /// # Errors
    ///
    /// [`StoreError::BlobMissing`] if it is not there, [`StoreError::Io`] if it cannot be opened.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, StoreError> {
        self.hold(Held::Blob(*digest.as_bytes()))?;
        let path = self.blob_path(digest);
        match File::open(&path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                Err(StoreError::BlobMissing { digest: *digest })
            }
            result => result.at("open", path),
        }
    }

    /// Reads a whole blob of at most `limit` bytes and verifies it.
    ///
    /// # Errors
    ///
    /// - [`StoreError::BlobMissing`] if it is not there.
    /// - [`StoreError::TooLarge`] if it has more than `limit` bytes.
    /// - [`StoreError::DigestMismatch`] if the file is damaged.
    pub fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, StoreError> {
        self.hold(Held::Blob(*digest.as_bytes()))?;
        self.read_blob_unheld(digest, limit)
    }

    /// Reads a whole blob without writing it into the lease: for those who have stopped the leases, or hold a lock that the
    /// collector waits for.
    pub(crate) fn read_blob_unheld(
        &self,
        digest: &Digest,
        limit: u64,
    ) -> Result<Vec<u8>, StoreError> {
        let path = self.blob_path(digest);
        let bytes =
            files::read_small(&path, limit)?.ok_or(StoreError::BlobMissing { digest: *digest })?;
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(StoreError::DigestMismatch {
                what: format!("`{}`", path.display()),
                expected: *digest,
                found,
            });
        }
        Ok(bytes)
    }

    /// Stores bytes and returns their digest.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if they cannot be written.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        if self.blob_size(&digest)? == Some(bytes.len() as u64) {
            return Ok(digest);
        }
        let mut staged = self.stage_blob()?;
        staged.write_all(bytes).at("write", &staged.path)?;
        staged.commit(Some(&digest))?;
        Ok(digest)
    }

    /// Starts a new blob.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the file cannot be made.
    pub fn stage_blob(&self) -> Result<StagedBlob, StoreError> {
        let path = self.scratch()?;
        let file = files::create_new(&path, 0o644)?;
        Ok(StagedBlob {
            store: self.clone(),
            path,
            writer: Some(Writer::Hashing(Hashing::new(file))),
            download: None,
            write_back: WriteBack::default(),
        })
    }

    /// Starts a blob whose digest the caller computes, and gives to [`commit`](StagedBlob::commit).
    pub(crate) fn stage_told(&self) -> Result<StagedBlob, StoreError> {
        let path = self.scratch()?;
        let file = files::create_new(&path, 0o644)?;
        let writer = Some(Writer::Told(file, 0));
        Ok(StagedBlob {
            store: self.clone(),
            path,
            writer,
            download: None,
            write_back: WriteBack::default(),
        })
    }

    /// Starts or continues the download of a blob, after waiting for any other process that downloads the same.
    ///
    /// Look with [`has_blob`](Self::has_blob) afterwards: the other process may have completed it. What is written before a
    /// failure stays for the next attempt, which begins at [`n_bytes`](StagedBlob::n_bytes).
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the file cannot be made or read.
    pub fn resume_blob(&self, digest: &Digest) -> Result<StagedBlob, StoreError> {
        let lock = self.lock(&format!("blob-{}", digest.hex()))?;
        self.resume_with(digest, lock)
    }

    /// As [`resume_blob`](Self::resume_blob), and `None` while another process downloads the same.
    ///
    /// # Errors
    ///
    /// Those of [`resume_blob`](Self::resume_blob).
    pub fn try_resume_blob(&self, digest: &Digest) -> Result<Option<StagedBlob>, StoreError> {
        match self.try_lock(&format!("blob-{}", digest.hex()))? {
            Some(lock) => self.resume_with(digest, lock).map(Some),
            None => Ok(None),
        }
    }

    fn resume_with(&self, digest: &Digest, lock: Lock) -> Result<StagedBlob, StoreError> {
        let path = self.path("partial").join(digest.hex());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(&path);
        let mut reader = Hashing::new(file.at("open", &path)?);
        io::copy(&mut reader, &mut io::sink()).at("read", &path)?;
        let writer = Some(Writer::Hashing(reader));
        Ok(StagedBlob {
            store: self.clone(),
            path,
            writer,
            download: Some(lock),
            write_back: WriteBack::default(),
        })
    }
}

impl StagedBlob {
    /// Returns the number of bytes written so far, those of an earlier attempt included.
    pub fn n_bytes(&self) -> u64 {
        match &self.writer {
            Some(Writer::Hashing(writer)) => writer.n_bytes(),
            Some(Writer::Told(_, n_bytes)) => *n_bytes,
            None => 0,
        }
    }

    /// Throws away what was written so far and starts over.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the file cannot be emptied.
    pub fn restart(&mut self) -> Result<(), StoreError> {
        if let Some(writer) = self.writer.take() {
            let mut file = match writer {
                Writer::Hashing(writer) => writer.finish().0,
                Writer::Told(file, _) => file,
            };
            file.set_len(0).at("empty", &self.path)?;
            file.seek(SeekFrom::Start(0)).at("empty", &self.path)?;
            self.writer = Some(Writer::Hashing(Hashing::new(file)));
        }
        Ok(())
    }

    /// Publishes the blob and returns its digest and size.
    ///
    /// # Errors
    ///
    /// - [`StoreError::DigestMismatch`] if the bytes are not the `expected` ones; they are thrown away.
    /// - [`StoreError::Io`] if they cannot be written.
    pub fn commit(mut self, expected: Option<&Digest>) -> Result<(Digest, u64), StoreError> {
        let Some(writer) = self.writer.take() else {
            return Err(io::Error::from(io::ErrorKind::NotFound)).at("write", &self.path);
        };
        let (file, digest, n_bytes) = match (writer, expected) {
            (Writer::Hashing(writer), _) => writer.finish(),
            (Writer::Told(file, n_bytes), Some(digest)) => (file, *digest, n_bytes),
            (Writer::Told(..), None) => {
                return Err(io::Error::from(io::ErrorKind::InvalidInput)).at("write", &self.path);
            }
        };
        if let Some(expected) = expected
            && *expected != digest
        {
            let _ = fs::remove_file(&self.path);
            return Err(StoreError::DigestMismatch {
                what: "blob".to_owned(),
                expected: *expected,
                found: digest,
            });
        }
        let result =
            self.store.make_room(n_bytes).and_then(|_room| self.publish(&file, &digest, n_bytes));
        if result.is_err() {
            let _ = fs::remove_file(&self.path);
        }
        result.map(|()| (digest, n_bytes))
    }

    fn publish(&self, file: &File, digest: &Digest, n_bytes: u64) -> Result<(), StoreError> {
        let path = self.store.blob_path(digest);
        if self.store.blob_size(digest)? == Some(n_bytes) {
            return fs::remove_file(&self.path).at("remove", &self.path);
        }
        file.set_permissions(fs::Permissions::from_mode(0o644))
            .at("set the mode of", &self.path)?;
        if self.store.sync() {
            file.sync_all().at("flush", &self.path)?;
        }
        fs::rename(&self.path, &path).at("create", &path)?;
        if self.store.sync() {
            files::sync_parent(&path)?;
        }
        self.store.inner.written.lock().unwrap_or_else(PoisonError::into_inner).insert(*digest);
        Ok(())
    }
}

impl Write for StagedBlob {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.writer {
            Some(Writer::Hashing(writer)) => {
                let n_written = writer.write(bytes)?;
                if self.store.sync() {
                    self.write_back.wrote(writer.get_ref(), n_written);
                }
                Ok(n_written)
            }
            Some(Writer::Told(file, n_bytes)) => {
                let n_written = file.write(bytes)?;
                *n_bytes += n_written as u64;
                if self.store.sync() {
                    self.write_back.wrote(file, n_written);
                }
                Ok(n_written)
            }
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for StagedBlob {
    fn drop(&mut self) {
        if self.writer.is_some() && self.download.is_none() {
            let _ = fs::remove_file(&self.path);
        }
    }
}
