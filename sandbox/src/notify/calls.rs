//! The calls that the supervisor is asked about.

use std::collections::HashMap;

use crate::seccomp::{self, Ask};

/// One of them. Where two differ in nothing but where their arguments are, the name is that of the kernel's call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Call {
    Stat,
    Lstat,
    Fstat,
    Newfstatat,
    Statx,
    Chown,
    Lchown,
    Fchown,
    Fchownat,
    Open,
    Openat,
    Openat2,
    Creat,
    Mkdir,
    Mkdirat,
    Mknod,
    Mknodat,
    Symlink,
    Symlinkat,
    Rename,
    Renameat,
    Link,
    Linkat,
    Unlink,
    Unlinkat,
    Rmdir,
    Access,
    Faccessat,
    Faccessat2,
    Chmod,
    Fchmod,
    Fchmodat,
    Utimensat,
    Truncate,
    Chdir,
    Listxattr,
    Llistxattr,
    Flistxattr,
    Setuid,
    Setgid,
    Setreuid,
    Setregid,
    Setresuid,
    Setresgid,
    Setfsuid,
    Setfsgid,
    Setgroups,
    Getuid,
    Geteuid,
    Getgid,
    Getegid,
    Getresuid,
    Getresgid,
    Getgroups,
    Capget,
    Capset,
    Prctl,
    Execve,
    Execveat,
    Exit,
    Chroot,
}

/// When it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Always,
    /// If a file is written to or made: with this argument as the flags of `open`.
    Writes(u8),
    /// If this argument has this bit.
    HasBit(u8, u32),
    /// If the command does not start as root.
    NotAsRoot,
}

/// `O_CREAT`, `O_WRONLY`, `O_RDWR`, `O_TRUNC` and the part of `O_TMPFILE` that no other flag has.
const WRITING: u32 =
    (libc::O_CREAT | libc::O_WRONLY | libc::O_RDWR | libc::O_TRUNC) as u32 | 0o20_000_000;

const CALLS: &[(&str, Call, When)] = {
    use Call::*;
    use When::*;
    &[
        ("stat", Stat, Always),
        ("lstat", Lstat, Always),
        ("fstat", Fstat, Always),
        ("newfstatat", Newfstatat, Always),
        ("statx", Statx, Always),
        ("chown", Chown, Always),
        ("lchown", Lchown, Always),
        ("fchown", Fchown, Always),
        ("fchownat", Fchownat, Always),
        ("open", Open, Writes(1)),
        ("openat", Openat, Writes(2)),
        ("openat2", Openat2, Always),
        ("creat", Creat, Always),
        ("mkdir", Mkdir, Always),
        ("mkdirat", Mkdirat, Always),
        ("mknod", Mknod, Always),
        ("mknodat", Mknodat, Always),
        ("symlink", Symlink, Always),
        ("symlinkat", Symlinkat, Always),
        ("rename", Rename, Always),
        ("renameat", Renameat, Always),
        ("renameat2", Renameat, Always),
        ("link", Link, Always),
        ("linkat", Linkat, Always),
        ("unlink", Unlink, Always),
        ("unlinkat", Unlinkat, Always),
        ("rmdir", Rmdir, Always),
        ("access", Access, Always),
        ("faccessat", Faccessat, Always),
        ("faccessat2", Faccessat2, Always),
        ("chmod", Chmod, Always),
        ("fchmod", Fchmod, Always),
        ("fchmodat", Fchmodat, Always),
        ("fchmodat2", Fchmodat, Always),
        ("utimensat", Utimensat, NotAsRoot),
        ("truncate", Truncate, NotAsRoot),
        ("chdir", Chdir, NotAsRoot),
        ("listxattr", Listxattr, Always),
        ("llistxattr", Llistxattr, Always),
        ("flistxattr", Flistxattr, Always),
        ("setuid", Setuid, Always),
        ("setgid", Setgid, Always),
        ("setreuid", Setreuid, Always),
        ("setregid", Setregid, Always),
        ("setresuid", Setresuid, Always),
        ("setresgid", Setresgid, Always),
        ("setfsuid", Setfsuid, Always),
        ("setfsgid", Setfsgid, Always),
        ("setgroups", Setgroups, Always),
        ("getuid", Getuid, Always),
        ("geteuid", Geteuid, Always),
        ("getgid", Getgid, Always),
        ("getegid", Getegid, Always),
        ("getresuid", Getresuid, Always),
        ("getresgid", Getresgid, Always),
        ("getgroups", Getgroups, Always),
        ("capget", Capget, Always),
        ("capset", Capset, Always),
        ("prctl", Prctl, HasBit(0, libc::PR_SET_KEEPCAPS as u32)),
        ("execve", Execve, Always),
        ("execveat", Execveat, Always),
        ("exit", Exit, Always),
        ("exit_group", Exit, Always),
        ("chroot", Chroot, Always),
    ]
};

/// Calls that do the same as others here in a form that the supervisor does not know.
const ABSENT: [&str; 1] = ["listxattrat"];

/// What the filter of a process does with a call, by its name.
pub(crate) fn ask(name: &str, starts_as_root: bool) -> Option<Ask> {
    if ABSENT.contains(&name) {
        return Some(Ask::Absent);
    }
    let (_, _, when) = CALLS.iter().find(|(it, ..)| *it == name)?;
    match (when, starts_as_root) {
        (When::HasBit(argument, bit), _) => Some(Ask::IfBits(*argument, *bit)),
        (When::Always, _) | (_, false) => Some(Ask::Always),
        (When::Writes(argument), true) => Some(Ask::IfBits(*argument, WRITING)),
        (When::NotAsRoot, true) => None,
    }
}

/// The calls by the numbers they have here.
pub(crate) fn by_number() -> HashMap<i32, Call> {
    let by_name: HashMap<&str, Call> = CALLS.iter().map(|(name, call, _)| (*name, *call)).collect();
    seccomp::numbers().filter_map(|(name, number)| Some((number, *by_name.get(name)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_in_the_table() {
        let names: Vec<&str> = seccomp::numbers().map(|(name, _)| name).collect();
        for (name, ..) in CALLS {
            // Newer machines lack the old forms.
            assert!(names.contains(name) || cfg!(not(target_arch = "x86_64")), "{name}");
        }
        assert!(by_number().len() > 40);
    }
}
