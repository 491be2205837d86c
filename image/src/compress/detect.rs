//! Recognising and undoing compression.
//!
//! All formats are decompressed in this process: a decompressor found along `PATH` could be one that a container has put there.

use std::{
    io::{self, BufRead, Cursor, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use liblzma::{
    bufread::XzDecoder,
    stream::{CONCATENATED, Stream},
};

use crate::error::{LimitKind, OverLimit};

/// How some bytes are compressed, by the look of the first of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Detected {
    /// Not in any way known here.
    Plain,
    /// With gzip.
    Gzip,
    /// With bzip2.
    Bzip2,
    /// With xz.
    Xz,
    /// With Zstandard.
    Zstd,
}

impl Detected {
    /// The number of bytes that [`of`](Self::of) needs.
    pub const N_BYTES: usize = 6;

    /// Recognises a compression by its first bytes.
    ///
    /// # Examples
    ///
    /// ```
    /// # use image::compress::Detected;
    /// assert_eq!(Detected::of(b"\x1f\x8b\x08\0\0\0"), Detected::Gzip);
    /// ```
    pub fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A frame to be skipped, before the first one with content.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }
}

/// How far some bytes may expand, and what that may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecompressLimits {
    /// Bytes in all.
    pub max_bytes: u64,
    /// Bytes for each compressed byte, once there are more than [`free_bytes`](Self::free_bytes).
    pub max_ratio: u64,
    /// Bytes for which the ratio is not looked at.
    pub free_bytes: u64,
    /// Bytes of memory. How much is needed is said by whoever compressed it: up to 4 GiB with xz.
    pub max_memory: u64,
}

impl Default for DecompressLimits {
    /// 256 GiB; beyond the first GiB no more than 2000 times as much as was read, twice what gzip can make of zeros. Memory for three times
    /// the dictionary of `xz -9`, and for the largest window that Zstandard has without being asked for.
    fn default() -> Self {
        Self { max_bytes: 256 << 30, max_ratio: 2000, free_bytes: 1 << 30, max_memory: 192 << 20 }
    }
}

/// Recognises how `input` is compressed, and decompresses it, all members and frames of it, in no more memory than by default.
///
/// # Errors
///
/// Those of `input`. The reader reports what is malformed or cut short, and fails with an [`OverLimit`] where it would take too much memory.
pub fn decompress<'a>(
    input: impl BufRead + Send + 'a,
) -> io::Result<(Detected, Box<dyn Read + Send + 'a>)> {
    decompress_within(input, DecompressLimits::default().max_memory)
}

fn decompress_within<'a>(
    input: impl BufRead + Send + 'a,
    max_memory: u64,
) -> io::Result<(Detected, Box<dyn Read + Send + 'a>)> {
    let mut input = input;
    let mut start = [0; Detected::N_BYTES];
    let mut n_bytes = 0;
    while n_bytes < start.len() {
        match input.read(&mut start[n_bytes..]) {
            Ok(0) => break,
            Ok(n_read) => n_bytes += n_read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let detected = Detected::of(&start[..n_bytes]);
    let input = Cursor::new(start).take(n_bytes as u64).chain(input);
    let reader: Box<dyn Read + Send + 'a> = match detected {
        Detected::Plain => Box::new(input),
        Detected::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Detected::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
        Detected::Xz => {
            let stream = Stream::new_stream_decoder(max_memory, CONCATENATED)?;
            Box::new(InMemory { inner: XzDecoder::new_stream(input, stream), max_memory })
        }
        Detected::Zstd => {
            let mut inner = zstd::Decoder::with_buffer(input)?;
            // libzstd knows windows of 1 KiB to 2 GiB.
            inner.window_log_max(max_memory.max(1).ilog2().clamp(10, 31))?;
            Box::new(InMemory { inner, max_memory })
        }
    };
    Ok((detected, reader))
}

/// A decompressor that is told how much memory it may take. Says when that was too little.
struct InMemory<R> {
    inner: R,
    max_memory: u64,
}

impl<R: Read> Read for InMemory<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).map_err(|error| {
            let xz = error.get_ref().and_then(|it| it.downcast_ref::<liblzma::stream::Error>());
            // Of what libzstd says, only the words are left.
            let is_over = matches!(xz, Some(liblzma::stream::Error::MemLimit))
                || xz.is_none() && error.to_string().contains("too much memory");
            match is_over {
                true => OverLimit { limit: LimitKind::Memory, value: self.max_memory }.into(),
                false => error,
            }
        })
    }
}

/// Does what [`decompress`] does, and fails as soon as a limit is passed.
///
/// # Errors
///
/// Those of [`decompress`]. The reader fails with an [`OverLimit`] in an error of the kind [`io::ErrorKind::FileTooLarge`].
pub fn decompress_limited<'a>(
    input: impl BufRead + Send + 'a,
    limits: DecompressLimits,
) -> io::Result<(Detected, Box<dyn Read + Send + 'a>)> {
    let n_in = Arc::new(AtomicU64::new(0));
    let (detected, inner) =
        decompress_within(Counted { inner: input, n_bytes: Arc::clone(&n_in) }, limits.max_memory)?;
    Ok((detected, Box::new(Limited { inner, n_in, n_out: 0, limits })))
}

/// Counts the bytes that are taken from a reader.
struct Counted<R> {
    inner: R,
    n_bytes: Arc<AtomicU64>,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n_read = self.inner.read(buffer)?;
        self.n_bytes.fetch_add(n_read as u64, Relaxed);
        Ok(n_read)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, n_bytes: usize) {
        self.inner.consume(n_bytes);
        self.n_bytes.fetch_add(n_bytes as u64, Relaxed);
    }
}

/// Fails when more comes out than is allowed for what went in.
struct Limited<R> {
    inner: R,
    n_in: Arc<AtomicU64>,
    n_out: u64,
    limits: DecompressLimits,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n_read = self.inner.read(buffer)?;
        self.n_out += n_read as u64;
        let DecompressLimits { max_bytes, max_ratio, free_bytes, .. } = self.limits;
        let (limit, value) = if self.n_out > max_bytes {
            (LimitKind::Bytes, max_bytes)
        } else if self.n_out > free_bytes
            && self.n_out > self.n_in.load(Relaxed).saturating_mul(max_ratio)
        {
            (LimitKind::Ratio, max_ratio)
        } else {
            return Ok(n_read);
        };
        Err(OverLimit { limit, value }.into())
    }
}
