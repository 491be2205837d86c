//! What ADD unpacks: tars, plain or compressed, told by their content.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
};

use image::{
    compress::decompress,
    entry::Kind,
    layer::{Limits, Record, TarReader},
};

use super::{
    gather::Match,
    place::{Content, Placement},
};
use crate::{
    error::ExecutorError,
    tree::{Tree, lossy},
};

/// Keeps the data of unpacked files on disk until the layer is written.
pub(crate) struct Spool {
    file: Option<File>,
    len: u64,
}

impl Spool {
    pub(crate) fn new() -> Result<Self, ExecutorError> {
        Ok(Self { file: None, len: 0 })
    }

    /// Opens a part of what was kept.
    pub(crate) fn part(&mut self, offset: u64, len: u64) -> io::Result<impl Read + '_> {
        let file = self.file.as_mut().ok_or(io::ErrorKind::NotFound)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(file.take(len))
    }

    fn keep(&mut self, from: &mut impl Read) -> io::Result<(u64, u64)> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile()?),
        };
        file.seek(SeekFrom::Start(self.len))?;
        let n_bytes = io::copy(from, file)?;
        file.flush()?;
        let start = self.len;
        self.len += n_bytes;
        Ok((start, n_bytes))
    }
}

/// Unpacks `found` into `dest` if it is an archive; says whether it was.
pub(crate) fn unpack(
    tree: &Tree,
    found: &Match,
    placement: &mut Placement<'_>,
    dest: &[u8],
    spool: &mut Spool,
) -> Result<bool, ExecutorError> {
    let name = lossy(&found.root_path);
    let is_archive = {
        let file = tree.open(&found.root_path)?;
        match decompress(BufReader::new(file)) {
            Ok((_, plain)) => starts_as_tar(plain),
            Err(_) => false,
        }
    };
    if !is_archive {
        return Ok(false);
    }
    placement.make_folder(dest)?;
    let file = tree.open(&found.root_path)?;
    let failed = |source: io::Error| ExecutorError::BadArchive { message: format!("`{name}`: {source}") };
    let (_, plain) = decompress(BufReader::with_capacity(1 << 16, file)).map_err(failed)?;
    let mut reader = TarReader::lenient(plain, Limits::default());
    loop {
        let record = reader
            .next()
            .map_err(|error| ExecutorError::BadArchive { message: format!("`{name}`: {error}") })?;
        let Some(Record::Entry(mut entry)) = record else {
            if record.is_none() {
                return Ok(true);
            }
            continue;
        };
        // Only what tar itself keeps in the archive's own words is taken over; capabilities are part of that.
        entry.xattrs.retain(|name, _| name.starts_with(b"user.") || name == b"security.capability");
        let content = match entry.kind {
            Kind::File { .. } => {
                let (offset, len) = spool.keep(&mut reader).map_err(failed)?;
                Content::Spooled(offset, len)
            }
            _ => Content::Nothing,
        };
        placement.unpacked(dest, entry, content)?;
    }
}

/// Whether the first block is a tar header, by its checksum.
fn starts_as_tar(mut plain: impl Read) -> bool {
    let mut block = [0_u8; 512];
    if plain.read_exact(&mut block).is_err() {
        return false;
    }
    if block.iter().all(|it| *it == 0) {
        // An empty archive: at least the two blocks of its end.
        let mut second = [0_u8; 512];
        return plain.read_exact(&mut second).is_ok() && second.iter().all(|it| *it == 0);
    }
    let written = block[148..156].iter().copied().filter(|it| it.is_ascii_digit());
    let written = written.fold(0_u64, |sum, digit| sum * 8 + u64::from(digit - b'0'));
    let blank = |(nth, byte): (usize, &u8)| if (148..156).contains(&nth) { b' ' } else { *byte };
    let unsigned: u64 = block.iter().enumerate().map(|it| u64::from(blank(it))).sum();
    let signed: i64 = block.iter().enumerate().map(|it| i64::from(blank(it).cast_signed())).sum();
    written == unsigned || i64::try_from(written) == Ok(signed)
}
