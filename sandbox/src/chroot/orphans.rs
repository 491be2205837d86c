//! Processes in a chroot that have outlived both kiln and the first process, which would have ended them: something has killed the
//! two. No namespace holds them together, but each still has its root.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags};

use crate::sys;

/// How often it is looked again, because a process may start another one before it ends.
const N_ROUNDS: usize = 20;

/// Kills each process whose root is in a folder that nobody owns, as `is_abandoned` says of a path, and waits for its end.
pub fn end_orphans(is_abandoned: impl Fn(&Path) -> bool) {
    for _ in 0..N_ROUNDS {
        let found: Vec<OwnedFd> = std::fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|it| it.file_name().to_str()?.parse().ok())
            .filter_map(|pid| orphan(pid, &is_abandoned))
            .collect();
        if found.is_empty() {
            return;
        }
        for process in &found {
            let _ = sys::pidfd_send_signal(process.as_fd(), libc::SIGKILL);
        }
        for process in &found {
            let second = Timespec { tv_sec: 1, tv_nsec: 0 };
            let _ = rustix::event::poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&second));
        }
    }
}

/// A handle on a process, if it is one. It is looked at again when there is a handle, since numbers are used again.
fn orphan(pid: i32, is_abandoned: &impl Fn(&Path) -> bool) -> Option<OwnedFd> {
    let is_one = || {
        let root = std::fs::read_link(format!("/proc/{pid}/root"));
        root.is_ok_and(|it| it != Path::new("/") && is_abandoned(&it))
    };
    if !is_one() {
        return None;
    }
    let handle = rustix::process::pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    is_one().then_some(handle)
}
