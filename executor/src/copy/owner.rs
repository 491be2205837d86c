//! Names of users and groups, looked up in the tree that files go to.

use crate::{error::ExecutorError, tree::Tree};

/// A passwd or group file longer than this is not read.
const LIMIT: u64 = 10 << 20;

/// The owner that `--chown` means: `user`, `user:group`, by name or number.
///
/// As the reference does it, a name that is not in the tree's files, or whose file the tree lacks, is 0. Names over
/// nothing at all (`FROM scratch`, `--link`) are an error, and so is a file that is none.
pub(crate) fn chown(text: &str, tree: &Tree) -> Result<(u32, u32), ExecutorError> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let (uid, own_gid) = match id(user) {
        Some(uid) => (uid, uid),
        None if user.is_empty() => (0, 0),
        None => by_name(tree, b"etc/passwd", user, text)?.unwrap_or((0, 0)),
    };
    let gid = match group {
        None | Some("") => own_gid,
        Some(group) => match id(group) {
            Some(gid) => gid,
            None => by_name(tree, b"etc/group", group, text)?.map_or(0, |(gid, _)| gid),
        },
    };
    Ok((uid, gid))
}

/// The owner of a folder that WORKDIR makes for a USER.
pub(crate) fn user(text: &str, tree: &Tree) -> Result<(u32, u32), ExecutorError> {
    chown(text, tree)
}

/// A number, or `root`, which is 0 whatever the tree's files say.
fn id(text: &str) -> Option<u32> {
    if text == "root" { Some(0) } else { number(text) }
}

fn number(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|it| it.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Finds `name` in a file of lines `name:password:id:id…`; returns the two numbers (the second 0 in a group file).
fn by_name(
    tree: &Tree,
    path: &[u8],
    name: &str,
    text: &str,
) -> Result<Option<(u32, u32)>, ExecutorError> {
    let is_missing = || Ok::<_, ExecutorError>(tree.lookup(&tree.resolve(path, true)?)?.is_none());
    let Some(bytes) = tree.read_small(path, LIMIT)? else {
        if !tree.is_scratch() && is_missing()? {
            return Ok(None);
        }
        return Err(ExecutorError::UnknownOwner {
            owner: text.to_owned(),
            file: format!("/{}", String::from_utf8_lossy(path)),
        });
    };
    for line in bytes.split(|it| *it == b'\n') {
        let mut fields = line.split(|it| *it == b':');
        if fields.next() != Some(name.as_bytes()) {
            continue;
        }
        let mut id = |nth: usize| {
            let field = fields.nth(nth)?;
            number(std::str::from_utf8(field).ok()?.trim())
        };
        if let Some(first) = id(1) {
            return Ok(Some((first, id(0).unwrap_or(0))));
        }
    }
    Ok(None)
}
