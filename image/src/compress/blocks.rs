//! Gzip in blocks, on many threads, written in order.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    thread,
};

use libdeflater::CompressionLvl;

/// How much input one gzip member holds. Digests of compressed layers depend on it.
const BLOCK: usize = 1 << 20;

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
            let output =
                compress(&mut libdeflater::Compressor::new(self.level), &self.input, Vec::new())?;
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
            let mut compressor = libdeflater::Compressor::new(level);
            loop {
                let job = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok(Job { input, output, reply }) = job else { break };
                let output = compress(&mut compressor, &input, output);
                // Nobody waits for it if the compressor was dropped.
                let _ = reply.send(Done { input, output });
            }
        };
        thread::Builder::new().name("gzip".to_owned()).spawn(work)?;
    }
    Ok(sender)
}

/// Makes one gzip member of a block.
fn compress(
    compressor: &mut libdeflater::Compressor,
    input: &[u8],
    mut output: Vec<u8>,
) -> io::Result<Vec<u8>> {
    output.resize(compressor.gzip_compress_bound(input.len()), 0);
    let n_bytes = compressor.gzip_compress(input, &mut output).map_err(io::Error::other)?;
    output.truncate(n_bytes);
    Ok(output)
}

fn thread_is_gone() -> io::Error {
    io::Error::other("a compression thread has ended")
}
