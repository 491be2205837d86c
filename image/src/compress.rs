//! Compression of layers: gzip in blocks on several threads, zstd, and reading of all that others write.
//!
//! What is written does not depend on the number of threads: the input is cut into blocks of 1 MiB, each becomes a gzip
//! member of its own made from a fresh state, and they are written in order. Readers see one stream, as with `cat a.gz b.gz`.
//!
//! # Invariants
//!
//! - Memory does not grow with the input: at most two blocks per thread are under way.
//! - Everything is done in this process. No program is ever started.

use std::{
    collections::VecDeque,
    io::{self, BufRead, Read, Write},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use flate2::bufread::MultiGzDecoder;
use libdeflater::{CompressionLvl, Compressor as Deflater};

/// The length of a block in bytes.
const BLOCK: usize = 1 << 20;

/// How bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Uncompressed,
    /// gzip.
    Gzip {
        /// 1 is fast, 12 is small; see [`Compression::GZIP`].
        level: i32,
    },
    /// Zstandard.
    Zstd {
        /// 1 is fast, 22 is small; see [`Compression::ZSTD`].
        level: i32,
    },
}

impl Compression {
    /// gzip at a level that is about as small as `gzip -6` and several times as fast.
    pub const GZIP: Self = Self::Gzip { level: 4 };
    /// Zstandard at its usual level.
    pub const ZSTD: Self = Self::Zstd { level: 3 };
}

/// Compresses what is written to it.
pub struct Compressor<W: Write>(State<W>);

enum State<W: Write> {
    Plain(W),
    Gzip(Box<Blocks<W>>),
    Zstd(zstd::Encoder<'static, W>),
}

impl<W: Write> Compressor<W> {
    /// Makes a compressor that writes to `out` and uses up to `n_threads` threads.
    ///
    /// # Errors
    ///
    /// If a level is out of range, or threads cannot be had.
    pub fn new(out: W, compression: Compression, n_threads: usize) -> io::Result<Self> {
        Ok(Self(match compression {
            Compression::Uncompressed => State::Plain(out),
            Compression::Gzip { level } => State::Gzip(Box::new(Blocks::new(out, level, n_threads)?)),
            Compression::Zstd { level } => {
                let mut encoder = zstd::Encoder::new(out, level)?;
                // Always with at least one worker: without any the bytes differ.
                encoder.multithread(u32::try_from(n_threads.max(1)).unwrap_or(1))?;
                encoder.include_checksum(true)?;
                State::Zstd(encoder)
            }
        }))
    }

    /// Writes what is left and returns the writer below.
    ///
    /// # Errors
    ///
    /// If that fails.
    pub fn finish(self) -> io::Result<W> {
        match self.0 {
            State::Plain(out) => Ok(out),
            State::Gzip(blocks) => blocks.finish(),
            State::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            State::Plain(out) => out.write(bytes),
            State::Gzip(blocks) => blocks.write(bytes),
            State::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        // A flush in the middle would change the bytes; everything is written by `finish`.
        Ok(())
    }
}

type Answer = io::Result<(Vec<u8>, Vec<u8>)>;
type Job = (Vec<u8>, Vec<u8>, SyncSender<Answer>);

/// gzip members made side by side and written in order.
struct Blocks<W> {
    out: W,
    level: CompressionLvl,
    pending: Vec<u8>,
    /// Buffers to be used again.
    spare: Vec<Vec<u8>>,
    under_way: VecDeque<Receiver<Answer>>,
    n_threads: usize,
    jobs: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
    has_written: bool,
}

impl<W: Write> Blocks<W> {
    fn new(out: W, level: i32, n_threads: usize) -> io::Result<Self> {
        let level = CompressionLvl::new(level)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "gzip levels are 0 to 12"))?;
        Ok(Self {
            out,
            level,
            pending: Vec::new(),
            spare: Vec::new(),
            under_way: VecDeque::new(),
            n_threads: n_threads.clamp(1, 64),
            jobs: None,
            threads: Vec::new(),
            has_written: false,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.pending.capacity() == 0 {
            self.pending = self.spare.pop().unwrap_or_default();
            self.pending.clear();
            self.pending.reserve_exact(BLOCK);
        }
        let n_taken = bytes.len().min(BLOCK - self.pending.len());
        self.pending.extend_from_slice(&bytes[..n_taken]);
        if self.pending.len() == BLOCK {
            self.submit()?;
        }
        Ok(n_taken)
    }

    /// Hands the pending block to a thread; waits for the oldest one if enough are under way.
    fn submit(&mut self) -> io::Result<()> {
        let jobs = match &self.jobs {
            Some(jobs) => jobs.clone(),
            None => self.start()?,
        };
        while self.under_way.len() >= self.n_threads * 2 {
            self.write_oldest()?;
        }
        let (sender, answer) = sync_channel(1);
        let input = std::mem::take(&mut self.pending);
        let output = self.spare.pop().unwrap_or_default();
        jobs.send((input, output, sender)).map_err(|_| stopped())?;
        self.under_way.push_back(answer);
        Ok(())
    }

    fn start(&mut self) -> io::Result<SyncSender<Job>> {
        let (jobs, queue) = sync_channel::<Job>(self.n_threads);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..self.n_threads {
            let (queue, level) = (queue.clone(), self.level);
            let work = move || {
                loop {
                    let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((input, output, sender)) = job else { return };
                    let answer = member(&input, output, level).map(|output| (input, output));
                    // Nobody waits for it any more if the compressor was dropped.
                    let _ = sender.send(answer);
                }
            };
            self.threads.push(std::thread::Builder::new().name("gzip".to_owned()).spawn(work)?);
        }
        self.jobs = Some(jobs.clone());
        Ok(jobs)
    }

    fn write_oldest(&mut self) -> io::Result<()> {
        let Some(answer) = self.under_way.pop_front() else { return Ok(()) };
        let (input, output) = answer.recv().map_err(|_| stopped())??;
        self.out.write_all(&output)?;
        self.has_written = true;
        self.spare.extend([input, output]);
        Ok(())
    }

    fn finish(mut self) -> io::Result<W> {
        while !self.under_way.is_empty() {
            self.write_oldest()?;
        }
        // Even nothing is a gzip member, so that the result is a gzip stream.
        if !self.pending.is_empty() || !self.has_written {
            let output = member(&self.pending, Vec::new(), self.level)?;
            self.out.write_all(&output)?;
        }
        drop(self.jobs.take());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        Ok(self.out)
    }
}

fn stopped() -> io::Error {
    io::Error::other("a compressing thread has stopped")
}

fn member(input: &[u8], mut output: Vec<u8>, level: CompressionLvl) -> io::Result<Vec<u8>> {
    let mut deflater = Deflater::new(level);
    output.resize(deflater.gzip_compress_bound(input.len()), 0);
    let n_bytes = deflater
        .gzip_compress(input, &mut output)
        .map_err(|error| io::Error::other(format!("cannot compress: {error:?}")))?;
    output.truncate(n_bytes);
    Ok(output)
}

/// What a stream turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detected {
    /// Not compressed, as far as can be told.
    Plain,
    /// gzip.
    Gzip,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
    /// Zstandard.
    Zstd,
}

/// Tells by the first bytes how `input` is compressed, and returns a reader of what is in it.
///
/// # Errors
///
/// If the first bytes cannot be read, or a decoder cannot be made.
pub fn decompress<'a, R: BufRead + Send + 'a>(mut input: R) -> io::Result<(Detected, Box<dyn Read + Send + 'a>)> {
    let mut head = Vec::with_capacity(6);
    while head.len() < 6 {
        let available = input.fill_buf()?;
        if available.is_empty() {
            break;
        }
        let n_taken = available.len().min(6 - head.len());
        head.extend_from_slice(&available[..n_taken]);
        input.consume(n_taken);
    }
    let detected = match head.as_slice() {
        [0x1f, 0x8b, 8, ..] => Detected::Gzip,
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Detected::Bzip2,
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Detected::Xz,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Detected::Zstd,
        // A skippable frame of zstd.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Detected::Zstd,
        _ => Detected::Plain,
    };
    let input = io::Cursor::new(head).chain(input);
    let reader: Box<dyn Read + Send + 'a> = match detected {
        Detected::Plain => Box::new(input),
        Detected::Gzip => Box::new(MultiGzDecoder::new(input)),
        Detected::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
        Detected::Xz => Box::new(lzma_rust2::XzReader::new(input, true)),
        Detected::Zstd => Box::new(zstd::Decoder::with_buffer(input)?),
    };
    Ok((detected, reader))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(n_bytes: usize) -> Vec<u8> {
        let mut seed = 7_u32;
        (0..n_bytes)
            .map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 28) as u8
            })
            .collect()
    }

    fn compressed(bytes: &[u8], compression: Compression, n_threads: usize) -> Vec<u8> {
        let mut compressor = Compressor::new(Vec::new(), compression, n_threads).expect("a compressor");
        for part in bytes.chunks(70_001) {
            compressor.write_all(part).expect("written");
        }
        compressor.finish().expect("finished")
    }

    #[test]
    fn what_is_written_can_be_read_and_does_not_depend_on_threads() {
        for n_bytes in [0, 1, BLOCK, 3 * BLOCK + 17] {
            let bytes = sample(n_bytes);
            for compression in [Compression::GZIP, Compression::ZSTD, Compression::Uncompressed] {
                let one = compressed(&bytes, compression, 1);
                assert_eq!(one, compressed(&bytes, compression, 5), "{compression:?} {n_bytes}");
                let mut back = Vec::new();
                let (_, mut reader) = decompress(one.as_slice()).expect("a reader");
                reader.read_to_end(&mut back).expect("read");
                assert!(back == bytes, "{compression:?} {n_bytes}");
            }
        }
    }

    #[test]
    fn damage_is_an_error() {
        let bytes = sample(5000);
        for compression in [Compression::GZIP, Compression::ZSTD] {
            let mut whole = compressed(&bytes, compression, 1);
            whole.truncate(whole.len() - 3);
            let (_, mut reader) = decompress(whole.as_slice()).expect("a reader");
            assert!(reader.read_to_end(&mut Vec::new()).is_err(), "{compression:?}");
        }
    }
}
