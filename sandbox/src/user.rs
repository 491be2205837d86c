//! The `USER` of a process: text in, numbers out, by the passwd and group files of its root.
//!
//! The files come from an image, so they are read with suspicion: only regular files, only up to
//! [`MAX_FILE`] bytes, and a line that does not parse is passed over. Digits are always an id and
//! never a name, so no line of the file can turn `USER 1000` into root.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use crate::error::SandboxError;
use crate::inside;

/// Longest passwd or group file that is read, in bytes; the limit that BuildKit has.
const MAX_FILE: u64 = 10 << 20;

/// Longest line that is looked at, in bytes.
const MAX_LINE: usize = 1 << 20;

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// User id.
    pub(crate) uid: u32,
    /// Primary group id.
    pub(crate) gid: u32,
    /// All groups, the primary one among them.
    pub(crate) groups: Vec<u32>,
    /// The home directory, `/` if the user has none.
    pub(crate) home: Vec<u8>,
}

/// Finds out who `spec` is in the tree below `root`.
///
/// - empty: as `0`, and a root without passwd file is no error.
/// - `name`: must be in the passwd file, which also gives the group; supplementary groups come from
///   the group file.
/// - `uid`: the same if the passwd file knows it, else group 0.
/// - `name:group`, `uid:gid` and so on: this group and no supplementary ones.
///
/// # Errors
///
/// [`SandboxError::UnknownUser`], [`SandboxError::UnknownGroup`], [`SandboxError::IdOutOfRange`],
/// and [`SandboxError::UserFile`] if a file that is needed is not a regular file or is too long.
pub(crate) fn identify(root: BorrowedFd<'_>, spec: &str) -> Result<Identity, SandboxError> {
    let (user, group) = match spec.split_once(':') {
        Some((user, group)) => (user, (!group.is_empty()).then_some(group)),
        None => (spec, None),
    };
    let is_default = spec.is_empty();
    let user = if user.is_empty() { "0" } else { user };
    let uid = id(user)?;
    let gid = group.map(id).transpose()?.flatten();

    let found = match find_user(root, user, uid) {
        Err(SandboxError::UserFile { .. }) if is_default => None,
        found => found?,
    };
    let mut identity = match (&found, uid) {
        (Some(found), _) => {
            Identity { uid: found.uid, gid: found.gid, groups: vec![], home: found.home.clone() }
        }
        (None, Some(uid)) => Identity { uid, gid: 0, groups: vec![], home: b"/".to_vec() },
        (None, None) => return Err(SandboxError::UnknownUser { name: user.to_owned() }),
    };
    match (group, gid, found) {
        (Some(_), Some(gid), _) => identity.gid = gid,
        (Some(name), None, _) => {
            identity.gid = find_group(root, name)?
                .ok_or_else(|| SandboxError::UnknownGroup { name: name.to_owned() })?;
        }
        (None, _, Some(found)) => match groups_of(root, &found.name) {
            Err(SandboxError::UserFile { .. }) if is_default => {}
            groups => identity.groups = groups?,
        },
        (None, _, None) => {}
    }
    // The primary group belongs among them, or a set-group-id program could drop it (CVE-2022-36109).
    identity.groups.insert(0, identity.gid);
    let mut seen = Vec::new();
    identity.groups.retain(|gid| {
        !seen.contains(gid) && {
            seen.push(*gid);
            true
        }
    });
    Ok(identity)
}

/// Reads an id: `None` if the text is a name.
fn id(text: &str) -> Result<Option<u32>, SandboxError> {
    let out_of_range = || SandboxError::IdOutOfRange { text: text.to_owned() };
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    // The kernel reads the highest number as "no change".
    match text.parse::<u32>() {
        Ok(u32::MAX) | Err(_) => Err(out_of_range()),
        Ok(id) => Ok(Some(id)),
    }
}

struct Entry {
    name: Vec<u8>,
    uid: u32,
    gid: u32,
    home: Vec<u8>,
}

fn find_user(
    root: BorrowedFd<'_>,
    name: &str,
    uid: Option<u32>,
) -> Result<Option<Entry>, SandboxError> {
    let mut found = None;
    each_line(root, "etc/passwd", "/etc/passwd", |fields| {
        let (Some(uid_here), Some(gid)) = (number(fields, 2), number(fields, 3)) else {
            return false;
        };
        let is_it = match uid {
            Some(uid) => uid == uid_here,
            None => fields[0] == name.as_bytes(),
        };
        if is_it {
            let home = fields.get(5).filter(|it| !it.is_empty()).map_or(&b"/"[..], |it| it);
            found =
                Some(Entry { name: fields[0].to_vec(), uid: uid_here, gid, home: home.to_vec() });
        }
        is_it
    })?;
    Ok(found)
}

fn find_group(root: BorrowedFd<'_>, name: &str) -> Result<Option<u32>, SandboxError> {
    let mut found = None;
    each_line(root, "etc/group", "/etc/group", |fields| {
        if fields[0] == name.as_bytes() {
            found = number(fields, 2);
        }
        found.is_some()
    })?;
    Ok(found)
}

fn groups_of(root: BorrowedFd<'_>, user: &[u8]) -> Result<Vec<u32>, SandboxError> {
    let mut found = Vec::new();
    each_line(root, "etc/group", "/etc/group", |fields| {
        let members = fields.get(3).copied().unwrap_or_default();
        if members.split(|byte| *byte == b',').any(|it| it == user) {
            found.extend(number(fields, 2));
        }
        false
    })?;
    Ok(found)
}

fn number(fields: &[&[u8]], index: usize) -> Option<u32> {
    let text = std::str::from_utf8(fields.get(index)?).ok()?;
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| is_plain && *id != u32::MAX)
}

/// Calls `visit` with the fields of each line until it says that it is done. A missing file has no
/// lines.
fn each_line(
    root: BorrowedFd<'_>,
    path: &str,
    shown: &'static str,
    mut visit: impl FnMut(&[&[u8]]) -> bool,
) -> Result<(), SandboxError> {
    let wrong = |reason: String| SandboxError::UserFile { path: shown, reason };
    // Looked at as a place first: opening a device or a pipe for reading can already do harm.
    let place = match inside::open(root, path) {
        Ok(place) => place,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        Err(errno) => return Err(wrong(errno.to_string())),
    };
    let stat = rustix::fs::fstat(&place).map_err(|errno| wrong(errno.to_string()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(wrong("not a regular file".to_owned()));
    }
    if u64::try_from(stat.st_size).unwrap_or(u64::MAX) > MAX_FILE {
        return Err(wrong(format!("longer than {MAX_FILE} bytes")));
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = inside::open_with(root, path, flags).map_err(|errno| wrong(errno.to_string()))?;
    let mut reader = BufReader::new(std::fs::File::from(file).take(MAX_FILE));
    let mut line = Vec::new();
    loop {
        line.clear();
        let n_read =
            reader.read_until(b'\n', &mut line).map_err(|error| wrong(error.to_string()))?;
        if n_read == 0 {
            return Ok(());
        }
        if n_read > MAX_LINE {
            continue;
        }
        let text = line.trim_ascii();
        if text.is_empty() || text.starts_with(b"#") {
            continue;
        }
        let fields: Vec<&[u8]> = text.split(|byte| *byte == b':').collect();
        if visit(&fields) {
            return Ok(());
        }
    }
}

#[cfg(test)]
#[path = "user_tests.rs"]
mod tests;
