//! One call, one answer.

use std::ffi::CString;

use rustix::io::{Errno, Result};

use super::caller::Caller;
use super::calls::Call;
use super::identity::Processes;
use super::links::Links;
use crate::sys::notify::Reply;

/// Everything that answers depend on.
pub(crate) struct Answers {
    pub(crate) processes: Processes,
    pub(crate) links: Links,
    /// Whether owners of files and folders are among the links, because they could not be written to an attribute.
    pub(crate) has_unmarked: bool,
    /// The paths that the command may have, in the order in which they are tried.
    pub(crate) commands: Vec<CString>,
    /// The capabilities that root of the sandbox has.
    pub(crate) granted: u64,
    pub(crate) no_new_privs: bool,
    /// Whether some process has changed its root.
    pub(crate) may_have_own_root: bool,
}

impl Answers {
    /// Answers a call; `None` if the caller has its answer already.
    pub(crate) fn answer(&mut self, caller: &Caller<'_>, call: Call) -> Option<Reply> {
        let result = match call {
            Call::Stat | Call::Lstat | Call::Fstat | Call::Newfstatat | Call::Statx => {
                // The kernel knows best what is wrong, and is right where nothing is known.
                return Some(self.stat(caller, call).unwrap_or(Reply::Continue));
            }
            Call::Listxattr | Call::Llistxattr | Call::Flistxattr => {
                return Some(self.list_attributes(caller, call).unwrap_or(Reply::Continue));
            }
            Call::Chown | Call::Lchown | Call::Fchown | Call::Fchownat => self.chown(caller, call),
            Call::Open | Call::Openat | Call::Openat2 | Call::Creat => {
                match self.open(caller, call) {
                    Ok(None) => return None,
                    Ok(Some(reply)) => Ok(reply),
                    Err(errno) => Err(errno),
                }
            }
            Call::Mkdir
            | Call::Mkdirat
            | Call::Mknod
            | Call::Mknodat
            | Call::Symlink
            | Call::Symlinkat => self.create(caller, call),
            Call::Getuid
            | Call::Geteuid
            | Call::Getgid
            | Call::Getegid
            | Call::Getresuid
            | Call::Getresgid
            | Call::Getgroups => self.get_ids(caller, call),
            Call::Setuid
            | Call::Setgid
            | Call::Setreuid
            | Call::Setregid
            | Call::Setresuid
            | Call::Setresgid
            | Call::Setfsuid
            | Call::Setfsgid
            | Call::Setgroups => self.set_ids(caller, call),
            Call::Capget => return Some(self.get_capabilities(caller).unwrap_or(Reply::Continue)),
            Call::Capset => self.set_capabilities(caller),
            Call::Prctl => {
                self.control(caller);
                Ok(Reply::Continue)
            }
            Call::Execve | Call::Execveat => self.execute(caller, call),
            Call::Exit => {
                self.processes.ends(caller.call.tid);
                Ok(Reply::Continue)
            }
            Call::Chroot => {
                self.may_have_own_root = true;
                Ok(Reply::Continue)
            }
            Call::Rename
            | Call::Renameat
            | Call::Link
            | Call::Linkat
            | Call::Unlink
            | Call::Unlinkat
            | Call::Rmdir
            | Call::Access
            | Call::Faccessat
            | Call::Faccessat2
            | Call::Chmod
            | Call::Fchmod
            | Call::Fchmodat
            | Call::Utimensat
            | Call::Truncate
            | Call::Chdir => self.permission(caller, call),
        };
        Some(reply(result))
    }
}

/// Where something is missing or cannot be read, the kernel finds the same, or knows better: it sees `/proc` as the caller does.
fn reply(result: Result<Reply>) -> Reply {
    match result {
        Ok(reply) => reply,
        Err(
            Errno::NOENT | Errno::FAULT | Errno::SRCH | Errno::BADF | Errno::NOTDIR | Errno::LOOP,
        ) => Reply::Continue,
        Err(errno) => Reply::Error(errno),
    }
}
