//! Following symbolic links inside of a root.

use super::MAX_LINKS;
use crate::{
    entry::Kind,
    error::{ResolveError, lossy},
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
///
/// What is there lies in folders. So of the parts up to the next `..` the last one that is there is looked for, and what leads to it is
/// not looked at.
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
    while !parts.is_empty() {
        if parts.pop_if(|it| *it == b"..").is_some() {
            real.truncate(real.iter().rposition(|it| *it == b'/').unwrap_or(0));
            continue;
        }
        let n_walked = real.len();
        while let Some(part) = parts.pop_if(|it| *it != b"..") {
            if !real.is_empty() {
                real.push(b'/');
            }
            real.extend_from_slice(&part);
        }
        let found = deepest(&real, n_walked, |path| match see(path) {
            Seen::Missing => None,
            seen => Some(seen),
        });
        let Some((len, seen)) = found else { continue };
        let is_final = len == real.len() && parts.is_empty();
        match seen {
            Seen::Link(target) if follow_final || !is_final => {
                n_links += 1;
                if n_links > MAX_LINKS {
                    return Err(ResolveError::Loop { path: lossy(path) });
                }
                push(&mut parts, &real[len..]);
                real.truncate(real[..len].iter().rposition(|it| *it == b'/').unwrap_or(0));
                if target.starts_with(b"/") {
                    real.clear();
                }
                push(&mut parts, &target);
            }
            Seen::Other if !is_final => {
                return Err(ResolveError::NotAFolder {
                    path: lossy(path),
                    found: lossy(&real[..len]),
                });
            }
            _ => {}
        }
    }
    Ok(real)
}

/// Looks for the longest part of `path`, longer than its first `start` bytes, at which something is: how long that is, and what is there.
pub(super) fn deepest<T>(
    path: &[u8],
    start: usize,
    see: impl Fn(&[u8]) -> Option<T>,
) -> Option<(usize, T)> {
    let slashes = path.iter().enumerate().skip(start + 1).filter(|(_, byte)| **byte == b'/');
    let ends: Vec<usize> = slashes.map(|(at, _)| at).chain([path.len()]).collect();
    // Most paths are there.
    let mut found = None;
    let (mut low, mut high) = (0, ends.len());
    let mut middle = ends.len() - 1;
    while low < high {
        match see(&path[..ends[middle]]) {
            Some(it) => {
                found = Some((ends[middle], it));
                low = middle + 1;
            }
            None => high = middle,
        }
        middle = low + (high - low) / 2;
    }
    found
}
