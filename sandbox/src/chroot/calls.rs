//! The system calls that the thread of [`proc`](super::proc) is asked about.

use crate::seccomp::Ask;

/// The calls that are asked about, where their path is, and what is done.
pub(super) const CALLS: [(&str, Call); 17] = [
    ("open", Call { path: 0, what: What::Open(1) }),
    ("openat", Call { path: 1, what: What::Open(2) }),
    ("openat2", Call { path: 1, what: What::OpenHow }),
    ("readlink", Call { path: 0, what: What::ReadLink(1) }),
    ("readlinkat", Call { path: 1, what: What::ReadLink(2) }),
    ("stat", Call { path: 0, what: What::Stat(1, None) }),
    ("lstat", Call { path: 0, what: What::LinkStat(1) }),
    ("newfstatat", Call { path: 1, what: What::Stat(2, Some(3)) }),
    ("statx", Call { path: 1, what: What::Statx }),
    ("access", Call { path: 0, what: What::Access(1) }),
    ("faccessat", Call { path: 1, what: What::Access(2) }),
    ("faccessat2", Call { path: 1, what: What::Access(2) }),
    ("getxattr", Call { path: 0, what: What::Attributes }),
    ("lgetxattr", Call { path: 0, what: What::Attributes }),
    ("listxattr", Call { path: 0, what: What::Attributes }),
    ("llistxattr", Call { path: 0, what: What::Attributes }),
    ("execve", Call { path: 0, what: What::Execute }),
];

/// Where the arguments of a call are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    /// The number of the argument that is the path.
    pub(super) path: usize,
    /// What is done.
    pub(super) what: What,
}

/// What is done about a call.
#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    /// With the number of the argument that holds the flags.
    Open(usize),
    /// `openat2`, whose flags lie in memory.
    OpenHow,
    /// With that of the buffer; its size comes next.
    ReadLink(usize),
    /// With that of the buffer and that of the flags.
    Stat(usize, Option<usize>),
    /// Of a link itself.
    LinkStat(usize),
    Statx,
    /// With that of the rights asked for.
    Access(usize),
    /// Of which there are none.
    Attributes,
    /// `/proc/self/exe`, as busybox does it: the real path takes its place in the memory of the caller, if it is no longer. Nobody
    /// but the kernel can execute for a process.
    Execute,
}

/// When a filter asks about this call. Not if the path begins at an open directory, as it does for every file that a program
/// finds by walking through a tree: to ask then would cost much and help few.
pub(crate) fn ask(name: &str) -> Option<Ask> {
    const IS_NEGATIVE: u32 = 1 << 31;
    let (_, call) = CALLS.iter().find(|(it, _)| *it == name)?;
    Some(match call.path {
        // `AT_FDCWD` is negative, and a handle is not.
        1 => Ask::IfBits(0, IS_NEGATIVE),
        _ => Ask::Always,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp;

    #[test]
    fn every_call_is_in_the_table() {
        let names: Vec<&str> = seccomp::numbers().map(|(name, _)| name).collect();
        for (name, _) in CALLS {
            // Newer machines lack the old forms.
            assert!(names.contains(&name) || cfg!(not(target_arch = "x86_64")), "{name}");
        }
    }
}
