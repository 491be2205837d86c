//! Following symbolic links inside of a root.

use super::MAX_LINKS;
use crate::{
    entry::Kind,
    error::{ResolveError, lossy},
    layer::join_path,
};

/// What following a path needs to know of each step.
pub(super) enum Seen {
    Missing,
    Folder,
    Link(Vec<u8>),
    Other,
}

impl Seen {
    pub(super) fn of(kind: &Kind) -> Self {
        match kind {
            Kind::Directory => Self::Folder,
            Kind::Symlink { target } => Self::Link(target.clone()),
            _ => Self::Other,
        }
    }
}

/// Follows `path` as the kernel would below a root: an absolute link starts at the root again, and `..` of the root is the root.
pub(super) fn resolve(
    path: &[u8],
    follow_final: bool,
    see: impl Fn(&[u8]) -> Seen,
) -> Result<Vec<u8>, ResolveError> {
    let mut real: Vec<u8> = Vec::new();
    let mut n_links = 0;
    // What is still to walk, the next part last.
    let mut parts: Vec<Vec<u8>> = Vec::new();
    let push = |parts: &mut Vec<Vec<u8>>, path: &[u8]| {
        let split = path.split(|it| *it == b'/').filter(|it| !matches!(*it, b"" | b"."));
        parts.extend(split.rev().map(<[u8]>::to_vec));
    };
    push(&mut parts, path);
    while let Some(part) = parts.pop() {
        if part == b".." {
            real.truncate(real.iter().rposition(|it| *it == b'/').unwrap_or(0));
            continue;
        }
        let here = join_path(&real, &part);
        match see(&here) {
            Seen::Link(target) if follow_final || !parts.is_empty() => {
                n_links += 1;
                if n_links > MAX_LINKS {
                    return Err(ResolveError::Loop { path: lossy(path) });
                }
                if target.starts_with(b"/") {
                    real.clear();
                }
                push(&mut parts, &target);
            }
            Seen::Other if !parts.is_empty() => {
                return Err(ResolveError::NotAFolder { path: lossy(path), found: lossy(&here) });
            }
            _ => real = here,
        }
    }
    Ok(real)
}
