//! The process that becomes the command: its streams, limits, rights and identity, then `execve`.
//!
//! It shares the memory of the sandbox's first process, which is suspended meanwhile. Only system
//! calls are made, see [`init`](crate::init).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, Result};
use rustix::thread::CapabilitySet;

use crate::init::{LISTENER, send_handle};
use crate::program::{At, Failure, Process, Step};
use crate::sys;

/// Turns the process it runs in into the command.
pub(crate) fn become_command(
    process: &Process,
    report: &OwnedFd,
    terminal: Option<BorrowedFd<'_>>,
    is_privileged: bool,
) -> std::result::Result<std::convert::Infallible, Failure> {
    let _ = rustix::process::setsid();
    streams(process, terminal).at(Step::Streams)?;
    // Not only on exec: no handle may be a way to the working directory, either.
    sys::close_all_but(report.as_raw_fd());
    match sys::new_session_keyring() {
        // No keys in this kernel, or none left for this user: no keyring is passed on either.
        Ok(()) | Err(Errno::NOSYS | Errno::DQUOT | Errno::PERM | Errno::ACCESS) => {}
        Err(errno) => return Err(errno).at(Step::Start),
    }
    // kiln does without them, for itself only.
    let _ = rustix::thread::disable_transparent_huge_pages(false);
    for (index, (resource, soft, hard)) in process.limits.iter().enumerate() {
        sys::set_limit(*resource, *soft, *hard).at_index(Step::Limit, index)?;
    }
    rustix::process::chdir(process.cwd.as_c_str()).at(Step::Cwd)?;
    // A working directory is a handle, too, and may not lead out.
    if !is_inside_root().at(Step::Cwd)? {
        return Err(Errno::XDEV).at(Step::CwdOutside);
    }

    if process.no_new_privs {
        rustix::thread::set_no_new_privs(true).at(Step::Seccomp)?;
    }
    if let Some(filter) = &process.filter {
        // Before the capabilities go, because without no_new_privs it needs CAP_SYS_ADMIN.
        if process.asks {
            let listener = sys::notify::install_filter_with_listener(filter).at(Step::Seccomp)?;
            send_handle(report, LISTENER, listener.as_fd()).at(Step::Seccomp)?;
        } else {
            sys::install_filter(filter).at(Step::Seccomp)?;
        }
    }
    if !is_privileged {
        bound_capabilities(process.capabilities).at(Step::Capabilities)?;
    }
    if !process.is_supervised {
        let (uid, gid) = (process.uid, process.gid);
        rustix::thread::set_thread_groups(&process.groups).at(Step::User)?;
        rustix::thread::set_thread_res_gid(gid, gid, gid).at(Step::User)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).at(Step::User)?;
    }
    if process.uid.is_root() {
        set_capabilities(process.capabilities).at(Step::Capabilities)?;
    }

    if process.dies_with_parent {
        // After the user, because changing that takes it away.
        let signal = Some(rustix::process::Signal::KILL);
        rustix::process::set_parent_process_death_signal(signal).at(Step::Start)?;
    }
    sys::unblock_signals();
    let mut errno = Errno::NOENT;
    for command in &process.commands {
        match sys::execve(command, &process.argv, &process.envp) {
            Errno::NOENT | Errno::NOTDIR => {}
            // As a shell does it: go on looking, but remember that something was there.
            Errno::ACCESS => errno = Errno::ACCESS,
            other => return Err(other).at(Step::Exec),
        }
    }
    Err(errno).at(Step::Exec)
}

fn streams(process: &Process, terminal: Option<BorrowedFd<'_>>) -> Result<()> {
    if let Some(terminal) = terminal {
        rustix::process::ioctl_tiocsctty(terminal)?;
        rustix::fs::fchown(terminal, Some(process.uid), None)?;
        for number in 0..3 {
            sys::dup_to(terminal, number)?;
        }
    } else {
        for (number, stream) in (0..).zip(&process.streams) {
            if let Some(stream) = stream {
                sys::dup_to(stream.as_fd(), number)?;
            }
        }
    }
    Ok(())
}

/// Whether the working directory can be reached from the root: the kernel prefixes the path of one
/// that cannot with `(unreachable)`.
fn is_inside_root() -> Result<bool> {
    let mut buffer = [0_u8; 4096];
    let n_bytes = sys::getcwd(&mut buffer)?;
    Ok(n_bytes > 0 && buffer[0] == b'/')
}

/// Drops what is not in `keep` from the bounding set and empties the ambient set.
fn bound_capabilities(keep: u64) -> Result<()> {
    for number in 0..64 {
        if keep & (1 << number) != 0 {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(
            1 << number,
        )) {
            Ok(()) => {}
            // Past the last one the kernel has.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    match rustix::thread::clear_ambient_capability_set() {
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn set_capabilities(keep: u64) -> Result<()> {
    let has = rustix::thread::capabilities(None)?.permitted;
    let set = CapabilitySet::from_bits_retain(keep) & has;
    let sets = rustix::thread::CapabilitySets {
        effective: set,
        permitted: set,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets)
}
