//! What a layer contains, kept beside it.
//!
//! With the index of each layer, paths can be looked up, content keys computed and layers written again without unpacking anything.

use std::{
    io::{self, Read, Write},
    sync::OnceLock,
};

use super::{Limits, Mode, Record, TarReader, TarWriter};
use crate::{
    DiffId,
    digest::{Hashing, HashingBeside},
    entry::{Entry, Kind},
    error::{LayerError, lossy},
    view::Order,
};

/// What a layer's tar contains, in the order of the tar.
#[derive(Debug, Clone)]
pub struct LayerIndex {
    /// The digest of the tar.
    pub diff_id: DiffId,
    /// The length of the tar in bytes.
    pub tar_size: u64,
    /// What the layer changes.
    pub changes: Vec<Change>,
    /// Made when it is first needed, see [`View`](crate::view::View).
    order: OnceLock<Order>,
}

/// One change of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An entry is added or replaced.
    Entry {
        /// The entry.
        entry: Entry,
        /// The BLAKE3 hash of a file's content; `None` for all that is no file.
        content: Option<[u8; 32]>,
        /// The offset of the content in the tar, of the next header for what has none.
        offset: u64,
    },
    /// The path is gone.
    Whiteout {
        /// The path.
        path: Vec<u8>,
    },
    /// All that lower layers have in the folder is gone.
    Opaque {
        /// The folder.
        path: Vec<u8>,
    },
}

impl Change {
    /// Returns the path that is changed.
    pub fn path(&self) -> &[u8] {
        match self {
            Self::Entry { entry, .. } => &entry.path,
            Self::Whiteout { path } | Self::Opaque { path } => path,
        }
    }
}

impl PartialEq for LayerIndex {
    fn eq(&self, other: &Self) -> bool {
        self.diff_id == other.diff_id
            && self.tar_size == other.tar_size
            && self.changes == other.changes
    }
}

impl Eq for LayerIndex {}

impl LayerIndex {
    /// Makes an index of its parts.
    pub fn new(diff_id: DiffId, tar_size: u64, changes: Vec<Change>) -> Self {
        Self { diff_id, tar_size, changes, order: OnceLock::new() }
    }

    /// Reads a whole layer and returns its index.
    ///
    /// # Errors
    ///
    /// [`LayerError`], if the tar is not a good one.
    pub fn of_tar(input: impl Read, limits: Limits) -> Result<Self, LayerError> {
        let (_, index) = IndexedTarReader::new(input, limits).finish()?;
        Ok(index)
    }

    /// Says whether nothing of lower layers is left under this one. An overlay does not know of such a mark on the root
    /// itself: there, this layer has to be the lowest.
    pub fn hides_all(&self) -> bool {
        self.order().hides_root(&self.changes)
    }

    /// Returns the changes sorted by path.
    pub(crate) fn order(&self) -> &Order {
        self.order.get_or_init(|| Order::of(&self.changes))
    }
}

/// Writes a layer and its index in one pass: each file is read once, for the tar, its digest, and the content's hash.
#[derive(Debug)]
pub struct IndexedTarWriter<W> {
    inner: TarWriter<HashingBeside<W>>,
    changes: Vec<Change>,
}

impl<W: Write> IndexedTarWriter<W> {
    /// Starts a layer.
    pub fn new(out: W) -> Self {
        Self { inner: TarWriter::new(HashingBeside::new(out)), changes: Vec::new() }
    }

    /// Makes room for so many entries at once: to make more and more of it takes twice the memory.
    pub fn expect(&mut self, n_entries: usize) {
        self.changes.reserve_exact(n_entries);
    }

    /// Returns the number of bytes written so far.
    pub fn offset(&self) -> u64 {
        self.inner.offset()
    }

    /// Writes one entry, see [`TarWriter::append`].
    ///
    /// # Errors
    ///
    /// Those of [`TarWriter::append`].
    pub fn append(&mut self, entry: Entry, data: &mut dyn Read) -> Result<(), LayerError> {
        let mut hasher = matches!(entry.kind, Kind::File { .. }).then(blake3::Hasher::new);
        let observe = |bytes: &[u8]| {
            if let Some(hasher) = &mut hasher {
                hasher.update(bytes);
            }
        };
        let offset = self.inner.append_observed(&entry, data, observe)?;
        let content = hasher.map(|it| it.finalize().into());
        self.changes.push(Change::Entry { entry, content, offset });
        Ok(())
    }

    /// Writes a file that was read before, with the BLAKE3 hash of its content.
    ///
    /// # Errors
    ///
    /// Those of [`TarWriter::append`].
    pub fn append_read(
        &mut self,
        entry: Entry,
        data: &[u8],
        content: [u8; 32],
    ) -> Result<(), LayerError> {
        let mut data = data;
        let offset = self.inner.append(&entry, &mut data)?;
        self.changes.push(Change::Entry { entry, content: Some(content), offset });
        Ok(())
    }

    /// The BLAKE3 of what was appended last, if that was a file.
    pub fn last_content(&self) -> Option<&[u8; 32]> {
        match self.changes.last() {
            Some(Change::Entry { content, .. }) => content.as_ref(),
            _ => None,
        }
    }

    /// Writes that a path is gone, see [`TarWriter::whiteout`].
    ///
    /// # Errors
    ///
    /// Those of [`TarWriter::whiteout`].
    pub fn whiteout(&mut self, path: &[u8]) -> Result<(), LayerError> {
        self.inner.whiteout(path)?;
        self.changes.push(Change::Whiteout { path: path.to_vec() });
        Ok(())
    }

    /// Writes that a folder starts afresh, see [`TarWriter::opaque`].
    ///
    /// # Errors
    ///
    /// Those of [`TarWriter::opaque`].
    pub fn opaque(&mut self, path: &[u8]) -> Result<(), LayerError> {
        self.inner.opaque(path)?;
        self.changes.push(Change::Opaque { path: path.to_vec() });
        Ok(())
    }

    /// Writes the end of the tar, and returns the output and the index.
    ///
    /// # Errors
    ///
    /// [`LayerError::Write`].
    pub fn finish(self) -> Result<(W, LayerIndex), LayerError> {
        let finished = self.inner.finish()?.finish();
        let (out, digest, tar_size) = finished.map_err(|source| LayerError::Write { source })?;
        Ok((out, LayerIndex::new(DiffId(digest), tar_size, self.changes)))
    }
}

/// Reads a layer and makes its index in one pass, while somebody unpacks it.
#[derive(Debug)]
pub struct IndexedTarReader<R> {
    inner: TarReader<Hashing<R>>,
    changes: Vec<Change>,
    /// The hasher of the current file.
    hasher: Option<blake3::Hasher>,
}

impl<R: Read> IndexedTarReader<R> {
    /// Starts reading a layer.
    pub fn new(input: R, limits: Limits) -> Self {
        let inner = TarReader::with(Hashing::new(input), Mode::Layer, limits);
        Self { inner, changes: Vec::new(), hasher: None }
    }

    /// Returns what comes next, see [`TarReader::next`]. For a file, [`Read`] gives its content.
    ///
    /// # Errors
    ///
    /// Those of [`TarReader::next`].
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator could not be read from between its items"
    )]
    pub fn next(&mut self) -> Result<Option<Record>, LayerError> {
        self.finish_content()?;
        let Some(record) = self.inner.next()? else { return Ok(None) };
        self.changes.push(match record.clone() {
            Record::Entry(entry) => {
                self.hasher = matches!(entry.kind, Kind::File { .. }).then(blake3::Hasher::new);
                Change::Entry { entry, content: None, offset: self.inner.content_offset() }
            }
            Record::Whiteout { path } => Change::Whiteout { path },
            Record::Opaque { path } => Change::Opaque { path },
        });
        Ok(Some(record))
    }

    /// Reads the rest, and returns the input and the index.
    ///
    /// # Errors
    ///
    /// Those of [`TarReader::next`].
    pub fn finish(mut self) -> Result<(R, LayerIndex), LayerError> {
        while self.next()?.is_some() {}
        let (input, digest, tar_size) = self.inner.finish()?.finish();
        Ok((input, LayerIndex::new(DiffId(digest), tar_size, self.changes)))
    }

    /// Reads what is left of the current file, so that its hash covers all of it.
    fn finish_content(&mut self) -> Result<(), LayerError> {
        if self.hasher.is_none() {
            return Ok(());
        }
        io::copy(self, &mut io::sink()).map_err(|source| LayerError::Read { source })?;
        let hash = self.hasher.take().map(|it| it.finalize().into());
        if let Some(Change::Entry { content, .. }) = self.changes.last_mut() {
            *content = hash;
        }
        Ok(())
    }
}

impl<R: Read> Read for IndexedTarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n_read = self.inner.read(buffer)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..n_read]);
        }
        Ok(n_read)
    }
}

/// Writes the tar of a layer again, from its index and the contents of its files.
///
/// `open` gets the path of each file that has a content. The bytes are those of the first time if [`TarWriter`] wrote them then; the caller
/// compares their digest with [`LayerIndex::diff_id`].
///
/// # Errors
///
/// - [`LayerError::Index`] if the tar differs from the first one already by its lengths.
/// - [`LayerError::Content`], [`LayerError::Size`], [`LayerError::Write`].
pub fn rewrite<R: Read, W: Write>(
    index: &LayerIndex,
    mut open: impl FnMut(&[u8]) -> io::Result<R>,
    out: W,
) -> Result<W, LayerError> {
    const DIFFERENT: LayerError = LayerError::Index { problem: "the tar was not written by kiln" };
    let mut writer = TarWriter::new(out);
    for change in &index.changes {
        match change {
            Change::Entry { entry, offset, .. } => {
                let found = match entry.kind {
                    Kind::File { size: 1.. } => {
                        let content =
                            |source| LayerError::Content { path: lossy(&entry.path), source };
                        writer.append(entry, &mut open(&entry.path).map_err(content)?)?
                    }
                    _ => writer.append(entry, &mut io::empty())?,
                };
                if found != *offset {
                    return Err(DIFFERENT);
                }
            }
            Change::Whiteout { path } => writer.whiteout(path)?,
            Change::Opaque { path } => writer.opaque(path)?,
        }
    }
    let n_bytes = writer.offset() + 2 * super::header::BLOCK as u64;
    let out = writer.finish()?;
    if n_bytes == index.tar_size { Ok(out) } else { Err(DIFFERENT) }
}
