//! What several tests need: listings of folders, overlay mounts, and tars as an attacker writes them.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use cache::Store;
use rustix::fs::{lgetxattr, llistxattr};

/// A store in a temporary folder.
pub(crate) struct Place {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) store: Store,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::open(&folder.path().join("store")).expect("a new store");
        Self { folder, store }
    }
}

/// Describes everything below a folder, one line per name: type, mode, owner, time, attributes and content.
///
/// Times of folders are left out, and names of one file are told by the first of them.
pub(crate) fn listing(root: &Path) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    let mut first_names = HashMap::new();
    list(root, root, &mut lines, &mut first_names);
    lines
}

fn list(
    root: &Path,
    path: &Path,
    lines: &mut BTreeMap<String, String>,
    first_names: &mut HashMap<u64, String>,
) {
    let metadata = fs::symlink_metadata(path).expect("metadata");
    let name = path.strip_prefix(root).expect("below").to_string_lossy().into_owned();
    let file_type = metadata.file_type();
    let mut line = format!("{:o} {}:{}", metadata.mode(), metadata.uid(), metadata.gid());
    if !file_type.is_dir() {
        line += &format!(" {}", metadata.mtime());
        if metadata.nlink() > 1 {
            line +=
                &format!(" ={}", first_names.entry(metadata.ino()).or_insert_with(|| name.clone()));
        }
    }
    let mut buffer = vec![0; 65536];
    let n_bytes = llistxattr(path, buffer.as_mut_slice()).expect("attributes");
    let mut attributes: Vec<_> = buffer[..n_bytes]
        .split(|it| *it == 0)
        .filter(|it| !it.is_empty())
        .map(<[u8]>::to_vec)
        .collect();
    attributes.sort();
    for attribute in attributes {
        let n_bytes =
            lgetxattr(path, attribute.as_slice(), buffer.as_mut_slice()).expect("an attribute");
        line += &format!(" {}={:?}", attribute.escape_ascii(), &buffer[..n_bytes]);
    }
    if file_type.is_symlink() {
        line += &format!(" -> {:?}", fs::read_link(path).expect("a link"));
    } else if file_type.is_file() {
        line += &format!(" {:?}", blake3::hash(&fs::read(path).expect("a file")));
    } else if file_type.is_block_device() || file_type.is_char_device() {
        line += &format!(" {}", metadata.rdev());
    }
    lines.insert(name, line);
    if file_type.is_dir() {
        let mut names: Vec<PathBuf> =
            fs::read_dir(path).expect("a folder").map(|it| it.expect("a name").path()).collect();
        names.sort();
        names.iter().for_each(|it| list(root, it, lines, first_names));
    }
}

/// An overlay mount that ends with the value.
pub(crate) struct Overlay(PathBuf);

impl Overlay {
    /// Mounts `layers`, which come from the bottom up, with the upper folder on top if there is one.
    pub(crate) fn mount(at: &Path, layers: &[PathBuf], upper: Option<(&Path, &Path)>) -> Self {
        fs::create_dir_all(at).expect("a mount point");
        let lower: Vec<String> = layers.iter().rev().map(|it| it.display().to_string()).collect();
        let mut options =
            format!("redirect_dir=off,metacopy=off,index=off,lowerdir={}", lower.join(":"));
        if let Some((upper, work)) = upper {
            options +=
                &format!(",upperdir={},workdir={},volatile", upper.display(), work.display());
        }
        let options = std::ffi::CString::new(options).expect("no NUL");
        rustix::mount::mount(
            "overlay",
            at,
            "overlay",
            rustix::mount::MountFlags::empty(),
            &*options,
        )
        .expect("mounted");
        Self(at.to_owned())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Writes tars without asking what is in them.
#[derive(Default)]
pub(crate) struct RawTar(Vec<u8>);

impl RawTar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn file(self, path: &str, content: &str) -> Self {
        self.header(b'0', path, "", 0o644, content.len()).content(content.as_bytes())
    }

    pub(crate) fn folder(self, path: &str) -> Self {
        self.header(b'5', path, "", 0o755, 0)
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.header(b'2', path, target, 0o777, 0)
    }

    pub(crate) fn hardlink(self, path: &str, target: &str) -> Self {
        self.header(b'1', path, target, 0o644, 0)
    }

    pub(crate) fn fifo(self, path: &str) -> Self {
        self.header(b'6', path, "", 0o644, 0)
    }

    /// Adds a character device.
    pub(crate) fn device(mut self, path: &str, major: &str, minor: &str) -> Self {
        let start = self.0.len();
        self = self.header(b'3', path, "", 0o666, 0);
        let block = &mut self.0[start..start + 512];
        block[329..329 + major.len()].copy_from_slice(major.as_bytes());
        block[337..337 + minor.len()].copy_from_slice(minor.as_bytes());
        self.reseal(start)
    }

    /// Adds extended records for the entry that follows.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut len = rest + 1;
            while len != rest + len.to_string().len() {
                len = rest + len.to_string().len();
            }
            body.extend_from_slice(format!("{len} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.header(b'x', "PaxHeaders/x", "", 0o644, body.len()).content(&body)
    }

    /// Adds a header of any kind.
    pub(crate) fn header(
        mut self,
        kind: u8,
        path: &str,
        target: &str,
        mode: u32,
        size: usize,
    ) -> Self {
        let start = self.0.len();
        let mut block = [0; 512];
        let mut put =
            |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, path);
        put(100, &format!("{mode:07o}"));
        put(108, "0000000");
        put(116, "0000000");
        put(124, &format!("{size:011o}"));
        put(136, "00000000001");
        put(157, target);
        put(257, "ustar\x0000");
        block[156] = kind;
        self.0.extend_from_slice(&block);
        self.reseal(start)
    }

    /// Sets the owner in the last header.
    pub(crate) fn owned_by(mut self, uid: &str) -> Self {
        let start = self.0.len() - 512;
        self.0[start + 108..start + 108 + uid.len()].copy_from_slice(uid.as_bytes());
        self.reseal(start)
    }

    pub(crate) fn content(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }

    fn reseal(mut self, start: usize) -> Self {
        let block = &mut self.0[start..start + 512];
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|it| u32::from(*it)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self
    }
}
