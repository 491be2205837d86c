//! The one way in which kiln writes a layer.
//!
//! # Format
//!
//! - A POSIX `ustar` header for each entry, the content, zeros up to a whole block; two zero blocks at the end.
//! - Names have no leading slash, folders have a trailing one, the root is `./`. Owner names are empty.
//! - A name of more than 100 bytes goes into name and prefix if it splits at a slash.
//! - What a `ustar` header cannot say stands in a PAX header before it, its records sorted by key: `path` and `linkpath` that are too long
//!   or not ASCII, `uid` and `gid` of more than 7 octal digits, a `size` of 8 GiB or more, an `mtime` that is negative, beyond 11 octal digits or not
//!   whole, and extended attributes as `SCHILY.xattr.NAME`. Those are the rules of Go's `archive/tar`, which wrote most layers of this world.
//! - A whiteout is an empty file of mode 0, owner 0:0 and time 0.
//!
//! Nothing else goes in, so equal entries in equal order give equal bytes, on every machine and in every version of kiln: the digest of each layer
//! in each cache hangs on it. `testdata/image/golden.tar` holds us to that.

use std::io::{Read, Write};

use super::{
    AUFS_PREFIX, OPAQUE_NAME, WHITEOUT_PREFIX,
    header::{self, BLOCK, kind, octal_max, put_octal},
    join_path, path_problem, pax, split_path, target_problem,
};
use crate::{
    entry::{Entry, Kind, Time},
    error::{LayerError, lossy},
};

/// How much is handed to the output at once, at most: headers and small files go together.
const BUFFER: usize = 256 * 1024;

/// Writes entries as a tar.
///
/// Memory does not grow with the size of files or their number.
#[derive(Debug)]
pub struct TarWriter<W> {
    out: W,
    /// Bytes handed to `out` so far.
    offset: u64,
    /// What was not yet handed on: many small entries go together.
    buffer: Buffer,
    /// Names of whiteouts are names like others.
    plain: bool,
}

impl<W: Write> TarWriter<W> {
    /// Starts a layer. Entries with the name of a whiteout are refused, since they would be taken for one.
    pub fn new(out: W) -> Self {
        Self { out, offset: 0, buffer: Buffer::default(), plain: false }
    }

    /// Starts a tar that is no layer but a tree: `.wh.x` is an ordinary file.
    pub fn new_plain(out: W) -> Self {
        Self { plain: true, ..Self::new(out) }
    }

    /// Returns the number of bytes written so far, those included that were not yet handed to the output.
    pub fn offset(&self) -> u64 {
        self.offset + self.buffer.len() as u64
    }

    /// Writes one entry, and for a file as many bytes of `data` as the entry says. Returns the offset of the content in the tar.
    ///
    /// # Errors
    ///
    /// - [`LayerError::Entry`] before anything is written, if the entry is not [clean](Entry::path) or cannot be said in a tar.
    /// - [`LayerError::Content`] or [`LayerError::Size`] if `data` fails or is too short, and [`LayerError::Write`] if the output does. The tar is then
    ///   broken and to be thrown away.
    pub fn append(&mut self, entry: &Entry, data: &mut dyn Read) -> Result<u64, LayerError> {
        self.append_observed(entry, data, |_| {})
    }

    /// Does what [`append`](Self::append) does, and shows each piece of the content to `observe`.
    pub(super) fn append_observed(
        &mut self,
        entry: &Entry,
        data: &mut dyn Read,
        observe: impl FnMut(&[u8]),
    ) -> Result<u64, LayerError> {
        if let Some(problem) = self.problem(entry) {
            return Err(LayerError::entry(&entry.path, problem));
        }
        self.put_headers(entry);
        let content_offset = self.offset();
        if let Kind::File { size } = entry.kind {
            self.put_content(entry, size, data, observe)?;
        }
        self.flush_full_buffer()?;
        Ok(content_offset)
    }

    /// Writes that `path` of the layers below is gone.
    ///
    /// # Errors
    ///
    /// [`LayerError::Entry`] if `path` is the root or not clean, [`LayerError::Write`].
    pub fn whiteout(&mut self, path: &[u8]) -> Result<(), LayerError> {
        let (folder, name) = split_path(path);
        if name.is_empty() {
            return Err(LayerError::entry(path, "the root cannot be removed"));
        }
        self.put_mark(path, folder, &[WHITEOUT_PREFIX, name].concat())
    }

    /// Writes that all that the layers below have in the folder `path` is gone.
    ///
    /// # Errors
    ///
    /// [`LayerError::Entry`] if `path` is not clean, [`LayerError::Write`].
    pub fn opaque(&mut self, path: &[u8]) -> Result<(), LayerError> {
        self.put_mark(path, path, OPAQUE_NAME)
    }

    /// Writes the end of the tar and returns the output, which is not flushed.
    ///
    /// # Errors
    ///
    /// [`LayerError::Write`].
    pub fn finish(mut self) -> Result<W, LayerError> {
        self.buffer.put_zeros(2 * BLOCK);
        self.flush_buffer()?;
        Ok(self.out)
    }

    fn put_mark(&mut self, path: &[u8], folder: &[u8], name: &[u8]) -> Result<(), LayerError> {
        let entry = Entry {
            path: join_path(folder, name),
            kind: Kind::File { size: 0 },
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            xattrs: Default::default(),
        };
        if let Some(problem) = path_problem(path).or_else(|| path_problem(&entry.path)) {
            return Err(LayerError::entry(path, problem));
        }
        self.put_headers(&entry);
        self.flush_full_buffer()
    }

    /// Says what keeps an entry from being written.
    fn problem(&self, entry: &Entry) -> Option<&'static str> {
        let (_, name) = split_path(&entry.path);
        path_problem(&entry.path)
            .or_else(|| match &entry.kind {
                Kind::Directory => None,
                _ if entry.path.is_empty() => Some("the root is no folder"),
                Kind::Symlink { target } => target_problem(target),
                Kind::Hardlink { target } if target.is_empty() => Some("the link has no target"),
                Kind::Hardlink { target } => path_problem(target),
                Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                    let max = octal_max(header::MAJOR.len());
                    (u64::from(*major.max(minor)) > max).then_some("the device number is too large")
                }
                Kind::File { .. } | Kind::Fifo => None,
            })
            .or_else(|| {
                let is_whiteout = !self.plain
                    && (name.starts_with(WHITEOUT_PREFIX) || entry.path.starts_with(AUFS_PREFIX));
                is_whiteout.then_some("the name is that of a whiteout")
            })
            .or_else(|| {
                (entry.mode > 0o7777).then_some("the mode has bits that are no permissions")
            })
            .or_else(|| (entry.mtime.nanos >= 1_000_000_000).then_some("the time is malformed"))
            .or_else(|| {
                let is_bad = |it: &Vec<u8>| it.is_empty() || it.contains(&b'=') || it.contains(&0);
                entry.xattrs.keys().any(is_bad).then_some("an attribute's name cannot be written")
            })
    }

    /// Puts the PAX header, if one is needed, and the header into the buffer.
    fn put_headers(&mut self, entry: &Entry) {
        let mut name = entry.path.clone();
        if entry.kind == Kind::Directory {
            name.extend_from_slice(if name.is_empty() { b"./" } else { b"/" });
        }
        let records = pax::records(entry, &name);
        if !records.is_empty() {
            let (folder, last) = split_path(&name);
            let pax_name = join_path(&join_path(folder, b"PaxHeaders.0"), last);
            let mut block = [0; BLOCK];
            put_text(&mut block[header::NAME], &pax_name);
            put_octal(&mut block[header::SIZE], records.len() as u64);
            for field in [header::MODE, header::UID, header::GID, header::MTIME] {
                put_octal(&mut block[field], 0);
            }
            seal(&mut block, kind::PAX);
            self.buffer.put(&block);
            self.buffer.put(&records);
            self.pad(records.len() as u64);
        }
        self.buffer.put(&header_of(entry, &name));
    }

    /// Writes the buffer and the content, reading it into the rest of the buffer.
    fn put_content(
        &mut self,
        entry: &Entry,
        size: u64,
        data: &mut dyn Read,
        mut observe: impl FnMut(&[u8]),
    ) -> Result<(), LayerError> {
        let mut left = size;
        while left > 0 {
            let n_left = BUFFER.saturating_sub(self.buffer.len());
            if n_left == 0 {
                self.flush_buffer()?;
                continue;
            }
            let n_wanted = usize::try_from(left).unwrap_or(BUFFER).min(n_left);
            let space = self.buffer.space(n_wanted);
            match data.read(space) {
                Ok(0) => {
                    let path = lossy(&entry.path);
                    return Err(LayerError::Size { path, expected: size, found: size - left });
                }
                Ok(n_read) => {
                    observe(&space[..n_read]);
                    self.buffer.filled(n_read);
                    left -= n_read as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(LayerError::Content { path: lossy(&entry.path), source });
                }
            }
        }
        self.pad(size);
        Ok(())
    }

    fn pad(&mut self, size: u64) {
        self.buffer.put_zeros(header::padding(size));
    }

    fn flush_full_buffer(&mut self) -> Result<(), LayerError> {
        if self.buffer.len() < BUFFER { Ok(()) } else { self.flush_buffer() }
    }

    fn flush_buffer(&mut self) -> Result<(), LayerError> {
        self.out.write_all(self.buffer.bytes()).map_err(|source| LayerError::Write { source })?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

/// Bytes that are collected. What was cleared is not filled with zeros again to be read into.
#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    len: usize,
}

impl Buffer {
    fn len(&self) -> usize {
        self.len
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn clear(&mut self) {
        self.len = 0;
    }

    fn put(&mut self, bytes: &[u8]) {
        self.space(bytes.len()).copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn put_zeros(&mut self, n_bytes: usize) {
        self.space(n_bytes).fill(0);
        self.len += n_bytes;
    }

    /// Room for so many bytes, with anything in it.
    fn space(&mut self, n_bytes: usize) -> &mut [u8] {
        let end = self.len + n_bytes;
        if self.bytes.len() < end {
            self.bytes.resize(end.max(BUFFER), 0);
        }
        &mut self.bytes[self.len..end]
    }

    /// Takes so many bytes of the [`space`](Self::space) in.
    fn filled(&mut self, n_bytes: usize) {
        self.len = (self.len + n_bytes).min(self.bytes.len());
    }
}

/// Makes the header of an entry. What does not fit into it is shortened or 0, and stands in a PAX header.
fn header_of(entry: &Entry, name: &[u8]) -> [u8; BLOCK] {
    let (typeflag, size, target, (major, minor)) = match &entry.kind {
        Kind::File { size } => (kind::FILE, *size, &[][..], (0, 0)),
        Kind::Directory => (kind::DIRECTORY, 0, &[][..], (0, 0)),
        Kind::Symlink { target } => (kind::SYMLINK, 0, &target[..], (0, 0)),
        Kind::Hardlink { target } => (kind::HARDLINK, 0, &target[..], (0, 0)),
        Kind::Fifo => (kind::FIFO, 0, &[][..], (0, 0)),
        Kind::CharDevice { major, minor } => (kind::CHAR, 0, &[][..], (*major, *minor)),
        Kind::BlockDevice { major, minor } => (kind::BLOCK, 0, &[][..], (*major, *minor)),
    };
    let mut block = [0; BLOCK];
    match split_name(name) {
        Some((prefix, name)) => {
            put_text(&mut block[header::PREFIX], prefix);
            put_text(&mut block[header::NAME], name);
        }
        None => put_text(&mut block[header::NAME], name),
    }
    put_octal(&mut block[header::MODE], u64::from(entry.mode));
    put_octal(&mut block[header::UID], u64::from(entry.uid));
    put_octal(&mut block[header::GID], u64::from(entry.gid));
    put_octal(&mut block[header::SIZE], size);
    put_octal(&mut block[header::MTIME], u64::try_from(entry.mtime.secs).unwrap_or(0));
    put_text(&mut block[header::LINK], target);
    put_octal(&mut block[header::MAJOR], u64::from(major));
    put_octal(&mut block[header::MINOR], u64::from(minor));
    seal(&mut block, typeflag);
    block
}

/// Puts type, magic and checksum into an otherwise finished header.
fn seal(block: &mut [u8; BLOCK], typeflag: u8) {
    block[header::TYPE] = typeflag;
    block[header::MAGIC].copy_from_slice(header::USTAR);
    let (sum, _) = header::checksums(block);
    // Six digits and a NUL, then a space: as tar did it in 1979.
    put_octal(&mut block[header::CHECKSUM.start..header::CHECKSUM.end - 1], sum);
    block[header::CHECKSUM.end - 1] = b' ';
}

/// Puts the ASCII part of a text into a field, as far as it fits.
fn put_text(field: &mut [u8], text: &[u8]) {
    let ascii = text.iter().filter(|it| it.is_ascii());
    for (to, from) in field.iter_mut().zip(ascii) {
        *to = *from;
    }
    // A shortened name that ends in a slash would make a folder of a file for programs that know no PAX.
    if text.len() > field.len()
        && let Some(last) = field.last_mut()
        && *last == b'/'
    {
        *last = 0;
    }
}

/// Splits a name into prefix and name of a header if it needs to be and can be.
pub(super) fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let (max_name, max_prefix) = (header::NAME.len(), header::PREFIX.len());
    if name.len() <= max_name || !name.is_ascii() {
        return None;
    }
    // The last slash that leaves a prefix that fits; a trailing slash belongs to the name.
    let end = name.len().min(max_prefix + 1).min(name.len() - 1);
    let at = name[..end].iter().rposition(|it| *it == b'/')?;
    (at > 0 && name.len() - at - 1 <= max_name).then(|| (&name[..at], &name[at + 1..]))
}
