//! Reading what anyone has written, and refusing what different programs understand differently.
//!
//! A tar that one program reads as harmless and another as something else is an attack (TARmageddon was one), and no program that people use writes
//! such tars. So this reader is strict where readers differ: malformed numbers and PAX records, two long names for one entry,
//! sizes on entries without content and names that climb out of the root are errors, not guesses.
//!
//! Understood are the formats of 1979, POSIX and old GNU tar, PAX headers, and numbers in base 256. Sparse files are refused.

use std::io::{self, BufRead, BufReader, Read};

use super::{
    MAX_PATH,
    header::{self, BLOCK, checksums, kind, parse_number},
    interpret::{Header, interpret},
    pax::Pax,
};
use crate::{
    entry::{Entry, Kind},
    error::LayerError,
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
    /// Bytes of the PAX records of one entry, or of a long name.
    pub max_pax: usize,
}

impl Default for Limits {
    /// A million entries, 256 GiB, paths as Linux has them, and 1 MiB of records, as Go has it.
    fn default() -> Self {
        Self { max_entries: 1_000_000, max_bytes: 256 << 30, max_path: MAX_PATH, max_pax: 1 << 20 }
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
                return Err(LayerError::Limit { what: "entries", limit: self.limits.max_entries });
            }
            let entry = header.entry(self.limits.max_path)?;
            self.content_offset = self.input.offset;
            if let Kind::File { size } = entry.kind {
                self.content_left = size;
                self.padding = header::padding(size);
            }
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

    /// Skips what is left of the current entry.
    fn skip_content(&mut self) -> Result<(), LayerError> {
        self.input.skip(self.content_left, "a file")?;
        self.input.skip(self.padding as u64, "a file")?;
        (self.content_left, self.padding) = (0, 0);
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
        let n_bytes =
            usize::try_from(size).ok().filter(|it| *it <= limit).ok_or(LayerError::Limit {
                what: "bytes of extended header for one entry",
                limit: limit as u64,
            })?;
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
        let max = usize::try_from(self.content_left).unwrap_or(usize::MAX).min(buffer.len());
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
        if self.input.offset > self.input.max_bytes {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "layer is larger than allowed",
            ));
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
            true => Err(LayerError::Limit { what: "bytes", limit: self.max_bytes }),
            false => Ok(()),
        }
    }
}
