//! What the processes in a chroot are kept from: all files but those of their root, and signals and sockets of others.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Result;

use crate::sys::{self, Handled};

/// Rights on files, by the version of Landlock that brought them: how many of the lowest bits it knows.
const N_RIGHTS: [(u32, u32); 4] = [(1, 13), (2, 14), (3, 15), (5, 16)];

/// The oldest version that is of use: with the first, no file can be moved to another directory.
const OLDEST: u32 = 2;

/// The version from which on signals and abstract sockets are kept apart.
const WITH_SCOPES: u32 = 6;

/// Abstract sockets, and signals.
const SCOPES: u64 = 0b11;

/// Makes the rules for processes that may do anything below `root`, and nothing elsewhere; none where the kernel has no
/// Landlock that is of use.
pub(crate) fn ruleset(root: BorrowedFd<'_>) -> Result<Option<OwnedFd>> {
    let version = match sys::landlock_version() {
        Ok(version) if version >= OLDEST => version,
        _ => return Ok(None),
    };
    let files = rights(version);
    let scopes = if version >= WITH_SCOPES { SCOPES } else { 0 };
    let ruleset = sys::create_ruleset(&Handled { files, network: 0, scopes })?;
    sys::allow_beneath(ruleset.as_fd(), root, files)?;
    Ok(Some(ruleset))
}

/// What Landlock of this kernel does, in words.
pub(crate) fn describe() -> &'static str {
    match sys::landlock_version() {
        Ok(version) if version >= WITH_SCOPES => "files, signals and sockets",
        Ok(version) if version >= OLDEST => "files",
        _ => "nothing",
    }
}

fn rights(version: u32) -> u64 {
    let known = N_RIGHTS.iter().rev().find(|(since, _)| *since <= version);
    known.map_or(0, |(_, n)| (1 << n) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_has_its_rights() {
        assert_eq!(rights(0), 0);
        assert_eq!(rights(1), 0x1FFF);
        assert_eq!(rights(2), 0x3FFF);
        assert_eq!(rights(4), 0x7FFF);
        assert_eq!(rights(9), 0xFFFF);
    }
}
