//! Reading what anyone has written, and refusing what different programs understand differently.
//!
//! A tar that one program reads as harmless and another as something else is an attack (TARmageddon was one), and no program that people use writes
//! such tars. So this reader is strict where readers differ: malformed numbers and PAX records, two long names for one entry,
//! sizes on entries without content and names that climb out of the root are errors, not guesses.
//!
//! Understood are the formats of 1979, POSIX and old GNU tar, PAX headers, numbers in base 256, and files with holes in all forms of GNU tar. The last ones
//! are refused in layers: no engine writes them there, and their content could not be read by its offset.

use std::io::{self, BufRead, BufReader, Read};

use super::{
    MAX_PATH,
    header::{self, BLOCK, checksums, kind, parse_number},
    interpret::{Header, interpret},
    pax::Pax,
    sparse::{OldParts, Piece, Sparse, Text},
};
use crate::{
    compress::DecompressLimits,
    entry::{Entry, Kind},
    error::{LayerError, LimitKind, OverLimit},
};

/// How much a tar may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Entries and whiteouts.
    pub max_entries: u64,
    /// Bytes of the whole tar.
    pub max_bytes: u64,
    /// Bytes of a path or the target of a link.
    pub max_path: usize,
    /// Bytes of the PAX records of one entry, of a long name, or of the list of parts of a file with holes.
    pub max_pax: usize,
    /// Bytes of holes for each byte of the tar, once there are more than [`free_holes`](Self::free_holes).
    pub max_ratio: u64,
    /// Bytes of holes for which the ratio is not looked at.
    pub free_holes: u64,
}

impl Default for Limits {
    /// A million entries, 256 GiB with holes counted, paths as Linux has them, 1 MiB of records, as Go has it, and the ratio of
    /// [`DecompressLimits`](crate::compress::DecompressLimits).
    fn default() -> Self {
        let DecompressLimits { max_bytes, max_ratio, free_bytes, .. } = DecompressLimits::default();
        Self {
            max_entries: 1_000_000,
            max_bytes,
            max_path: MAX_PATH,
            max_pax: 1 << 20,
            max_ratio,
            free_holes: free_bytes,
        }
    }
}

/// What the names in a tar mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// A layer: names that begin with `.wh.` are whiteouts.
    #[default]
    Layer,
    /// A tar that somebody made: such names are names like others.
    Archive,
}

/// One thing that a tar says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// There is this entry. For a file, the reader now gives its content.
    Entry(Entry),
    /// This path of lower layers is gone.
    Whiteout {
        /// The path that is gone.
        path: Vec<u8>,
    },
    /// All that lower layers have in this folder is gone.
    Opaque {
        /// The folder, which stays.
        path: Vec<u8>,
    },
}

/// Reads a tar from front to back.
///
/// After [`next`](Self::next) has returned a file, [`Read`] gives its content and then ends; what is left unread is skipped. Memory depends
/// on [`Limits`] only.
#[derive(Debug)]
pub struct TarReader<R> {
    input: Input<R>,
    mode: Mode,
    limits: Limits,
    global: Pax,
    n_entries: u64,
    /// Where the content of the current entry began.
    content_offset: u64,
    /// What is left of it, and how many zeros follow.
    content_left: u64,
    padding: usize,
    /// The current entry is a file with holes.
    sparse: Option<Sparse>,
    n_holes: u64,
    ended: bool,
}

/// The tar and how much of it was read.
#[derive(Debug)]
struct Input<R> {
    inner: BufReader<R>,
    offset: u64,
    max_bytes: u64,
}

impl<R: Read> TarReader<R> {
    /// Reads a layer within the default limits. `input` needs no buffer of its own.
    pub fn new(input: R) -> Self {
        Self::with(input, Mode::Layer, Limits::default())
    }

    /// Reads a tar of this kind within these limits.
    pub fn with(input: R, mode: Mode, limits: Limits) -> Self {
        let inner = BufReader::with_capacity(64 * 1024, input);
        Self {
            input: Input { inner, offset: 0, max_bytes: limits.max_bytes },
            mode,
            limits,
            global: Pax::default(),
            n_entries: 0,
            content_offset: 0,
            content_left: 0,
            padding: 0,
            sparse: None,
            n_holes: 0,
            ended: false,
        }
    }

    /// Returns the offset in the tar at which the content of the current entry begins.
    pub fn content_offset(&self) -> u64 {
        self.content_offset
    }

    /// Returns what comes next, or `None` at the end of the tar.
    ///
    /// # Errors
    ///
    /// [`LayerError`]. Nothing can be read after that.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator could not be read from between its items"
    )]
    pub fn next(&mut self) -> Result<Option<Record>, LayerError> {
        loop {
            self.skip_content()?;
            let Some(header) = self.next_header()? else { return Ok(None) };
            self.n_entries += 1;
            if self.n_entries > self.limits.max_entries {
                let (limit, value) = (LimitKind::Entries, self.limits.max_entries);
                return Err(OverLimit { limit, value }.into());
            }
            if header.is_sparse() && self.mode == Mode::Layer {
                return Err(LayerError::entry(
                    &header.path(),
                    "it has holes, which is not supported in a layer",
                ));
            }
            // What there is of the file, in the tar, but for a list of parts at its beginning.
            let (sparse, n_parts) = match header.is_sparse() {
                true => self.sparse(&header)?,
                false => (None, 0),
            };
            let entry =
                header.entry(self.mode, self.limits.max_path, sparse.as_ref().map(Sparse::size))?;
            self.content_offset = self.input.offset;
            if let Kind::File { size } = entry.kind {
                self.content_left =
                    if sparse.is_some() { header.n_stored() - n_parts } else { size };
                self.padding = header::padding(self.content_left);
            }
            self.sparse = sparse;
            match self.mode {
                Mode::Archive => return Ok(Some(Record::Entry(entry))),
                Mode::Layer => {
                    if let Some(record) = interpret(entry)? {
                        return Ok(Some(record));
                    }
                }
            }
        }
    }

    /// Reads what follows the end of the tar, so that a digest over the input sees all of it, and returns the input.
    ///
    /// # Errors
    ///
    /// [`LayerError`], also for what [`next`](Self::next) was not called for.
    pub fn finish(mut self) -> Result<R, LayerError> {
        while self.next()?.is_some() {}
        self.input.skip_rest()?;
        Ok(self.input.inner.into_inner())
    }

    /// Reads where the parts of a file with holes are, and how many bytes of its content that took.
    fn sparse(&mut self, header: &Header) -> Result<(Option<Sparse>, u64), LayerError> {
        let path = header.path();
        let error = |problem| LayerError::entry(&path, problem);
        // As much text as records may be, at no less than four bytes for each pair.
        let max_numbers = self.limits.max_pax / 2;
        if header.block[header::TYPE] == kind::GNU_SPARSE {
            let mut parts = OldParts::of_header(&header.block).map_err(error)?;
            while parts.goes_on {
                let block = self.content_block()?;
                parts.block(&block, max_numbers).map_err(error)?;
            }
            return Ok((Some(parts.file(header.n_stored()).map_err(error)?), 0));
        }
        let Some(records) = &header.pax.sparse else { return Ok((None, 0)) };
        if !records.in_content().map_err(error)? {
            return Ok((Some(records.file(header.n_stored()).map_err(error)?), 0));
        }
        let (mut text, mut n_bytes) = (Text::default(), 0);
        loop {
            n_bytes += BLOCK as u64;
            if n_bytes > header.n_stored() || n_bytes > self.limits.max_pax as u64 {
                return Err(error("the parts of a sparse file do not end"));
            }
            let block = self.content_block()?;
            if let Some(numbers) = text.block(&block, max_numbers).map_err(error)? {
                let sparse = records.with(&numbers, header.n_stored() - n_bytes).map_err(error)?;
                return Ok((Some(sparse), n_bytes));
            }
        }
    }

    /// Reads a block that belongs to an entry.
    fn content_block(&mut self) -> Result<[u8; BLOCK], LayerError> {
        let mut block = [0; BLOCK];
        match self.input.fill(&mut block)? {
            true => Ok(block),
            false => {
                Err(LayerError::Truncated { what: "a sparse file", offset: self.input.offset })
            }
        }
    }

    /// Counts zeros of a hole.
    fn hole(&mut self, n_bytes: u64) -> io::Result<()> {
        self.n_holes = self.n_holes.saturating_add(n_bytes);
        let Limits { max_bytes, max_ratio, free_holes, .. } = self.limits;
        let over = |limit, value| Err(OverLimit { limit, value }.into());
        if self.n_holes.saturating_add(self.input.offset) > max_bytes {
            return over(LimitKind::Bytes, max_bytes);
        }
        match self.n_holes > free_holes
            && self.n_holes > self.input.offset.saturating_mul(max_ratio)
        {
            true => over(LimitKind::Ratio, max_ratio),
            false => Ok(()),
        }
    }

    /// Skips what is left of the current entry.
    fn skip_content(&mut self) -> Result<(), LayerError> {
        self.input.skip(self.content_left, "a file")?;
        self.input.skip(self.padding as u64, "a file")?;
        (self.content_left, self.padding, self.sparse) = (0, 0, None);
        Ok(())
    }

    /// Reads the header of the next entry, and what stands before it for it.
    fn next_header(&mut self) -> Result<Option<Header>, LayerError> {
        let mut local: Option<Pax> = None;
        let mut long_name: Option<Vec<u8>> = None;
        let mut long_link: Option<Vec<u8>> = None;
        if self.ended {
            return Ok(None);
        }
        loop {
            let offset = self.input.offset;
            let error = |problem| LayerError::Header { offset, problem };
            let pending = local.is_some() || long_name.is_some() || long_link.is_some();
            let Some(block) = self.next_block()? else {
                self.ended = true;
                return if pending {
                    Err(error("a header for the next entry is the last one"))
                } else {
                    Ok(None)
                };
            };
            let size = parse_number(&block[header::SIZE])
                .and_then(|it| u64::try_from(it).ok())
                .ok_or_else(|| error("the size is no number"))?;
            match block[header::TYPE] {
                kind::PAX if local.is_some() || long_name.is_some() || long_link.is_some() => {
                    return Err(error("an entry has more than one extended header"));
                }
                kind::PAX => {
                    let mut pax = self.global.clone();
                    pax.parse(&self.meta(size)?).map_err(error)?;
                    local = Some(pax);
                }
                kind::PAX_GLOBAL if pending => {
                    return Err(error(
                        "a global header stands between an extended header and its entry",
                    ));
                }
                kind::PAX_GLOBAL => {
                    let records = self.meta(size)?;
                    self.global.parse(&records).map_err(error)?;
                    let global = &self.global;
                    if global.path.is_some() || global.linkpath.is_some() || global.size.is_some() {
                        return Err(error("a global header names a path or a size"));
                    }
                    // Go ignores such headers, all others obey them; two programs would make two trees of one layer.
                    if self.mode == Mode::Layer && !global.is_empty() {
                        return Err(error("a global header changes the entries of a layer"));
                    }
                }
                kind::GNU_NAME if long_name.is_some() || local.is_some() => {
                    return Err(error("an entry has more than one long name"));
                }
                kind::GNU_NAME => long_name = Some(self.gnu_text(size, offset)?),
                kind::GNU_LINK if long_link.is_some() || local.is_some() => {
                    return Err(error("an entry has more than one long link target"));
                }
                kind::GNU_LINK => long_link = Some(self.gnu_text(size, offset)?),
                _ => {
                    let mut pax = local.unwrap_or_else(|| self.global.clone());
                    pax.path = pax.path.or(long_name);
                    pax.linkpath = pax.linkpath.or(long_link);
                    return Ok(Some(Header { block, size, pax }));
                }
            }
        }
    }

    /// Reads a header block and verifies its checksum. `None` is the end: two zero blocks, or nothing at all.
    fn next_block(&mut self) -> Result<Option<[u8; BLOCK]>, LayerError> {
        let offset = self.input.offset;
        let mut block = [0; BLOCK];
        if !self.input.fill(&mut block)? {
            return Ok(None);
        }
        if block == [0; BLOCK] {
            return match self.input.fill(&mut block)? {
                true if block != [0; BLOCK] => Err(LayerError::Header {
                    offset,
                    problem: "a single zero block stands between entries",
                }),
                _ => Ok(None),
            };
        }
        let sum = parse_number(&block[header::CHECKSUM]);
        let (unsigned, signed) = checksums(&block);
        if sum.is_none() || (sum != i64::try_from(unsigned).ok() && sum != Some(signed)) {
            return Err(LayerError::Header { offset, problem: "the checksum is wrong" });
        }
        Ok(Some(block))
    }

    /// Reads the content of a header that is about other entries.
    fn meta(&mut self, size: u64) -> Result<Vec<u8>, LayerError> {
        let limit = self.limits.max_pax;
        let n_bytes = usize::try_from(size)
            .ok()
            .filter(|it| *it <= limit)
            .ok_or(OverLimit { limit: LimitKind::Records, value: limit as u64 })?;
        let mut out = vec![0; n_bytes + header::padding(size)];
        if !self.input.fill(&mut out)? && !out.is_empty() {
            return Err(LayerError::Truncated {
                what: "an extended header",
                offset: self.input.offset,
            });
        }
        out.truncate(n_bytes);
        Ok(out)
    }

    fn gnu_text(&mut self, size: u64, offset: u64) -> Result<Vec<u8>, LayerError> {
        let mut out = self.meta(size)?;
        while out.pop_if(|it| *it == 0).is_some() {}
        let problem = match &out[..] {
            [] => "a long name is empty",
            name if name.contains(&0) => "a long name has a NUL in it",
            _ => return Ok(out),
        };
        Err(LayerError::Header { offset, problem })
    }
}

impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n_wanted = match self.sparse.as_ref().map(Sparse::piece) {
            None => self.content_left,
            Some(None) => 0,
            Some(Some(Piece::Stored(n_bytes))) => n_bytes.min(self.content_left),
            Some(Some(Piece::Hole(n_bytes))) => {
                let n_here = buffer.len().min(usize::try_from(n_bytes).unwrap_or(usize::MAX));
                self.hole(n_here as u64)?;
                buffer[..n_here].fill(0);
                if let Some(sparse) = &mut self.sparse {
                    sparse.advance(n_here as u64);
                }
                return Ok(n_here);
            }
        };
        let max = usize::try_from(n_wanted).unwrap_or(usize::MAX).min(buffer.len());
        if max == 0 {
            return Ok(0);
        }
        let n_read = self.input.inner.read(&mut buffer[..max])?;
        if n_read == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "layer ends in the middle of a file",
            ));
        }
        self.content_left -= n_read as u64;
        self.input.offset += n_read as u64;
        if let Some(sparse) = &mut self.sparse {
            sparse.advance(n_read as u64);
        }
        if self.input.offset > self.input.max_bytes {
            let (limit, value) = (LimitKind::Bytes, self.input.max_bytes);
            return Err(OverLimit { limit, value }.into());
        }
        Ok(n_read)
    }
}

impl<R: Read> Input<R> {
    /// Fills the buffer, or returns `false` if nothing is left at all.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<bool, LayerError> {
        let mut n_filled = 0;
        while n_filled < buffer.len() {
            match self.inner.read(&mut buffer[n_filled..]) {
                Ok(0) if n_filled == 0 => return Ok(false),
                Ok(0) => {
                    return Err(LayerError::Truncated {
                        what: "a header",
                        offset: self.offset + n_filled as u64,
                    });
                }
                Ok(n_read) => n_filled += n_read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(LayerError::Read { source }),
            }
        }
        self.advance(n_filled)?;
        Ok(true)
    }

    fn skip(&mut self, mut n_bytes: u64, what: &'static str) -> Result<(), LayerError> {
        while n_bytes > 0 {
            let n_here = self.peek()?;
            if n_here == 0 {
                return Err(LayerError::Truncated { what, offset: self.offset });
            }
            let n_skipped = usize::try_from(n_bytes).unwrap_or(usize::MAX).min(n_here);
            self.inner.consume(n_skipped);
            self.advance(n_skipped)?;
            n_bytes -= n_skipped as u64;
        }
        Ok(())
    }

    fn skip_rest(&mut self) -> Result<(), LayerError> {
        loop {
            match self.peek()? {
                0 => return Ok(()),
                n_here => {
                    self.inner.consume(n_here);
                    self.advance(n_here)?;
                }
            }
        }
    }

    /// Returns how many bytes can be consumed at once, 0 at the end.
    fn peek(&mut self) -> Result<usize, LayerError> {
        loop {
            match self.inner.fill_buf() {
                Ok(bytes) => return Ok(bytes.len()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(LayerError::Read { source }),
            }
        }
    }

    fn advance(&mut self, n_bytes: usize) -> Result<(), LayerError> {
        self.offset += n_bytes as u64;
        match self.offset > self.max_bytes {
            true => Err(OverLimit { limit: LimitKind::Bytes, value: self.max_bytes }.into()),
            false => Ok(()),
        }
    }
}
