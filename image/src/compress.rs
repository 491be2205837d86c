//! Compressing layers, and undoing any compression that people use.
//!
//! Compression takes more time than all else in shipping an image, so it runs in blocks on many threads. What comes out depends on the input and the level
//! only: never on the number of threads, on how the input was cut into writes, or on the machine.
//!
//! # Format
//!
//! Gzip: one member for each MiB of input, made by libdeflate, with no time and no name in its header. All members together are a gzip file as RFC 1952
//! has it; block boundaries cost less than 1 % of size. A block that is noise, because it is compressed already, is stored.
//!
//! Zstandard: one frame made by libzstd's own threads, with a checksum.

mod blocks;
mod detect;

use std::io::{self, Write};

use blocks::Blocks;
pub use detect::{DecompressLimits, Detected, decompress, decompress_limited};

use crate::document::media_type;

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    Uncompressed,
    /// With gzip, which everyone can read.
    Gzip {
        /// 0 (stored) to 12 (smallest). Levels up to 9 are about as small as those of gzip, and several times faster.
        level: i32,
    },
    /// With Zstandard, which is smaller and faster, and which old engines cannot read.
    Zstd {
        /// 1 (fastest) to 22 (smallest).
        level: i32,
    },
}

impl Default for Compression {
    /// [`GZIP`](Self::GZIP).
    fn default() -> Self {
        Self::GZIP
    }
}

impl Compression {
    /// Gzip at a level that is about as small as `gzip -6`, and several times as fast.
    pub const GZIP: Self = Self::Gzip { level: 4 };
    /// Zstandard at its usual level.
    pub const ZSTD: Self = Self::Zstd { level: 3 };

    /// Returns the OCI media type of a layer that is compressed in this way.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Uncompressed => media_type::OCI_LAYER,
            Self::Gzip { .. } => media_type::OCI_LAYER_GZIP,
            Self::Zstd { .. } => media_type::OCI_LAYER_ZSTD,
        }
    }
}

/// Compresses what is written to it.
///
/// Memory is bounded: about 4 MiB for each thread, more for high levels of Zstandard. Threads are started only for input of more than one block.
pub struct Compressor<W: Write>(Engine<W>);

enum Engine<W: Write> {
    Uncompressed(W),
    Gzip(Box<Blocks<W>>),
    Zstd(zstd::Encoder<'static, W>),
}

impl<W: Write> Compressor<W> {
    /// Starts compressing on up to `n_threads` threads, at least one.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] if there is no such level.
    pub fn new(out: W, compression: Compression, n_threads: usize) -> io::Result<Self> {
        let no_such_level =
            || io::Error::new(io::ErrorKind::InvalidInput, "there is no such compression level");
        Ok(Self(match compression {
            Compression::Uncompressed => Engine::Uncompressed(out),
            Compression::Gzip { level } => {
                let level = libdeflater::CompressionLvl::new(level).map_err(|_| no_such_level())?;
                Engine::Gzip(Box::new(Blocks::new(out, level, n_threads.max(1))))
            }
            Compression::Zstd { level } if (1..=22).contains(&level) => {
                let mut encoder = zstd::Encoder::new(out, level)?;
                encoder.include_checksum(true)?;
                // Without threads, libzstd cuts blocks in other places; with any number of them, in the same.
                encoder.multithread(u32::try_from(n_threads.clamp(1, 64)).unwrap_or(1))?;
                Engine::Zstd(encoder)
            }
            Compression::Zstd { .. } => return Err(no_such_level()),
        }))
    }

    /// Writes what is left, and returns the output, which is not flushed. Without this, the output is cut short.
    ///
    /// # Errors
    ///
    /// Those of the output.
    pub fn finish(self) -> io::Result<W> {
        match self.0 {
            Engine::Uncompressed(out) => Ok(out),
            Engine::Gzip(blocks) => blocks.finish(),
            Engine::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Engine::Uncompressed(out) => out.write(bytes),
            Engine::Gzip(blocks) => blocks.write(bytes),
            Engine::Zstd(encoder) => encoder.write(bytes),
        }
    }

    /// Does nothing for what is compressed: where blocks end must not depend on flushes.
    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Engine::Uncompressed(out) => out.flush(),
            Engine::Gzip(_) | Engine::Zstd(_) => Ok(()),
        }
    }
}

impl<W: Write> std::fmt::Debug for Compressor<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}
