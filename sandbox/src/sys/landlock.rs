//! Landlock: rules by which a process gives up access for itself and its children.

use std::ffi::{c_int, c_void};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Result;

use super::check;

/// What a ruleset decides about; zero is "not decided".
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Handled {
    pub(crate) files: u64,
    pub(crate) network: u64,
    pub(crate) scopes: u64,
}

/// The version of Landlock that the kernel enforces.
pub(crate) fn landlock_version() -> Result<u32> {
    const LANDLOCK_CREATE_RULESET_VERSION: c_int = 1;
    // SAFETY: with this flag the kernel reads no attribute and only returns a number.
    check(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<c_void>(),
            0_usize,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    })
    .map(|version| version as u32)
}

/// Makes a ruleset without rules: all that it decides about is forbidden.
///
/// # Source
///
/// `landlock_create_ruleset(2)`. Fields that are zero may be unknown to the kernel.
pub(crate) fn create_ruleset(handled: &Handled) -> Result<OwnedFd> {
    let n_bytes = match handled {
        Handled { scopes: 0, network: 0, .. } => size_of::<u64>(),
        Handled { scopes: 0, .. } => 2 * size_of::<u64>(),
        _ => size_of::<Handled>(),
    };
    // SAFETY: the kernel reads `n_bytes`, which are not more than there are; the descriptor is new.
    unsafe {
        let fd = check(libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::from_ref(handled),
            n_bytes,
            0,
        ))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// Allows something for all that lies below a directory.
///
/// # Source
///
/// `landlock_add_rule(2)`, `LANDLOCK_RULE_PATH_BENEATH`.
pub(crate) fn allow_beneath(
    ruleset: BorrowedFd<'_>,
    directory: BorrowedFd<'_>,
    allowed: u64,
) -> Result<()> {
    const LANDLOCK_RULE_PATH_BENEATH: c_int = 1;
    #[repr(C, packed)]
    struct Beneath {
        allowed: u64,
        parent: c_int,
    }
    let rule = Beneath { allowed, parent: directory.as_raw_fd() };
    // SAFETY: the kernel reads `rule`, which outlives the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_raw_fd(),
            LANDLOCK_RULE_PATH_BENEATH,
            &raw const rule,
            0,
        )
    })
    .map(drop)
}

/// Binds this thread, and all that it starts, to a ruleset for good.
pub(crate) fn restrict_self(ruleset: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes two integers.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) })
        .map(drop)
}
