//! Files with holes, in the four forms in which GNU tar has written them.
//!
//! All say the same: how long the file is, and which parts of it stand in the tar; the rest is zeros. The oldest form has type `S` and the parts in
//! the header and in blocks behind it. The others are PAX: 0.0 repeats two records for each part, 0.1 has one record with all of them, and
//! 1.0 has them as text at the beginning of the content. Both of the latter keep the name of the file in a record.
//!
//! # Source
//!
//! GNU tar manual, "Storing Sparse Files"; the manual of libarchive, `tar(5)`. Go's `archive/tar`, with which BuildKit reads archives, reads all four.

use super::header::{self, BLOCK, parse_number};

/// Where in the header and in the blocks behind it the parts are, and the mark that another such block follows.
const IN_HEADER: (std::ops::Range<usize>, usize) = (386..482, 482);
const IN_BLOCK: (std::ops::Range<usize>, usize) = (0..504, 504);
const REAL_SIZE: std::ops::Range<usize> = 483..495;
/// One part: two numbers of twelve bytes.
const N_PART: usize = 24;

/// What PAX records say of a file with holes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Records {
    pub(super) name: Option<Vec<u8>>,
    major: Option<u64>,
    minor: Option<u64>,
    size: Option<u64>,
    n_parts: Option<u64>,
    /// Offsets and lengths in turn.
    numbers: Vec<u64>,
}

impl Records {
    /// Takes one record, whose key begins with `GNU.sparse.`.
    pub(super) fn apply(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        match key {
            b"GNU.sparse.name" => self.name = Some(value.to_vec()).filter(|it| !it.is_empty()),
            b"GNU.sparse.major" => self.major = Some(number(value)?),
            b"GNU.sparse.minor" => self.minor = Some(number(value)?),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.size = Some(number(value)?),
            b"GNU.sparse.numblocks" => self.n_parts = Some(number(value)?),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                let is_offset = key == b"GNU.sparse.offset";
                if is_offset != self.numbers.len().is_multiple_of(2) {
                    return Err("the parts of a sparse file are out of order");
                }
                self.numbers.push(number(value)?);
            }
            b"GNU.sparse.map" => {
                self.numbers = match value {
                    b"" => Vec::new(),
                    value => value.split(|it| *it == b',').map(number).collect::<Result<_, _>>()?,
                };
            }
            _ => return Err("a record of a sparse file is not known"),
        }
        Ok(())
    }

    /// Says whether the parts stand at the beginning of the content.
    pub(super) fn in_content(&self) -> Result<bool, &'static str> {
        match (self.major.unwrap_or(0), self.minor.unwrap_or(0)) {
            (0, 0 | 1) => Ok(false),
            (1, 0) => Ok(true),
            _ => Err("the form of a sparse file is not known"),
        }
    }

    /// Returns the file of form 0.0 or 0.1 whose content has `n_stored` bytes.
    pub(super) fn file(&self, n_stored: u64) -> Result<Sparse, &'static str> {
        if self.n_parts.is_some_and(|it| it.checked_mul(2) != Some(self.numbers.len() as u64)) {
            return Err("a sparse file has another number of parts than it says");
        }
        self.with(&self.numbers, n_stored)
    }

    /// Returns the file with these parts.
    pub(super) fn with(&self, numbers: &[u64], n_stored: u64) -> Result<Sparse, &'static str> {
        Sparse::new(numbers, self.size.ok_or("a sparse file does not say its size")?, n_stored)
    }
}

/// The numbers at the beginning of a content of form 1.0, read block by block.
#[derive(Debug, Default)]
pub(super) struct Text {
    current: Option<u64>,
    n_numbers: Option<usize>,
    numbers: Vec<u64>,
}

impl Text {
    /// Takes a block; returns the numbers if they are complete. What follows them in the last block is filling.
    pub(super) fn block(
        &mut self,
        block: &[u8; BLOCK],
        max_numbers: usize,
    ) -> Result<Option<Vec<u64>>, &'static str> {
        const MALFORMED: &str = "the parts of a sparse file are malformed";
        for byte in block {
            match (byte, self.current) {
                (b'0'..=b'9', current) => {
                    let value = current.unwrap_or(0).checked_mul(10).ok_or(MALFORMED)?;
                    self.current =
                        Some(value.checked_add(u64::from(byte - b'0')).ok_or(MALFORMED)?);
                }
                (b'\n', Some(value)) => {
                    self.current = None;
                    if self.n_numbers.is_none() {
                        let n_numbers =
                            usize::try_from(value).ok().and_then(|it| it.checked_mul(2));
                        let n_numbers = n_numbers.filter(|it| *it <= max_numbers);
                        self.n_numbers = Some(n_numbers.ok_or("a sparse file has too many parts")?);
                    } else {
                        self.numbers.push(value);
                    }
                    if self.n_numbers == Some(self.numbers.len()) {
                        return Ok(Some(std::mem::take(&mut self.numbers)));
                    }
                }
                _ => return Err(MALFORMED),
            }
        }
        Ok(None)
    }
}

/// A file with holes while it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sparse {
    /// Where each part begins in the file and how long it is; none is empty.
    parts: Vec<(u64, u64)>,
    size: u64,
    next: usize,
    position: u64,
}

/// What comes next in a file with holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// So many bytes of the tar.
    Stored(u64),
    /// So many zeros.
    Hole(u64),
}

impl Sparse {
    /// Checks that the parts follow each other within the file, and that the tar has all of them.
    fn new(numbers: &[u64], size: u64, n_stored: u64) -> Result<Self, &'static str> {
        let (pairs, []) = numbers.as_chunks::<2>() else {
            return Err("a part of a sparse file has no length");
        };
        let (mut end, mut sum) = (0, 0);
        let mut parts = Vec::with_capacity(pairs.len());
        for &[start, length] in pairs {
            let part_end = start.checked_add(length).filter(|it| *it <= size);
            let part_end = part_end.ok_or("a part of a sparse file lies beyond its end")?;
            if start < end {
                return Err("the parts of a sparse file are out of order");
            }
            (end, sum) = (part_end, sum + length);
            if length > 0 {
                parts.push((start, length));
            }
        }
        if sum != n_stored {
            return Err("the parts of a sparse file are not what the tar has of it");
        }
        Ok(Self { parts, size, next: 0, position: 0 })
    }

    /// The length of the file.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Returns what comes next; nothing at the end.
    pub(super) fn piece(&self) -> Option<Piece> {
        match self.parts.get(self.next) {
            Some((start, _)) if self.position < *start => Some(Piece::Hole(start - self.position)),
            Some((start, length)) => Some(Piece::Stored(start + length - self.position)),
            None if self.position < self.size => Some(Piece::Hole(self.size - self.position)),
            None => None,
        }
    }

    /// Notes that so many bytes of the piece were read.
    pub(super) fn advance(&mut self, n_bytes: u64) {
        self.position += n_bytes;
        if self.parts.get(self.next).is_some_and(|(start, n)| self.position >= start + n) {
            self.next += 1;
        }
    }
}

/// The parts in headers of the oldest form.
#[derive(Debug)]
pub(super) struct OldParts {
    numbers: Vec<u64>,
    size: u64,
    /// Another block with parts follows.
    pub(super) goes_on: bool,
}

impl OldParts {
    /// Reads those in the header itself.
    pub(super) fn of_header(block: &[u8; BLOCK]) -> Result<Self, &'static str> {
        if &block[header::MAGIC] != header::GNU {
            return Err("a sparse file has no header of GNU tar");
        }
        let size = parse_number(&block[REAL_SIZE]).and_then(|it| u64::try_from(it).ok());
        let size = size.ok_or("the size of a sparse file is no number")?;
        let mut parts = Self { numbers: Vec::new(), size, goes_on: false };
        parts.add(block, IN_HEADER)?;
        Ok(parts)
    }

    /// Reads those of a block behind the header.
    pub(super) fn block(
        &mut self,
        block: &[u8; BLOCK],
        max_numbers: usize,
    ) -> Result<(), &'static str> {
        self.add(block, IN_BLOCK)?;
        match self.numbers.len() > max_numbers {
            true => Err("a sparse file has too many parts"),
            false => Ok(()),
        }
    }

    fn add(
        &mut self,
        block: &[u8; BLOCK],
        (range, mark): (std::ops::Range<usize>, usize),
    ) -> Result<(), &'static str> {
        self.goes_on = block[mark] != 0;
        for part in block[range].chunks_exact(N_PART) {
            if part[0] == 0 {
                break;
            }
            for field in [&part[..N_PART / 2], &part[N_PART / 2..]] {
                let number = parse_number(field).and_then(|it| u64::try_from(it).ok());
                self.numbers.push(number.ok_or("a part of a sparse file is no number")?);
            }
        }
        Ok(())
    }

    /// Returns the file, of which the tar has `n_stored` bytes.
    pub(super) fn file(&self, n_stored: u64) -> Result<Sparse, &'static str> {
        Sparse::new(&self.numbers, self.size, n_stored)
    }
}

fn number(text: &[u8]) -> Result<u64, &'static str> {
    let digits = Some(text).filter(|it| !it.is_empty() && it.iter().all(u8::is_ascii_digit));
    let text = digits.and_then(|it| std::str::from_utf8(it).ok());
    text.and_then(|it| it.parse().ok()).ok_or("a record of a sparse file is no number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_and_parts_follow_each_other() {
        let mut sparse = Sparse::new(&[2, 3, 5, 0, 8, 1], 12, 4).expect("good parts");
        let mut pieces = Vec::new();
        while let Some(piece) = sparse.piece() {
            pieces.push(piece);
            match piece {
                Piece::Stored(n) | Piece::Hole(n) => sparse.advance(n),
            }
        }
        use Piece::{Hole, Stored};
        assert_eq!(pieces, [Hole(2), Stored(3), Hole(3), Stored(1), Hole(3)]);
        assert_eq!(Sparse::new(&[], 0, 0).expect("an empty file").piece(), None);
        for (numbers, size, n_stored) in [
            (&[0, 1, 0, 1][..], 9, 2),
            (&[4, 1, 2, 1], 9, 2),
            (&[8, 2], 9, 2),
            (&[u64::MAX, 2], 9, 2),
            (&[0, 2], 9, 1),
            (&[0, 2], 9, 3),
            (&[0], 9, 0),
        ] {
            assert!(Sparse::new(numbers, size, n_stored).is_err(), "{numbers:?}");
        }
    }

    #[test]
    fn text_may_break_at_any_place() {
        let mut text = b"86\n".to_vec();
        for n in 0..86_u64 {
            text.extend_from_slice(format!("{}\n{n}\n", n * 1000).as_bytes());
        }
        text.resize(text.len().next_multiple_of(BLOCK), 0);
        let mut reading = Text::default();
        let mut found = None;
        for block in text.as_chunks::<BLOCK>().0 {
            assert_eq!(found, None);
            found = reading.block(block, 1000).expect("good text");
        }
        assert_eq!(found.map(|it| it.len()), Some(172));
        let block = |text: &[u8]| {
            let mut block = [0; BLOCK];
            block[..text.len()].copy_from_slice(text);
            Text::default().block(&block, 10)
        };
        assert_eq!(block(b"0\n"), Ok(Some(vec![])));
        for bad in [&b"1\n\n"[..], b"x", b"1 2", b"6\n", b"99999999999999999999\n"] {
            assert!(block(bad).is_err(), "{bad:?}");
        }
    }
}
