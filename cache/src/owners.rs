//! Whose ids the trees of a store have.
//!
//! The files of a tree have owners as the process sees them that unpacks it. In a user namespace those are other ids on the disk,
//! and folders are marked as opaque in another way. So the first one who makes a tree notes how he sees ids, and who sees
//! them differently (root in the store of a user, a user whose subordinate ids were changed) makes no trees there, and none of
//! what is there is taken for what it is not.
//!
//! In a user namespace with one id everything belongs to that. There the true owner of a file or folder is in an attribute,
//! `user.kiln.stat`, in the form that the sandbox (`sandbox::notify`) reads and writes, which shows it to the processes inside;
//! a device is an empty file with one. Symbolic links and pipes can have no such attribute: their owners are in the index of
//! their layer, and for the upper folder of a RUN in what the sandbox says.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::{MetadataExt, lchown},
    path::Path,
    sync::{OnceLock, atomic::Ordering},
};

use image::{
    entry::{Entry, Kind},
    layer::Change,
    view::View,
};
use rustix::{
    fs::{
        AtFlags, CWD, FileType, StatxFlags, XattrFlags, lgetxattr, lremovexattr, lsetxattr, statx,
    },
    io::Errno,
    thread::{CapabilitySet, capabilities},
};

use crate::{below::is_kept, error::StoreError, files, store::Store};

/// The attribute with the true owner.
const RECORD: &str = "user.kiln.stat";

/// Longest value of the attribute.
const MAX_RECORD: usize = 64;

/// The number of the user namespace that every machine starts with.
const INITIAL_NAMESPACE: u64 = 0xEFFF_FFFD;

impl Store {
    /// Tells whether this process can give files to any owner that an image may name; if not, it makes no trees of images.
    pub fn can_own(&self) -> bool {
        capabilities(None).is_ok_and(|it| it.effective.contains(CapabilitySet::CHOWN))
    }

    /// Tells whether this process makes trees of layers: it can give files away, and mark what overlay needs marked.
    pub(crate) fn makes_trees(&self) -> bool {
        self.can_own()
            && capabilities(None).is_ok_and(|it| it.effective.contains(CapabilitySet::SYS_ADMIN))
    }

    /// Fails if the trees of this store were made by somebody who sees ids differently. Looked up once.
    pub(crate) fn check_owners(&self) -> Result<(), StoreError> {
        // Who cannot give files away makes files of his own only, which are root's in his user namespace.
        if !self.makes_trees() || self.inner.owners_are_checked.load(Ordering::Relaxed) {
            return Ok(());
        }
        let path = self.path("owners");
        let ours = ours();
        let _lock = self.lock("owners")?;
        match files::read_small(&path, 1 << 20)? {
            None => self.publish(&path, &files::seal(ours.into_bytes()), true)?,
            Some(theirs) if files::unseal(&theirs) == Some(ours.as_bytes()) => {}
            Some(theirs) => {
                let Some(theirs) = files::unseal(&theirs) else {
                    let reason = "it is not what was written".to_owned();
                    return Err(StoreError::Damaged { path, reason });
                };
                return Err(StoreError::OtherOwners {
                    path: self.root().to_owned(),
                    found: one_line(&String::from_utf8_lossy(theirs)),
                    expected: one_line(&ours),
                });
            }
        }
        self.inner.owners_are_checked.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// How this process sees ids.
fn ours() -> String {
    let is_initial =
        fs::metadata("/proc/self/ns/user").is_ok_and(|it| it.ino() == INITIAL_NAMESPACE);
    // Root of a container may lack the right to set the attributes that root's overlays go by.
    let is_admin =
        capabilities(None).is_ok_and(|it| it.effective.contains(CapabilitySet::SYS_ADMIN));
    let kind = if is_initial && is_admin { "machine\n" } else { "user namespace\n" };
    let mut out = kind.to_owned();
    for (kind, name) in [("users", "uid_map"), ("groups", "gid_map")] {
        let text = fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        for line in text.lines() {
            let numbers: Vec<&str> = line.split_whitespace().collect();
            out += &format!("{kind} {}\n", numbers.join(" "));
        }
    }
    out
}

fn one_line(text: &str) -> String {
    text.trim().replace('\n', ", ")
}

/// Whether true owners are kept in attributes, because this process has one id only. Found out once.
pub(crate) fn are_beside() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let is_initial =
            fs::metadata("/proc/self/ns/user").is_ok_and(|it| it.ino() == INITIAL_NAMESPACE);
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let mut lines = map.lines();
        let is_one = lines.next().is_some_and(|it| it.split_whitespace().nth(2) == Some("1"));
        !is_initial && is_one && lines.next().is_none()
    })
}

/// Owners of symbolic links and pipes of an upper folder (user and group), by inode: number, and seconds and nanoseconds of when
/// it was made.
pub type LinkOwners = HashMap<(u64, i64, u32), (u32, u32)>;

/// Gives what is at `path` to an owner, links not followed: to the kernel's mind, or where that is not possible, in the attribute.
///
/// # Errors
///
/// That of the system call.
pub fn give(path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    if are_beside() {
        return Ok(Record { uid, gid, device: None }.set(path)?);
    }
    lchown(path, Some(uid), Some(gid))
}

/// Symbolic links and pipes that do not belong to root: path, user, group. Empty where nobody needs to know.
pub fn link_owners(view: &View) -> Vec<(Vec<u8>, u32, u32)> {
    if !are_beside() {
        return Vec::new();
    }
    let is_one = |it: &Entry| {
        matches!(it.kind, Kind::Symlink { .. } | Kind::Fifo) && (it.uid, it.gid) != (0, 0)
    };
    let mut out = Vec::new();
    for layer in view.layers() {
        for change in &layer.changes {
            let Change::Entry { entry, .. } = change else { continue };
            if (is_one(entry) || matches!(entry.kind, Kind::Hardlink { .. }))
                && let Some(node) = view.lookup(&entry.path)
                && is_one(node.entry)
            {
                out.push((entry.path.clone(), node.entry.uid, node.entry.gid));
            }
        }
    }
    out
}

/// What the attribute says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Record {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) device: Option<Device>,
}

/// The device that an empty file stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) is_block: bool,
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

impl Device {
    /// As what a layer says it.
    pub(crate) fn kind(self) -> Kind {
        let Self { is_block, major, minor } = self;
        match is_block {
            true => Kind::BlockDevice { major, minor },
            false => Kind::CharDevice { major, minor },
        }
    }
}

impl Record {
    /// That of an entry of a layer.
    pub(crate) fn of(entry: &Entry) -> Self {
        let device = match entry.kind {
            Kind::CharDevice { major, minor } => Some(Device { is_block: false, major, minor }),
            Kind::BlockDevice { major, minor } => Some(Device { is_block: true, major, minor }),
            _ => None,
        };
        Self { uid: entry.uid, gid: entry.gid, device }
    }

    fn encode(self) -> String {
        let mut out = format!("{}:{}", self.uid, self.gid);
        if let Some(Device { is_block, major, minor }) = self.device {
            let kind = if is_block { 'b' } else { 'c' };
            out += &format!(":{kind}:{major}:{minor}");
        }
        out
    }

    fn parse(value: &[u8]) -> Option<Self> {
        let mut fields = std::str::from_utf8(value).ok()?.split(':');
        let number = |text: Option<&str>| text?.parse::<u32>().ok();
        let (uid, gid) = (number(fields.next())?, number(fields.next())?);
        let device = match fields.next() {
            None => None,
            Some(kind @ ("b" | "c")) => Some(Device {
                is_block: kind == "b",
                major: number(fields.next())?,
                minor: number(fields.next())?,
            }),
            Some(_) => return None,
        };
        fields.next().is_none().then_some(Self { uid, gid, device })
    }

    /// Gives it to what is at a path. What can have no attribute is passed over.
    pub(crate) fn set(self, path: &Path) -> Result<(), Errno> {
        let result = match self == Self::default() {
            true => lremovexattr(path, RECORD),
            false => lsetxattr(path, RECORD, self.encode().as_bytes(), XattrFlags::empty()),
        };
        match result {
            Err(Errno::NODATA) => Ok(()),
            Err(Errno::PERM) if !can_have_one(path) => Ok(()),
            result => result,
        }
    }

    /// Reads that of what is at a path, which may be a link.
    pub(crate) fn get(path: &Path) -> Result<Self, Errno> {
        let mut value = [0; MAX_RECORD];
        match lgetxattr(path, RECORD, &mut value) {
            Ok(n_bytes) => Ok(Self::parse(&value[..n_bytes]).unwrap_or_default()),
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(Self::default()),
            Err(errno) => Err(errno),
        }
    }
}

/// Gives what is at `path`, links not followed, those attributes that belong to the content of an image, as far as the file system
/// and the rights of this process go.
pub fn dress<'a>(path: &Path, attributes: impl Iterator<Item = (&'a Vec<u8>, &'a Vec<u8>)>) {
    for (name, value) in attributes.filter(|(name, _)| is_kept(name)) {
        // Whoever may not have an attribute has the file without it, as with BuildKit.
        let _ = set_attribute(path, name, value);
    }
}

/// How the names begin under which access lists are kept that name ids the kernel does not have here.
const STAND_IN: &[u8] = b"user.kiln.";

/// Sets an attribute of what is at a path. An access list whose ids are not there is kept for the layers that will need it.
pub(crate) fn set_attribute(path: &Path, name: &[u8], value: &[u8]) -> Result<(), Errno> {
    match lsetxattr(path, name, value, XattrFlags::empty()) {
        Err(Errno::INVAL) if are_beside() && name.starts_with(b"system.posix_acl_") => {
            lsetxattr(path, [STAND_IN, name].concat(), value, XattrFlags::empty())
        }
        result => result,
    }
}

/// The attribute that one of this name was kept for; most are for themselves.
pub(crate) fn stands_for(name: &[u8]) -> &[u8] {
    match name.strip_prefix(STAND_IN) {
        Some(other) if are_beside() && other.starts_with(b"system.posix_acl_") => other,
        _ => name,
    }
}

fn can_have_one(path: &Path) -> bool {
    statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE).is_ok_and(|it| {
        let kind = FileType::from_raw_mode(it.stx_mode.into());
        matches!(kind, FileType::RegularFile | FileType::Directory)
    })
}

/// The key of what is at a path in [`LinkOwners`].
pub(crate) fn inode(path: &Path) -> Result<(u64, i64, u32), Errno> {
    let wanted = StatxFlags::INO | StatxFlags::BTIME;
    let stat = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, wanted)?;
    Ok((stat.stx_ino, stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The other crate that keeps these records reads the same file.
    #[test]
    fn values_of_the_attribute() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/single-id/records");
        let text = std::fs::read_to_string(path).expect("the records are there");
        let mut n_values = 0;
        for line in text.lines().filter(|it| !it.starts_with('#')) {
            let (value, fields) = line.split_once(" = ").expect("a value and what it means");
            let fields: Vec<&str> = fields.split(' ').collect();
            let number = |nth: usize| fields[nth].parse().expect("a number");
            let device = |is_block| Device { is_block, major: number(3), minor: number(4) };
            let expected = match (fields[0], fields.get(2)) {
                ("none", _) => None,
                (_, kind) => Some(Record {
                    uid: number(0),
                    gid: number(1),
                    device: kind.map(|it| device(*it == "b")),
                }),
            };
            assert_eq!(Record::parse(value.as_bytes()), expected, "{line}");
            if let Some(record) = expected {
                assert_eq!(record.encode(), value, "{line}");
            }
            n_values += 1;
        }
        assert!(n_values > 10, "{n_values}");
    }
}
