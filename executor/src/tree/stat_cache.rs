//! Digests of a folder's files, remembered from build to build by size, times and inode.
//!
//! The file is used as it was read: looking something up makes nothing. It is written anew only when a file was hashed.
//!
//! # Format
//!
//! Numbers are little-endian.
//!
//! ```text
//! magic      8 bytes, the last digit is the version
//! n_folders  u32
//! n_files    u32
//! n_made     u32
//! folders    { path: u32 place in `names`, u32 length; files: u32 first, u32 number }   sorted by path
//! files      { name: u32 place in `names`, u16 length; age: u8; has_capability: u8;
//!              size, mtime, ctime, inode: u64; content: 32 bytes }                       sorted by name
//! made       { copy: 16 bytes; diff id: 32 bytes }                                         the latest first
//! names      bytes
//! checksum   32 bytes, BLAKE3 of all before it
//! ```

use std::sync::atomic::{AtomicBool, Ordering};

use image::{DiffId, Digest};

use super::Stamp;

const MAGIC: &[u8; 8] = b"kilnsc03";
const HEAD: usize = 20;
const FOLDER: usize = 16;
const FILE: usize = 72;
const MADE: usize = 48;
const CHECKSUM: usize = 32;

/// The layers of so many copies are remembered.
const MAX_MADE: usize = 32;

/// What was not seen in so many builds that changed the cache is forgotten.
const MAX_AGE: u8 = 32;

/// Tells the copies of a folder apart.
pub(crate) type CopyId = [u8; 16];

/// What is remembered of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    /// When this changes, the rest is out of date.
    pub stamp: Stamp,
    /// The BLAKE3 of the file.
    pub content: [u8; 32],
    /// Whether it had capabilities. A change of them changes the stamp.
    pub has_capability: bool,
}

/// The cache of a folder.
#[derive(Debug, Default)]
pub(super) struct StatCache {
    bytes: Vec<u8>,
    n_folders: usize,
    n_files: usize,
    n_made: usize,
    /// Which of the files somebody has asked for.
    is_asked_for: Vec<AtomicBool>,
}

/// The files of one folder, looked up in the order of their names.
#[derive(Debug, Clone)]
pub(super) struct KnownFiles<'a> {
    cache: &'a StatCache,
    at: usize,
    end: usize,
}

impl StatCache {
    /// Takes what [`merged`](Self::merged) returned; anything else is an empty cache.
    pub(super) fn open(bytes: Vec<u8>) -> Self {
        let Some([n_folders, n_files, n_made]) = Self::check(&bytes) else {
            return Self::default();
        };
        let is_asked_for = (0..n_files).map(|_| AtomicBool::new(false)).collect();
        Self { bytes, n_folders, n_files, n_made, is_asked_for }
    }

    fn check(bytes: &[u8]) -> Option<[usize; 3]> {
        let (data, checksum) = bytes.split_last_chunk::<CHECKSUM>()?;
        if !data.starts_with(MAGIC) || blake3::hash(data) != *checksum {
            return None;
        }
        let counts =
            [number(data, 8)? as usize, number(data, 12)? as usize, number(data, 16)? as usize];
        let lens = [counts[0].checked_mul(FOLDER)?, counts[1].checked_mul(FILE)?];
        let names = HEAD + lens[0] + lens[1] + counts[2].checked_mul(MADE)?;
        (names <= data.len()).then_some(counts)
    }

    /// What is known of the files in the folder at `path`.
    pub(super) fn files(&self, path: &[u8]) -> KnownFiles<'_> {
        let found = partition_point(0, self.n_folders, |it| self.folder(it).0 < path);
        let (at, end) = match found < self.n_folders {
            true => match self.folder(found) {
                (it, first, n_files) if it == path => (first, first.saturating_add(n_files)),
                _ => (0, 0),
            },
            false => (0, 0),
        };
        KnownFiles { cache: self, at, end: end.min(self.n_files) }
    }

    /// What is known of the file at `path`.
    pub(super) fn file(&self, path: &[u8]) -> Option<Known> {
        let (folder, name) = split(path);
        let files = self.files(folder);
        let found = partition_point(files.at, files.end, |it| self.name(it) < name);
        (found < files.end && self.name(found) == name).then(|| self.ask_for(found))
    }

    /// The layer that a copy made last.
    pub(super) fn made(&self, copy: &CopyId) -> Option<DiffId> {
        self.all_made().find(|it| it.0 == *copy).map(|it| it.1)
    }

    fn all_made(&self) -> impl Iterator<Item = (CopyId, DiffId)> {
        let at = HEAD + self.n_folders * FOLDER + self.n_files * FILE;
        let bytes = self.bytes.get(at..at + self.n_made * MADE).unwrap_or_default();
        bytes.chunks_exact(MADE).filter_map(|it| {
            let (copy, digest) = it.split_first_chunk()?;
            Some((*copy, DiffId(Digest::from_sha256(*digest.first_chunk()?))))
        })
    }

    /// Returns this cache with what was hashed and made put over it; nothing if it is too large. What nobody has asked for is a build older.
    pub(super) fn merged(
        &self,
        mut hashed: Vec<(Vec<u8>, Known)>,
        made: Vec<(CopyId, DiffId)>,
    ) -> Option<Vec<u8>> {
        // Of two of the same path the later one is right.
        hashed.reverse();
        hashed.sort_by(|a, b| split(&a.0).cmp(&split(&b.0)));
        hashed.dedup_by(|a, b| a.0 == b.0);
        let mut writer = Writer::default();
        let mut hashed = hashed.iter().peekable();
        for nth in 0..self.n_folders {
            let (folder, first, n_files) = self.folder(nth);
            for file in first..first.saturating_add(n_files).min(self.n_files) {
                let old = (folder, self.name(file));
                while let Some((path, known)) = hashed.next_if(|it| split(&it.0) < old) {
                    writer.put(split(path), known, 0)?;
                }
                if hashed.peek().is_some_and(|it| split(&it.0) == old) {
                    continue;
                }
                let age = match self.was_asked_for(file) {
                    true => 0,
                    false => self.entry(file)[6].saturating_add(1),
                };
                if age <= MAX_AGE {
                    writer.put(old, &self.known(file), age)?;
                }
            }
        }
        for (path, known) in hashed {
            writer.put(split(path), known, 0)?;
        }
        for it in made.into_iter().rev().chain(self.all_made()) {
            if writer.made.len() < MAX_MADE && !writer.made.iter().any(|known| known.0 == it.0) {
                writer.made.push(it);
            }
        }
        writer.finish()
    }

    fn folder(&self, nth: usize) -> (&[u8], usize, usize) {
        let at = HEAD + nth * FOLDER;
        let field = |nth: usize| number(&self.bytes, at + 4 * nth).unwrap_or(0) as usize;
        (self.text(field(0), field(1)), field(2), field(3))
    }

    fn entry(&self, nth: usize) -> &[u8] {
        let at = HEAD + self.n_folders * FOLDER + nth * FILE;
        self.bytes.get(at..at + FILE).unwrap_or(&[0; FILE])
    }

    fn name(&self, nth: usize) -> &[u8] {
        let entry = self.entry(nth);
        let len = usize::from(entry[4]) | usize::from(entry[5]) << 8;
        self.text(number(entry, 0).unwrap_or(0) as usize, len)
    }

    fn ask_for(&self, nth: usize) -> Known {
        if let Some(mark) = self.is_asked_for.get(nth) {
            mark.store(true, Ordering::Relaxed);
        }
        self.known(nth)
    }

    fn was_asked_for(&self, nth: usize) -> bool {
        self.is_asked_for.get(nth).is_some_and(|it| it.load(Ordering::Relaxed))
    }

    fn known(&self, nth: usize) -> Known {
        let entry = self.entry(nth);
        let field = |nth: usize| {
            let bytes = entry.get(8 + 8 * nth..).and_then(|it| it.first_chunk::<8>());
            bytes.map_or(0, |it| u64::from_le_bytes(*it))
        };
        let stamp = Stamp { size: field(0), mtime: field(1), ctime: field(2), inode: field(3) };
        let content = entry.last_chunk::<32>().copied().unwrap_or_default();
        Known { stamp, content, has_capability: entry[7] != 0 }
    }

    fn text(&self, place: usize, len: usize) -> &[u8] {
        let lists = self.n_folders * FOLDER + self.n_files * FILE + self.n_made * MADE;
        let at = HEAD + lists + place;
        self.bytes.get(at..at.saturating_add(len)).unwrap_or_default()
    }
}

impl KnownFiles<'_> {
    /// What is known of the file `name`, which comes after all that were asked for before.
    pub(super) fn next(&mut self, name: &[u8]) -> Option<Known> {
        while self.at < self.end {
            match self.cache.name(self.at).cmp(name) {
                std::cmp::Ordering::Less => self.at += 1,
                std::cmp::Ordering::Equal => return Some(self.cache.ask_for(self.at)),
                std::cmp::Ordering::Greater => return None,
            }
        }
        None
    }
}

/// Writes files in order.
#[derive(Default)]
struct Writer {
    folders: Vec<u8>,
    files: Vec<u8>,
    names: Vec<u8>,
    made: Vec<(CopyId, DiffId)>,
    n_folders: u32,
    n_files: u32,
    /// Where the path of the current folder is in the names, and its first file.
    current: Option<(std::ops::Range<usize>, u32)>,
}

impl Writer {
    fn put(&mut self, (folder, name): (&[u8], &[u8]), known: &Known, age: u8) -> Option<()> {
        if self.current.as_ref().is_none_or(|(path, _)| &self.names[path.clone()] != folder) {
            self.end_folder()?;
            let start = self.names.len();
            self.names.extend_from_slice(folder);
            self.current = Some((start..self.names.len(), self.n_files));
        }
        self.files.extend(u32::try_from(self.names.len()).ok()?.to_le_bytes());
        self.files.extend(u16::try_from(name.len()).ok()?.to_le_bytes());
        self.files.extend([age, u8::from(known.has_capability)]);
        let stamp = known.stamp;
        for number in [stamp.size, stamp.mtime, stamp.ctime, stamp.inode] {
            self.files.extend(number.to_le_bytes());
        }
        self.files.extend(known.content);
        self.names.extend_from_slice(name);
        self.n_files = self.n_files.checked_add(1)?;
        Some(())
    }

    fn end_folder(&mut self) -> Option<()> {
        let Some((path, first)) = self.current.take() else { return Some(()) };
        let fields = [u32::try_from(path.start).ok()?, u32::try_from(path.len()).ok()?];
        for number in [fields[0], fields[1], first, self.n_files - first] {
            self.folders.extend(number.to_le_bytes());
        }
        self.n_folders = self.n_folders.checked_add(1)?;
        Some(())
    }

    fn finish(mut self) -> Option<Vec<u8>> {
        self.end_folder()?;
        let n_bytes = self.folders.len() + self.files.len() + self.names.len();
        let n_bytes = n_bytes + self.made.len() * MADE;
        let mut out = Vec::with_capacity(HEAD + n_bytes + CHECKSUM);
        out.extend(MAGIC);
        out.extend(self.n_folders.to_le_bytes());
        out.extend(self.n_files.to_le_bytes());
        out.extend(u32::try_from(self.made.len()).ok()?.to_le_bytes());
        out.extend(self.folders);
        out.extend(self.files);
        for (copy, diff_id) in self.made {
            out.extend(copy);
            out.extend(diff_id.0.as_bytes());
        }
        out.extend(self.names);
        let checksum = blake3::hash(&out);
        out.extend(checksum.as_bytes());
        Some(out)
    }
}

/// The folder and the name of a path.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|it| *it == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk::<4>()?))
}

/// The first of `start..end` for which `is_before` is false.
fn partition_point(start: usize, end: usize, is_before: impl Fn(usize) -> bool) -> usize {
    let (mut start, mut end) = (start, end);
    while start < end {
        let middle = start + (end - start) / 2;
        if is_before(middle) { start = middle + 1 } else { end = middle }
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(nth: u64) -> Known {
        let stamp = Stamp { size: nth, mtime: nth + 1, ctime: nth + 2, inode: nth + 3 };
        Known { stamp, content: [nth as u8; 32], has_capability: nth == 3 }
    }

    fn seen(paths: &[(&str, u64)]) -> Vec<(Vec<u8>, Known)> {
        paths.iter().map(|(path, nth)| (path.as_bytes().to_vec(), known(*nth))).collect()
    }

    #[test]
    fn what_was_seen_is_found_again_and_replaces_what_was_known() {
        let first = seen(&[("b/x", 1), ("a", 2), ("b/c/d", 3), ("b-", 4), ("b/a", 5)]);
        let cache =
            StatCache::open(StatCache::default().merged(first, Vec::new()).expect("it is small"));
        let more = seen(&[("b/b", 6), ("a", 7), ("c", 8), ("a", 9)]);
        let cache = StatCache::open(cache.merged(more, Vec::new()).expect("it is small"));
        for (path, nth) in
            [("a", 9), ("b-", 4), ("b/a", 5), ("b/b", 6), ("b/c/d", 3), ("b/x", 1), ("c", 8)]
        {
            assert_eq!(cache.file(path.as_bytes()), Some(known(nth)), "{path}");
        }
        for path in ["", "b", "b/", "b/y", "b/c", "d", "b/c/e"] {
            assert_eq!(cache.file(path.as_bytes()), None, "{path}");
        }
        let mut files = cache.files(b"b");
        let names = [&b"A"[..], b"a", b"b", b"bb", b"x", b"z"];
        let found = names.map(|it| files.next(it).map(|it| it.stamp.size));
        assert_eq!(found, [None, Some(5), Some(6), None, Some(1), None]);
    }

    #[test]
    fn what_is_not_seen_for_long_is_forgotten() {
        let first = [("asked for", 1), ("hashed", 1), ("old", 1)];
        let mut bytes = StatCache::default().merged(seen(&first), Vec::new()).expect("it is small");
        for nth in 1..=u64::from(MAX_AGE) + 1 {
            let cache = StatCache::open(bytes);
            assert!(cache.file(b"asked for").is_some());
            bytes = cache.merged(seen(&[("hashed", nth)]), Vec::new()).expect("it is small");
            let cache = StatCache::open(bytes.clone());
            assert_eq!(cache.file(b"hashed"), Some(known(nth)));
            assert_eq!(cache.file(b"old").is_some(), nth <= u64::from(MAX_AGE), "{nth}");
        }
    }

    #[test]
    fn the_layers_of_the_latest_copies_are_remembered() {
        let made = |copy: u8, layer: u8| ([copy; 16], DiffId(Digest::from_sha256([layer; 32])));
        let first = (0..40).map(|it| made(it, it)).collect();
        let cache = StatCache::default().merged(seen(&[("a", 1)]), first).expect("it is small");
        let cache = StatCache::open(cache);
        assert_eq!(cache.made(&[39; 16]), Some(made(0, 39).1));
        assert_eq!(cache.made(&[7; 16]), None, "too many came after it");
        let more = vec![made(20, 1), made(20, 2)];
        let cache = StatCache::open(cache.merged(Vec::new(), more).expect("it is small"));
        assert_eq!(cache.made(&[20; 16]), Some(made(0, 2).1));
        assert_eq!(cache.made(&[39; 16]), Some(made(0, 39).1));
        assert_eq!(cache.file(b"a"), Some(known(1)));
    }

    #[test]
    fn a_damaged_cache_is_an_empty_one() {
        let bytes =
            StatCache::default().merged(seen(&[("a/b", 1)]), Vec::new()).expect("it is small");
        for nth in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[nth] ^= 1;
            assert_eq!(StatCache::open(damaged).file(b"a/b"), None, "{nth}");
            assert_eq!(StatCache::open(bytes[..nth].to_vec()).file(b"a/b"), None, "{nth}");
        }
        assert!(StatCache::open(bytes).file(b"a/b").is_some());
    }
}
