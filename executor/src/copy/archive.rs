//! What ADD unpacks: tars, plain or compressed, told by their content.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
};

use image::{
    compress::decompress,
    entry::Kind,
    layer::{Limits, Mode as ReadMode, Record, TarReader},
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
    if !is_archive(tree, &found.root_path)? {
        return Ok(false);
    }
    let name = lossy(&found.root_path);
    placement.make_folder(dest)?;
    let file = tree.open(&found.root_path)?;
    let failed =
        |source: io::Error| ExecutorError::BadArchive { message: format!("`{name}`: {source}") };
    let (_, plain) = decompress(BufReader::with_capacity(1 << 16, file)).map_err(failed)?;
    unpack_into(plain, &name, placement, dest, spool)?;
    Ok(true)
}

/// Whether the file at `path` is a tar, plain or compressed.
pub(crate) fn is_archive(tree: &Tree, path: &[u8]) -> Result<bool, ExecutorError> {
    let file = tree.open(path)?;
    Ok(match decompress(BufReader::new(file)) {
        Ok((_, plain)) => starts_as_tar(plain),
        Err(_) => false,
    })
}

/// Puts all entries of a tar below `dest`.
pub(crate) fn unpack_into(
    plain: impl Read,
    name: &str,
    placement: &mut Placement<'_>,
    dest: &[u8],
    spool: &mut Spool,
) -> Result<(), ExecutorError> {
    let mut reader = TarReader::with(plain, ReadMode::Archive, Limits::default());
    loop {
        let record = reader
            .next()
            .map_err(|error| ExecutorError::BadArchive { message: format!("`{name}`: {error}") })?;
        let Some(record) = record else { return Ok(()) };
        let Record::Entry(mut entry) = record else { continue };
        // Attributes of other name spaces are for the kernel and its modules to set.
        entry.xattrs.retain(|name, _| name.starts_with(b"user.") || name == b"security.capability");
        let content = match entry.kind {
            Kind::File { .. } => {
                let (offset, len) = spool.keep(&mut reader).map_err(|source| {
                    ExecutorError::BadArchive { message: format!("`{name}`: {source}") }
                })?;
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
