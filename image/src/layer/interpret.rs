//! What a header and the records before it say of an entry, and what the entry means in a layer.

use std::ops::Range;

use super::{
    AUFS_PREFIX, MAX_NAME, OPAQUE_NAME, WHITEOUT_PREFIX,
    header::{self, BLOCK, kind, parse_number, parse_text},
    pax::Pax,
    read::{Mode, Record},
    split_path, target_problem,
};
use crate::{
    entry::{Entry, Kind, Time},
    error::LayerError,
};

/// The header of an entry with what stood before it.
pub(super) struct Header {
    pub(super) block: [u8; BLOCK],
    /// The size that stands in the block itself.
    pub(super) size: u64,
    pub(super) pax: Pax,
}

impl Header {
    /// How many bytes the tar has of it.
    pub(super) fn n_stored(&self) -> u64 {
        self.pax.size.unwrap_or(self.size)
    }

    /// Says whether it is a file with holes.
    pub(super) fn is_sparse(&self) -> bool {
        self.block[header::TYPE] == kind::GNU_SPARSE || self.pax.sparse.is_some()
    }

    /// Makes an entry of its headers. For a file with holes, `real_size` is how long it is.
    pub(super) fn entry(
        &self,
        mode: Mode,
        max_path: usize,
        real_size: Option<u64>,
    ) -> Result<Entry, LayerError> {
        let Self { block, pax, .. } = self;
        let raw_path = self.path();
        let path =
            clean(&raw_path, mode, max_path).map_err(|it| LayerError::entry(&raw_path, it))?;
        let error = |problem| LayerError::entry(&raw_path, problem);
        let number = |field: Range<usize>, problem| {
            parse_number(&block[field]).ok_or_else(|| error(problem))
        };
        let id = |field, from_pax: Option<u32>| match from_pax {
            Some(id) => Ok(id),
            None => u32::try_from(number(field, "the owner is no number")?)
                .map_err(|_| error("the owner is out of range")),
        };
        let (uid, gid) = (id(header::UID, pax.uid)?, id(header::GID, pax.gid)?);
        // All ones is "leave it as it is" to the system call.
        if uid == u32::MAX || gid == u32::MAX {
            return Err(error("the owner is out of range"));
        }
        let mtime = match pax.mtime {
            Some(mtime) => mtime,
            None => Time { secs: number(header::MTIME, "the time is no number")?, nanos: 0 },
        };
        let kind = self.kind(&raw_path, mode, max_path, real_size).map_err(error)?;
        let mode = number(header::MODE, "the mode is no number")?;
        if path.is_empty() && kind != Kind::Directory {
            return Err(error("the root is no folder"));
        }
        let has_long_xattr =
            |(name, value): (&Vec<u8>, &Vec<u8>)| name.len() > MAX_NAME || value.len() > 64 * 1024;
        if pax.xattrs.iter().any(has_long_xattr) {
            return Err(error("an extended attribute is too long"));
        }
        Ok(Entry {
            path,
            kind,
            mode: (mode & 0o7777) as u32,
            uid,
            gid,
            mtime,
            xattrs: pax.xattrs.clone(),
        })
    }

    /// Returns the path as written.
    pub(super) fn path(&self) -> Vec<u8> {
        if let Some(path) = self.pax.sparse.as_ref().and_then(|it| it.name.as_ref()) {
            return path.clone();
        }
        if let Some(path) = &self.pax.path {
            return path.clone();
        }
        let name = parse_text(&self.block[header::NAME]);
        // Old GNU tar and its ancestors have other things in place of the prefix.
        let prefix = match &self.block[header::MAGIC.start..header::MAGIC.start + 6] {
            b"ustar\0" if &self.block[header::STAR_TRAILER] == b"tar\0" => {
                &self.block[header::STAR_PREFIX]
            }
            b"ustar\0" => &self.block[header::PREFIX],
            _ => &[],
        };
        match parse_text(prefix) {
            [] => name.to_vec(),
            prefix => [prefix, b"/", name].concat(),
        }
    }

    fn kind(
        &self,
        raw_path: &[u8],
        mode: Mode,
        max_path: usize,
        real_size: Option<u64>,
    ) -> Result<Kind, &'static str> {
        let size = real_size.unwrap_or(self.n_stored());
        let typeflag = self.block[header::TYPE];
        let device = || -> Result<(u32, u32), &'static str> {
            // Linux has 12 bits for the major and 20 for the minor number.
            let number = |field, bits: u32| {
                let number = parse_number(field).and_then(|it| u32::try_from(it).ok());
                number.filter(|it: &u32| it >> bits == 0).ok_or("the device number is out of range")
            };
            Ok((number(&self.block[header::MAJOR], 12)?, number(&self.block[header::MINOR], 20)?))
        };
        let target = || match &self.pax.linkpath {
            Some(target) => target.clone(),
            None => parse_text(&self.block[header::LINK]).to_vec(),
        };
        let kind = match typeflag {
            kind::OLD_FILE | kind::FILE | kind::CONTIGUOUS | kind::GNU_SPARSE => {
                if raw_path.ends_with(b"/") {
                    // Some programs make a folder of it, some a file.
                    return Err("the name of a file ends in a slash");
                }
                return match size
                    .checked_add(BLOCK as u64)
                    .is_some_and(|it| i64::try_from(it).is_ok())
                {
                    true => Ok(Kind::File { size }),
                    false => Err("the size is out of range"),
                };
            }
            // The size of a link is that of its file to some programs; no program takes a content from here.
            kind::HARDLINK => {
                let target = clean(&target(), mode, max_path)?;
                return if target.is_empty() {
                    Err("the link has no target")
                } else {
                    Ok(Kind::Hardlink { target })
                };
            }
            kind::SYMLINK => {
                let target = target();
                if let Some(problem) = target_problem(&target) {
                    return Err(problem);
                }
                Kind::Symlink { target }
            }
            kind::CHAR => device().map(|(major, minor)| Kind::CharDevice { major, minor })?,
            kind::BLOCK => device().map(|(major, minor)| Kind::BlockDevice { major, minor })?,
            kind::DIRECTORY => Kind::Directory,
            kind::FIFO => Kind::Fifo,
            _ => return Err("the type of the entry is not known"),
        };
        match size {
            0 => Ok(kind),
            _ => Err("an entry that is no file has a size"),
        }
    }
}

/// Makes a path relative and takes `.` and empty parts out, in an archive also `..` that stay inside of it.
fn clean(raw: &[u8], mode: Mode, max_path: usize) -> Result<Vec<u8>, &'static str> {
    if raw.is_empty() {
        return Err("the path is empty");
    }
    if raw.len() > max_path {
        return Err("the path is too long");
    }
    let mut out: Vec<u8> = Vec::with_capacity(raw.len());
    for part in raw.split(|it| *it == b'/') {
        match part {
            b"" | b"." => continue,
            b".." if mode == Mode::Layer => return Err("the path has `..` in it"),
            b".." if out.is_empty() => return Err("the path leads out of the archive"),
            b".." => {
                out.truncate(out.iter().rposition(|it| *it == b'/').unwrap_or(0));
                continue;
            }
            _ if part.len() > MAX_NAME => return Err("a part of the path is too long"),
            _ if part.contains(&0) => return Err("the path has a NUL in it"),
            _ => {}
        }
        if !out.is_empty() {
            out.push(b'/');
        }
        out.extend_from_slice(part);
    }
    Ok(out)
}

/// Says what an entry of a layer means; `None` is one of AUFS's own files, which mean nothing.
pub(super) fn interpret(entry: Entry) -> Result<Option<Record>, LayerError> {
    let (folder, name) = split_path(&entry.path);
    let is_opaque = name == OPAQUE_NAME;
    if entry.path.starts_with(AUFS_PREFIX) && !is_opaque {
        return Ok(None);
    }
    if folder.split(|it| *it == b'/').any(|it| it.starts_with(WHITEOUT_PREFIX)) {
        return Err(LayerError::entry(&entry.path, "a folder has the name of a whiteout"));
    }
    let Some(removed) = name.strip_prefix(WHITEOUT_PREFIX) else {
        return Ok(Some(Record::Entry(entry)));
    };
    if !matches!(entry.kind, Kind::File { .. } | Kind::Hardlink { .. }) {
        return Err(LayerError::entry(&entry.path, "a whiteout is no file"));
    }
    Ok(Some(match removed {
        _ if is_opaque => Record::Opaque { path: folder.to_vec() },
        b"" | b"." | b".." => {
            return Err(LayerError::entry(&entry.path, "the whiteout removes nothing"));
        }
        name => Record::Whiteout { path: super::join_path(folder, name) },
    }))
}
