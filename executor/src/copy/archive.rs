//! What ADD unpacks: tars, plain or compressed, told by their content.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
};

use cache::StoreOptions;
use image::{
    OverLimit,
    compress::decompress_limited,
    entry::Kind,
    layer::{Limits, Mode as ReadMode, Record, TarReader},
};

use super::{
    gather::Match,
    place::{Content, Placement},
};
use crate::{
    error::ExecutorError,
    session::full_message,
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
    options: &StoreOptions,
) -> Result<bool, ExecutorError> {
    if !is_archive(tree, &found.root_path, options)? {
        return Ok(false);
    }
    let name = lossy(&found.root_path);
    let folder = placement.make_archive_folder(dest)?;
    let plain = plain(tree.open(&found.root_path)?, &name, options)?;
    unpack_into(plain, &name, placement, &folder, spool, options.limits)?;
    Ok(true)
}

/// Undoes the compression of an archive.
pub(crate) fn plain<'a>(
    input: impl Read + Send + 'a,
    name: &str,
    options: &StoreOptions,
) -> Result<Box<dyn Read + Send + 'a>, ExecutorError> {
    let input = BufReader::with_capacity(1 << 16, input);
    let (_, plain) =
        decompress_limited(input, options.decompress).map_err(|error| bad(name, &error))?;
    Ok(plain)
}

/// Whether the file at `path` is a tar, plain or compressed.
pub(crate) fn is_archive(
    tree: &Tree,
    path: &[u8],
    options: &StoreOptions,
) -> Result<bool, ExecutorError> {
    let file = tree.open(path)?;
    let start = decompress_limited(BufReader::new(file), options.decompress)
        .and_then(|(_, plain)| starts_as_tar(plain));
    match start {
        Ok(is_tar) => Ok(is_tar),
        // Whether it is one cannot be seen then.
        Err(error) if OverLimit::find(&error).is_some() => Err(bad(&lossy(path), &error)),
        Err(_) => Ok(false),
    }
}

/// The error of an archive: that of a limit if that is behind it.
fn bad(name: &str, error: &(dyn std::error::Error + 'static)) -> ExecutorError {
    match OverLimit::find(error) {
        Some(source) => ExecutorError::ArchiveLimit { name: name.to_owned(), source },
        None => ExecutorError::BadArchive { message: format!("`{name}`: {}", full_message(error)) },
    }
}

/// Puts all entries of a tar below the real path `folder`.
pub(crate) fn unpack_into(
    plain: impl Read,
    name: &str,
    placement: &mut Placement<'_>,
    folder: &[u8],
    spool: &mut Spool,
    limits: Limits,
) -> Result<(), ExecutorError> {
    let mut reader = TarReader::with(plain, ReadMode::Archive, limits);
    loop {
        let record = reader.next().map_err(|error| bad(name, &error))?;
        let Some(record) = record else { return Ok(()) };
        let Record::Entry(mut entry) = record else { continue };
        // Attributes of other name spaces are for the kernel and its modules to set.
        entry.xattrs.retain(|name, _| name.starts_with(b"user.") || name == b"security.capability");
        let content = match entry.kind {
            Kind::File { .. } => {
                let (offset, len) = spool.keep(&mut reader).map_err(|error| bad(name, &error))?;
                Content::Spooled(offset, len)
            }
            _ => Content::Nothing,
        };
        placement.unpacked(folder, entry, content)?;
    }
}

/// Whether the first block is a tar header, by its checksum.
fn starts_as_tar(mut plain: impl Read) -> io::Result<bool> {
    let mut block = [0_u8; 512];
    plain.read_exact(&mut block)?;
    // An archive without entries is a file like any other to ADD, as it is to BuildKit.
    if block.iter().all(|it| *it == 0) {
        return Ok(false);
    }
    let written = block[148..156].iter().copied().filter(|it| it.is_ascii_digit());
    let written = written.fold(0_u64, |sum, digit| sum * 8 + u64::from(digit - b'0'));
    let blank = |(nth, byte): (usize, &u8)| if (148..156).contains(&nth) { b' ' } else { *byte };
    let unsigned: u64 = block.iter().enumerate().map(|it| u64::from(blank(it))).sum();
    let signed: i64 = block.iter().enumerate().map(|it| i64::from(blank(it).cast_signed())).sum();
    Ok(written == unsigned || i64::try_from(written) == Ok(signed))
}
