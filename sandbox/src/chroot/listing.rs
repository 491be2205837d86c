//! Folders of `/proc` that a process opens: it gets a copy of what is in them, which lies in its own root.
//!
//! Names and links are as they are there; a file or folder is an empty one, since what is in them is asked for by the whole path. A
//! copy is made for each who asks, by handles only: what has become of the folder that holds them is its processes' own affair.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::{Errno, Result};

use crate::inside;

/// How many copies there are at once. Who has an older one open has read it.
const N_KEPT: u64 = 32;

/// How many names a folder may have; a process with more open files than this cannot list them.
const MAX_ENTRIES: usize = 16 << 10;

/// What is in a folder.
pub(super) struct Entry {
    name: CString,
    what: What,
}

enum What {
    Folder,
    Link(Vec<u8>),
    File,
}

/// Reads a folder of `/proc`, with the names that are to be shown and its links as the process sees them.
pub(super) fn read(
    folder: &OwnedFd,
    is_shown: impl Fn(&str) -> bool,
    as_seen: impl Fn(Vec<u8>) -> Vec<u8>,
) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let text = name.to_str().unwrap_or_default();
        if matches!(text, "" | "." | "..") || !is_shown(text) {
            continue;
        }
        if entries.len() == MAX_ENTRIES {
            return Err(Errno::NOMEM);
        }
        let what = match entry.file_type() {
            FileType::Directory => What::Folder,
            FileType::Symlink => match rustix::fs::readlinkat(folder, name, Vec::new()) {
                Ok(target) => What::Link(as_seen(target.into_bytes())),
                // It is closed by now, or nobody's business.
                Err(_) => What::Link(b"?".to_vec()),
            },
            _ => What::File,
        };
        entries.push(Entry { name: name.to_owned(), what });
    }
    Ok(entries)
}

/// Where the copies are.
pub(super) struct Listings {
    folder: OwnedFd,
    n_made: u64,
}

impl Listings {
    /// Makes them in `folder`, which is empty.
    pub(super) fn new(folder: OwnedFd) -> Self {
        Self { folder, n_made: 0 }
    }

    /// Makes a copy and opens it.
    pub(super) fn make(&mut self, entries: &[Entry], flags: OFlags) -> Result<OwnedFd> {
        if let Some(oldest) = self.n_made.checked_sub(N_KEPT) {
            let path = format!("/proc/self/fd/{}/{oldest}", self.folder.as_raw_fd());
            let _ = inside::remove_all(Path::new(&path));
        }
        let name = self.n_made.to_string();
        self.n_made += 1;
        rustix::fs::mkdirat(&self.folder, &name, Mode::RWXU)?;
        let own = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let copy = rustix::fs::openat(&self.folder, &name, own, Mode::empty())?;
        for Entry { name, what } in entries {
            add(&copy, name, what)?;
        }
        rustix::fs::fchmod(&copy, Mode::from_raw_mode(0o555))?;
        let flags = (flags - OFlags::NOFOLLOW) | OFlags::DIRECTORY;
        rustix::fs::openat(&copy, c".", flags, Mode::empty())
    }
}

fn add(copy: &OwnedFd, name: &CStr, what: &What) -> Result<()> {
    let mode = Mode::from_raw_mode(match what {
        What::Link(target) => {
            return rustix::fs::symlinkat(target.as_slice(), copy.as_fd(), name);
        }
        What::Folder => 0o555,
        What::File => 0o444,
    });
    match what {
        What::Folder => rustix::fs::mkdirat(copy, name, mode)?,
        _ => rustix::fs::mknodat(copy, name, FileType::RegularFile, mode, 0)?,
    }
    rustix::fs::chmodat(copy, name, mode, AtFlags::empty())
}
