//! The index of a layer as bytes.
//!
//! ```text
//! magic        "kiln-ix" and the version, 8 bytes
//! diff id      32 bytes
//! tar size     number
//! n changes    number
//! changes      kind (1 byte), path, and for an entry: mode, uid, gid, seconds (zigzag), nanoseconds, number of attributes, each a name and a
//!              value, offset, and what the kind has: size and hash (32 bytes), target, or major and minor number
//! checksum     the first 16 bytes of the BLAKE3 hash of all before
//! ```
//!
//! Numbers are LEB128, paths and values have their length before them. There is one encoding for each index. What is decoded is checked as if a
//! stranger had written it: memory is bounded by a fixed factor of the input, and paths are as clean as those of a [`TarReader`](super::TarReader).

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use super::{Change, LayerIndex, path_problem, target_problem};
use crate::{
    DiffId, Digest,
    entry::{Entry, Kind, Time},
    error::LayerError,
};

const MAGIC: &[u8; 8] = b"kiln-ix\x01";
const CHECKSUM_LEN: usize = 16;
/// So many bytes are written at once.
const PIECE: usize = 64 * 1024;
/// The shortest change: a kind and an empty path.
const MIN_CHANGE_LEN: usize = 2;

const FILE: u8 = 0;
const DIRECTORY: u8 = 1;
const SYMLINK: u8 = 2;
const HARDLINK: u8 = 3;
const FIFO: u8 = 4;
const CHAR: u8 = 5;
const BLOCK: u8 = 6;
const WHITEOUT: u8 = 7;
const OPAQUE: u8 = 8;

impl LayerIndex {
    /// Writes the index in the form that [`decode`](Self::decode) reads.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn encode(&self, mut out: impl Write) -> io::Result<()> {
        let mut hasher = blake3::Hasher::new();
        let mut bytes = Vec::with_capacity(PIECE + PIECE / 4);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(self.diff_id.0.as_bytes());
        put_number(&mut bytes, self.tar_size);
        put_number(&mut bytes, self.changes.len() as u64);
        for change in &self.changes {
            put_change(&mut bytes, change);
            if bytes.len() >= PIECE {
                hasher.update(&bytes);
                out.write_all(&bytes)?;
                bytes.clear();
            }
        }
        hasher.update(&bytes);
        let checksum = hasher.finalize();
        bytes.extend_from_slice(&checksum.as_bytes()[..CHECKSUM_LEN]);
        out.write_all(&bytes)
    }

    /// Reads an index.
    ///
    /// # Errors
    ///
    /// [`LayerError::Index`] if the bytes are damaged, of another version, or not what [`encode`](Self::encode) writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, LayerError> {
        let mut changes = Vec::new();
        let (diff_id, tar_size) = Self::decode_each(bytes, |n_changes, change| {
            if changes.capacity() == 0 {
                changes.reserve_exact(n_changes.min(1 << 16));
            }
            changes.push(change);
        })?;
        Ok(Self::new(diff_id, tar_size, changes))
    }

    /// Reads an index that need not be in memory: calls `each` with the number of changes and each of them, and returns the diff id and
    /// the length of the tar. What `each` got counts only if there is no error.
    ///
    /// # Errors
    ///
    /// Those of [`decode`](Self::decode).
    pub fn decode_each(
        bytes: &[u8],
        each: impl FnMut(usize, Change),
    ) -> Result<(DiffId, u64), LayerError> {
        let error = |problem| LayerError::Index { problem };
        let Some((body, checksum)) = bytes.split_last_chunk::<CHECKSUM_LEN>() else {
            return Err(error("it is too short"));
        };
        let Some(rest) = body.strip_prefix(MAGIC) else {
            return Err(error("it is of another version"));
        };
        if blake3::hash(body).as_bytes()[..CHECKSUM_LEN] != *checksum {
            return Err(error("the checksum is wrong"));
        }
        let mut input = Decoder { rest };
        input.index(each).ok_or_else(|| error("it is malformed"))
    }
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_change(out: &mut Vec<u8>, change: &Change) {
    let (entry, content, offset) = match change {
        Change::Entry { entry, content, offset } => (entry, content, *offset),
        Change::Whiteout { path } => {
            out.push(WHITEOUT);
            return put_bytes(out, path);
        }
        Change::Opaque { path } => {
            out.push(OPAQUE);
            return put_bytes(out, path);
        }
    };
    out.push(match entry.kind {
        Kind::File { .. } => FILE,
        Kind::Directory => DIRECTORY,
        Kind::Symlink { .. } => SYMLINK,
        Kind::Hardlink { .. } => HARDLINK,
        Kind::Fifo => FIFO,
        Kind::CharDevice { .. } => CHAR,
        Kind::BlockDevice { .. } => BLOCK,
    });
    put_bytes(out, &entry.path);
    for number in [entry.mode, entry.uid, entry.gid] {
        put_number(out, u64::from(number));
    }
    let secs = entry.mtime.secs;
    put_number(out, ((secs << 1) ^ (secs >> 63)).cast_unsigned());
    put_number(out, u64::from(entry.mtime.nanos));
    put_number(out, entry.xattrs.len() as u64);
    for (name, value) in &entry.xattrs {
        put_bytes(out, name);
        put_bytes(out, value);
    }
    put_number(out, offset);
    match &entry.kind {
        Kind::File { size } => {
            put_number(out, *size);
            out.extend_from_slice(&content.unwrap_or_default());
        }
        Kind::Symlink { target } | Kind::Hardlink { target } => put_bytes(out, target),
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
            put_number(out, u64::from(*major));
            put_number(out, u64::from(*minor));
        }
        Kind::Directory | Kind::Fifo => {}
    }
}

/// What is not read yet. Each method takes something off its front, or returns `None` if that is not there.
struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    fn index(&mut self, mut each: impl FnMut(usize, Change)) -> Option<(DiffId, u64)> {
        let diff_id = DiffId(Digest::from_sha256(*self.array()?));
        let tar_size = self.number()?;
        let n_changes = usize::try_from(self.number()?).ok()?;
        // No list is made longer than what is there can fill.
        if n_changes > self.rest.len() / MIN_CHANGE_LEN {
            return None;
        }
        for _ in 0..n_changes {
            each(n_changes, self.change()?);
        }
        self.rest.is_empty().then_some((diff_id, tar_size))
    }

    fn change(&mut self) -> Option<Change> {
        let [kind] = *self.array()?;
        let path = self.path()?;
        match kind {
            WHITEOUT => return (!path.is_empty()).then_some(Change::Whiteout { path }),
            OPAQUE => return Some(Change::Opaque { path }),
            _ => {}
        }
        let mode = self.small()?;
        let (uid, gid) = (self.small()?, self.small()?);
        let secs = self.number()?;
        let secs = (secs >> 1).cast_signed() ^ -(secs & 1).cast_signed();
        let mtime = Time { secs, nanos: self.small()? };
        if mode > 0o7777 || mtime.nanos >= 1_000_000_000 {
            return None;
        }
        let mut xattrs = BTreeMap::new();
        for _ in 0..self.number()? {
            let name = self.bytes()?.to_vec();
            // Sorted, as they were written.
            if xattrs.last_key_value().is_some_and(|(last, _)| *last >= name) {
                return None;
            }
            let value = self.bytes()?.to_vec();
            xattrs.insert(name, value);
        }
        let offset = self.number()?;
        let mut content = None;
        let kind = match kind {
            FILE => {
                let size = self.number()?;
                content = Some(*self.array()?);
                Kind::File { size }
            }
            DIRECTORY => Kind::Directory,
            SYMLINK => {
                let target = self.bytes()?.to_vec();
                if target_problem(&target).is_some() {
                    return None;
                }
                Kind::Symlink { target }
            }
            HARDLINK => Kind::Hardlink { target: self.path().filter(|it| !it.is_empty())? },
            FIFO => Kind::Fifo,
            CHAR => Kind::CharDevice { major: self.small()?, minor: self.small()? },
            BLOCK => Kind::BlockDevice { major: self.small()?, minor: self.small()? },
            _ => return None,
        };
        if path.is_empty() && kind != Kind::Directory {
            return None;
        }
        Some(Change::Entry {
            entry: Entry { path, kind, mode, uid, gid, mtime, xattrs },
            content,
            offset,
        })
    }

    fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (out, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(out)
    }

    fn number(&mut self) -> Option<u64> {
        let mut out = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = *self.array()?;
            let bits = u64::from(byte & 0x7f);
            out |= bits << shift;
            if byte < 0x80 {
                // No zeros in front, and nothing beyond 64 bits: one encoding for each number.
                let is_short = byte != 0 || shift == 0;
                return (is_short && bits << shift >> shift == bits).then_some(out);
            }
        }
        None
    }

    fn small(&mut self) -> Option<u32> {
        self.number()?.try_into().ok()
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let n_bytes = usize::try_from(self.number()?).ok()?;
        let (out, rest) = self.rest.split_at_checked(n_bytes)?;
        self.rest = rest;
        Some(out)
    }

    fn path(&mut self) -> Option<Vec<u8>> {
        let path = self.bytes()?;
        path_problem(path).is_none().then(|| path.to_vec())
    }
}
