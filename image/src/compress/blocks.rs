//! Gzip in blocks, on many threads, written in order.
//!
//! Layers are full of what is compressed already: archives, pictures, packages. To look for matches in noise takes nearly as long as in
//! text, so blocks in which there is nothing to gain are stored as they are.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    thread,
};

use libdeflater::{CompressionLvl, Compressor};

/// How much input one gzip member holds. Digests of compressed layers depend on it.
const BLOCK: usize = 1 << 20;

/// The lowest level, which stores what it gets.
const STORED: CompressionLvl = CompressionLvl::fastest();
/// The lowest level that compresses.
const FAST: CompressionLvl = match CompressionLvl::new(1) {
    Ok(level) => level,
    Err(_) => CompressionLvl::fastest(),
};

/// How much of a block is looked at to tell whether it is noise: so many pieces of so many bytes.
const SAMPLE: (usize, usize) = (16, 4096);

/// How much of it is compressed to be sure: what is repeated shows only then, as far as a match can reach and as far again.
const TRIAL: usize = 64 * 1024;

/// The sum of the squares of how often each byte is in a piece is about n + n² / 256 for noise, 69,600, with a deviation of 360. For machine code and text it is
/// several times as much.
const NOISE: u32 = 73_000;

/// A block to compress, a buffer for the result, and where to send both.
struct Job {
    input: Vec<u8>,
    output: Vec<u8>,
    reply: Sender<Done>,
}

/// A compressed block, and the buffer of its input, to be used again.
struct Done {
    input: Vec<u8>,
    output: io::Result<Vec<u8>>,
}

/// Cuts its input into blocks and compresses each by itself.
pub(super) struct Blocks<W> {
    out: W,
    level: CompressionLvl,
    n_threads: usize,
    /// The block that is being filled.
    input: Vec<u8>,
    has_output: bool,
    /// Where the threads get their jobs from; `None` until there are threads.
    jobs: Option<Sender<Job>>,
    /// The results to come, in order.
    pending: VecDeque<Receiver<Done>>,
    /// Buffers to use again: for input and for output.
    spare: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<W: Write> Blocks<W> {
    pub(super) fn new(out: W, level: CompressionLvl, n_threads: usize) -> Self {
        let (pending, spare) = (VecDeque::new(), Vec::new());
        Self {
            out,
            level,
            n_threads,
            input: Vec::new(),
            has_output: false,
            jobs: None,
            pending,
            spare,
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full block waits for more input, so that a single one needs no thread.
        if self.input.len() == BLOCK && !bytes.is_empty() {
            self.start_block()?;
        }
        let n_taken = bytes.len().min(BLOCK - self.input.len());
        self.input.extend_from_slice(&bytes[..n_taken]);
        Ok(n_taken)
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        let is_last_of_many = !self.input.is_empty() && self.jobs.is_some();
        if is_last_of_many {
            self.start_block()?;
        }
        while !self.pending.is_empty() {
            self.write_oldest()?;
        }
        // Nothing at all is one empty member.
        if !self.input.is_empty() || !self.has_output {
            let output = Member::new(self.level).compress(&self.input, Vec::new())?;
            self.out.write_all(&output)?;
        }
        Ok(self.out)
    }

    /// Hands the current block to the threads.
    fn start_block(&mut self) -> io::Result<()> {
        if self.pending.len() >= self.n_threads * 2 {
            self.write_oldest()?;
        }
        let jobs = match &self.jobs {
            Some(jobs) => jobs,
            None => self.jobs.insert(start_threads(self.level, self.n_threads)?),
        };
        let (next_input, output) = self.spare.pop().unwrap_or_default();
        let input = std::mem::replace(&mut self.input, next_input);
        let (reply, receiver) = mpsc::channel();
        jobs.send(Job { input, output, reply }).map_err(|_| thread_is_gone())?;
        self.pending.push_back(receiver);
        Ok(())
    }

    fn write_oldest(&mut self) -> io::Result<()> {
        let Some(receiver) = self.pending.pop_front() else { return Ok(()) };
        let Done { mut input, output } = receiver.recv().map_err(|_| thread_is_gone())?;
        let output = output?;
        self.out.write_all(&output)?;
        self.has_output = true;
        input.clear();
        self.spare.push((input, output));
        Ok(())
    }
}

/// Starts threads that work until the sender is dropped.
fn start_threads(level: CompressionLvl, n_threads: usize) -> io::Result<Sender<Job>> {
    let (sender, receiver) = mpsc::channel::<Job>();
    let receiver = Arc::new(Mutex::new(receiver));
    for _ in 0..n_threads {
        let receiver = Arc::clone(&receiver);
        let work = move || {
            let mut member = Member::new(level);
            loop {
                let job = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok(Job { input, output, reply }) = job else { break };
                let output = member.compress(&input, output);
                // Nobody waits for it if the compressor was dropped.
                let _ = reply.send(Done { input, output });
            }
        };
        thread::Builder::new().name("gzip".to_owned()).spawn(work)?;
    }
    Ok(sender)
}

/// Makes gzip members of blocks.
struct Member {
    compressor: Compressor,
    /// What tells noise, and what stores it. Made when something looks like it.
    noise: Option<(Compressor, Compressor)>,
    level: CompressionLvl,
}

impl Member {
    fn new(level: CompressionLvl) -> Self {
        Self { compressor: Compressor::new(level), noise: None, level }
    }

    fn compress(&mut self, input: &[u8], mut output: Vec<u8>) -> io::Result<Vec<u8>> {
        let compressor = match self.level > FAST && is_noise(input) {
            true => {
                let (trial, stored) = self
                    .noise
                    .get_or_insert_with(|| (Compressor::new(FAST), Compressor::new(STORED)));
                match has_matches(trial, input, &mut output)? {
                    true => &mut self.compressor,
                    false => stored,
                }
            }
            false => &mut self.compressor,
        };
        output.resize(compressor.gzip_compress_bound(input.len()), 0);
        let n_bytes = compressor.gzip_compress(input, &mut output).map_err(io::Error::other)?;
        output.truncate(n_bytes);
        Ok(output)
    }
}

/// Tells whether a block looks like noise everywhere: whether in each piece of the sample all bytes are about equally frequent.
fn is_noise(block: &[u8]) -> bool {
    let (n_pieces, n_bytes) = SAMPLE;
    if block.len() < n_pieces * n_bytes {
        return false;
    }
    (0..n_pieces).all(|nth| {
        let at = (block.len() - n_bytes) * nth / (n_pieces - 1);
        let mut counts = [0_u32; 256];
        for byte in &block[at..at + n_bytes] {
            counts[usize::from(*byte)] += 1;
        }
        let squares: u32 = counts.iter().map(|it| it * it).sum();
        squares <= NOISE
    })
}

/// Tells whether the middle of a block becomes smaller by more than a hundredth.
fn has_matches(trial: &mut Compressor, block: &[u8], output: &mut Vec<u8>) -> io::Result<bool> {
    let n_bytes = TRIAL.min(block.len());
    let at = (block.len() - n_bytes) / 2;
    output.resize(trial.deflate_compress_bound(n_bytes), 0);
    let middle = &block[at..at + n_bytes];
    let n_left = trial.deflate_compress(middle, output).map_err(io::Error::other)?;
    Ok(n_left + n_bytes / 100 < n_bytes)
}

fn thread_is_gone() -> io::Error {
    io::Error::other("a compression thread has ended")
}
