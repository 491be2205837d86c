//! What the set-up process needs, prepared by its parent.
//!
//! The set-up process may not allocate, so every path, array and handle it uses is made here
//! beforehand, by ordinary code that can fail with ordinary errors. What is left for it are system
//! calls; where one of them fails, it reports a [`Failure`].

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Gid, Uid};

use crate::spec::Stdio;
use crate::sys::{CStrings, Instruction};

/// One mount to attach.
pub(crate) struct Attach {
    /// What.
    pub(crate) what: What,
    /// What the set-up process has cut out, if it has to. Assigning it frees nothing.
    pub(crate) cut_out: Option<OwnedFd>,
    /// Where, relative to the root.
    pub(crate) target: CString,
    /// The mount that the target is in, by its place among those attached before, and the rest of the path.
    pub(crate) inside: Option<(usize, CString)>,
    /// Whether the target is a directory, if it has to be made.
    pub(crate) is_dir: bool,
    /// Attributes to set first.
    pub(crate) attrs: u64,
    /// Whether the attributes are for the mounts below it, too.
    pub(crate) recursive: bool,
}

impl Attach {
    /// The mount itself, once it has been cut out of what it is a part of.
    pub(crate) fn mount(&self) -> Option<BorrowedFd<'_>> {
        match (&self.cut_out, &self.what) {
            (Some(mount), _) | (None, What::Mount(mount)) => Some(mount.as_fd()),
            _ => None,
        }
    }
}

/// A mount that is attached somewhere.
pub(crate) enum What {
    /// A mount that is ready.
    Mount(OwnedFd),
    /// A part of a mount, which cannot be cut out before the mount has a place.
    Part {
        /// The whole.
        mount: OwnedFd,
        /// The path of the part.
        path: CString,
    },
    /// A file of the staging file system.
    Staged(CString),
}

/// Everything the set-up process does, in the order of its fields.
pub(crate) struct Program {
    /// The namespaces of the command, where it is not started by an init inside them.
    pub(crate) namespaces: i32,
    /// The process that sets up stays as the init of the command.
    pub(crate) is_init: bool,
    pub(crate) groups_to_join: Vec<OwnedFd>,
    pub(crate) own_cgroup_view: bool,
    pub(crate) hostname: Vec<u8>,
    /// A network namespace to enter.
    pub(crate) network: Option<OwnedFd>,
    pub(crate) has_own_network: bool,
    pub(crate) root: OwnedFd,
    /// Holds the content of [`What::Staged`].
    pub(crate) staging: Option<OwnedFd>,
    pub(crate) mounts: Vec<Attach>,
    pub(crate) dev: OwnedFd,
    pub(crate) shm: OwnedFd,
    /// Where the kernel has kiln's arguments and variables: init forgets them, since others can see init.
    pub(crate) command_line: std::ops::Range<usize>,
    /// Shown in place of masked directories.
    pub(crate) empty: OwnedFd,
    /// The machine's `/sys`, where a new one may not be possible.
    pub(crate) sys: Option<OwnedFd>,
    /// Mounts below `/dev`, which come after it.
    pub(crate) mounts_in_dev: Vec<Attach>,
    pub(crate) has_cgroup2: bool,
    pub(crate) masked: Vec<CString>,
    pub(crate) is_read_only: bool,
    pub(crate) privileged: bool,
    pub(crate) process: Process,
}

/// The process itself.
pub(crate) struct Process {
    pub(crate) stdio: Stdio,
    /// Standard input, output and errors, where they are not ours.
    pub(crate) streams: [Option<OwnedFd>; 3],
    /// Number of the resource, soft and hard limit.
    pub(crate) limits: Vec<(u32, u64, u64)>,
    pub(crate) cwd: CString,
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    pub(crate) groups: Vec<Gid>,
    pub(crate) capabilities: u64,
    pub(crate) no_new_privs: bool,
    /// Whether it is killed when its parent ends. A process that executes a set-user-id program loses this.
    pub(crate) dies_with_parent: bool,
    pub(crate) filter: Option<std::borrow::Cow<'static, [Instruction]>>,
    /// Whether the filter asks somebody.
    pub(crate) asks: bool,
    /// Whether the filter asks a supervisor, who also knows who the process is: for the kernel it is root then.
    pub(crate) is_supervised: bool,
    /// Paths to try in order.
    pub(crate) commands: Vec<CString>,
    pub(crate) argv: CStrings,
    pub(crate) envp: CStrings,
    pub(crate) stack: Vec<u8>,
}

/// The step at which the set-up process failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Step {
    JoinCgroup,
    CgroupView,
    Hostname,
    Network,
    Loopback,
    PrivateMounts,
    AttachRoot,
    PivotRoot,
    DetachOldRoot,
    Stage,
    /// With the index of the mount.
    Mount,
    Dev,
    Pts,
    Shm,
    Mqueue,
    Proc,
    Sys,
    Mask,
    /// With the index of the mount.
    MountInDev,
    ReadOnlyRoot,
    Terminal,
    Events,
    Start,
    Streams,
    /// With the index of the limit.
    Limit,
    Cwd,
    CwdOutside,
    Seccomp,
    Capabilities,
    User,
    Exec,
    Chroot,
    Landlock,
}

impl Step {
    const ALL: [Self; 33] = [
        Self::JoinCgroup,
        Self::CgroupView,
        Self::Hostname,
        Self::Network,
        Self::Loopback,
        Self::PrivateMounts,
        Self::AttachRoot,
        Self::PivotRoot,
        Self::DetachOldRoot,
        Self::Stage,
        Self::Mount,
        Self::Dev,
        Self::Pts,
        Self::Shm,
        Self::Mqueue,
        Self::Proc,
        Self::Sys,
        Self::Mask,
        Self::MountInDev,
        Self::ReadOnlyRoot,
        Self::Terminal,
        Self::Events,
        Self::Start,
        Self::Streams,
        Self::Limit,
        Self::Cwd,
        Self::CwdOutside,
        Self::Seccomp,
        Self::Capabilities,
        Self::User,
        Self::Exec,
        Self::Chroot,
        Self::Landlock,
    ];
}

/// A failed step, as it goes through the pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) step: Step,
    pub(crate) index: u16,
    pub(crate) errno: i32,
}

impl Failure {
    /// As bytes.
    pub(crate) fn encode(self) -> [u8; 7] {
        let [i0, i1] = self.index.to_le_bytes();
        let [e0, e1, e2, e3] = self.errno.to_le_bytes();
        [self.step as u8, i0, i1, e0, e1, e2, e3]
    }

    /// From bytes, if they are a whole record.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let [step, i0, i1, e0, e1, e2, e3] = *<&[u8; 7]>::try_from(bytes).ok()?;
        Some(Self {
            step: *Step::ALL.get(usize::from(step))?,
            index: u16::from_le_bytes([i0, i1]),
            errno: i32::from_le_bytes([e0, e1, e2, e3]),
        })
    }
}

/// Adds to an error at which step it happened.
pub(crate) trait At<T> {
    fn at(self, step: Step) -> Result<T, Failure>;
    fn at_index(self, step: Step, index: usize) -> Result<T, Failure>;
}

impl<T> At<T> for rustix::io::Result<T> {
    fn at(self, step: Step) -> Result<T, Failure> {
        self.at_index(step, 0)
    }

    fn at_index(self, step: Step, index: usize) -> Result<T, Failure> {
        let index = index.min(usize::from(u16::MAX)) as u16;
        self.map_err(|errno| Failure { step, index, errno: errno.raw_os_error() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_survive_the_pipe() {
        for (number, step) in Step::ALL.into_iter().enumerate() {
            assert_eq!(step as usize, number);
            let failure = Failure { step, index: 513, errno: 70_000 };
            assert_eq!(Failure::decode(&failure.encode()), Some(failure));
        }
        assert_eq!(Failure::decode(&[0; 6]), None);
        assert_eq!(Failure::decode(&[33, 0, 0, 0, 0, 0, 0]), None);
    }
}
