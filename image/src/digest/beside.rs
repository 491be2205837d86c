//! Hashing on a thread of its own: what is written goes on while its digest is computed.

use std::{
    fmt,
    io::{self, Read, Write},
    sync::mpsc::{self, Receiver, SyncSender},
    thread::{self, JoinHandle},
};

use sha2::{Digest as _, Sha256};

use super::Digest;

/// So many bytes are hashed before a thread is started: it costs as much as they do.
const START: u64 = 1 << 20;
/// So many pieces wait for the thread, at most.
const AHEAD: usize = 2;

/// Passes bytes through and computes their digest and number, on a thread of its own as soon as there are many.
///
/// Memory is bounded: a few pieces of the size in which they are written.
pub struct HashingBeside<W> {
    inner: W,
    n_bytes: u64,
    hasher: Hasher,
}

enum Hasher {
    Here(Sha256),
    /// The pieces go there, and their buffers come back to be used again.
    Beside {
        pieces: SyncSender<Vec<u8>>,
        spare: Receiver<Vec<u8>>,
        thread: JoinHandle<Sha256>,
    },
}

impl<W> HashingBeside<W> {
    /// Wraps a reader or a writer.
    pub fn new(inner: W) -> Self {
        Self { inner, n_bytes: 0, hasher: Hasher::Here(Sha256::new()) }
    }

    /// Returns the number of bytes that passed so far.
    pub fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// Returns the wrapped value, the digest, and the number of bytes that passed.
    ///
    /// # Errors
    ///
    /// The thread has failed.
    pub fn finish(self) -> io::Result<(W, Digest, u64)> {
        let hasher = match self.hasher {
            Hasher::Here(hasher) => hasher,
            Hasher::Beside { pieces, spare, thread } => {
                drop((pieces, spare));
                thread.join().map_err(|_| thread_is_gone())?
            }
        };
        Ok((self.inner, Digest::from_sha256(hasher.finalize().into()), self.n_bytes))
    }

    fn hash(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.hasher {
            Hasher::Here(hasher) => {
                hasher.update(bytes);
                if self.n_bytes >= START {
                    self.hasher = beside(std::mem::take(hasher));
                }
            }
            Hasher::Beside { pieces, spare, .. } => {
                let mut piece = spare.try_recv().unwrap_or_default();
                piece.clear();
                piece.extend_from_slice(bytes);
                pieces.send(piece).map_err(|_| thread_is_gone())?;
            }
        }
        Ok(())
    }
}

impl<W: Write> Write for HashingBeside<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.n_bytes += n as u64;
        self.hash(&bytes[..n])?;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for HashingBeside<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.n_bytes += n as u64;
        self.hash(&buffer[..n])?;
        Ok(n)
    }
}

impl<W> fmt::Debug for HashingBeside<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashingBeside").field("n_bytes", &self.n_bytes).finish_non_exhaustive()
    }
}

/// Goes on hashing on another thread; here, if there cannot be one.
fn beside(hasher: Sha256) -> Hasher {
    let (pieces, receiver) = mpsc::sync_channel::<Vec<u8>>(AHEAD);
    let (sender, spare) = mpsc::sync_channel(AHEAD + 2);
    let mut theirs = hasher.clone();
    let work = move || {
        for piece in receiver {
            theirs.update(&piece);
            // One too many is thrown away.
            let _ = sender.try_send(piece);
        }
        theirs
    };
    match thread::Builder::new().name("sha256".to_owned()).spawn(work) {
        Ok(thread) => Hasher::Beside { pieces, spare, thread },
        Err(_) => Hasher::Here(hasher),
    }
}

fn thread_is_gone() -> io::Error {
    io::Error::other("the thread that computes a digest has ended")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_all_bytes_however_they_were_cut() {
        let bytes: Vec<u8> = (0..5_000_001_u32).map(|it| (it % 251) as u8).collect();
        for piece in [1 << 20, 100_000, 4096] {
            for n_bytes in [0, 1, 1 << 20, (1 << 20) + 1, bytes.len()] {
                let mut out = HashingBeside::new(Vec::new());
                for it in bytes[..n_bytes].chunks(piece) {
                    out.write_all(it).expect("a vector takes all");
                }
                let (written, digest, n_written) = out.finish().expect("the thread is there");
                assert_eq!((written.len(), n_written), (n_bytes, n_bytes as u64));
                assert_eq!(digest, Digest::of(&bytes[..n_bytes]), "{n_bytes} by {piece}");
            }
        }
    }
}
