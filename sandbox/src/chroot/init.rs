//! The first process of a sandbox that has no pid namespace: starts the command in its root, stays, and ends everything.
//!
//! It is the one that orphans below it fall to (`PR_SET_CHILD_SUBREAPER`), so that nothing that the command has started, by
//! however many forks, escapes it. When the command has ended, or kiln has, it kills until it has no child left. It stays outside
//! of the root and of Landlock's rules; as in [`init`](crate::init), it makes system calls only.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::WaitOptions;

use crate::command::become_command;
use crate::init::watch;
use crate::program::{At, Failure, Process, Step};
use crate::sys;

/// What the first process needs.
pub(crate) struct Jail {
    /// The root, as a place.
    pub(crate) root: OwnedFd,
    /// Landlock's rules, where there are any.
    pub(crate) ruleset: Option<OwnedFd>,
    /// The file of a control group to join first.
    pub(crate) join: Option<OwnedFd>,
    /// Where the kernel has kiln's arguments.
    pub(crate) command_line: std::ops::Range<usize>,
    pub(crate) process: Process,
}

/// Runs as the first process, and does not return. `report` receives one [`Failure`], or is closed when the command has started.
pub(crate) fn run(jail: &mut Jail, report: &OwnedFd, control: &OwnedFd) -> ! {
    sys::blank_command_line(&jail.command_line);
    sys::reset_signal_handlers();
    close_others(jail, report, control);
    let status = match start(jail, report) {
        Ok(main) => {
            sys::close_range(report.as_raw_fd(), report.as_raw_fd());
            watch(main, control)
        }
        Err(failure) => {
            let _ = rustix::io::write(report, &failure.encode());
            1
        }
    };
    end_all();
    sys::exit(status)
}

fn close_others(jail: &Jail, report: &OwnedFd, control: &OwnedFd) {
    let mut kept: [RawFd; 8] = [-1; 8];
    let streams = jail.process.streams.iter().flatten();
    let handles = jail.ruleset.iter().chain(&jail.join);
    let all = [report, control, &jail.root].into_iter().chain(handles).chain(streams);
    for (slot, fd) in kept.iter_mut().zip(all) {
        *slot = fd.as_raw_fd();
    }
    kept.sort_unstable();
    let mut next = 3;
    for fd in kept.into_iter().filter(|it| *it >= 3) {
        if fd > next {
            sys::close_range(next, fd - 1);
        }
        next = fd + 1;
    }
    sys::close_range(next, RawFd::MAX);
}

fn start(jail: &mut Jail, report: &OwnedFd) -> Result<i32, Failure> {
    if let Some(group) = &jail.join {
        rustix::io::write(group, b"0").at(Step::JoinCgroup)?;
    }
    // Fails only if we lead a session already; then nobody shares it with us.
    let _ = rustix::process::setsid();
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let own = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(own)).at(Step::Start)?;
    // The stack is taken out because the closure uses the rest of the process.
    let mut stack = std::mem::take(&mut jail.process.stack);
    let (root, ruleset, process) = (&jail.root, &jail.ruleset, &jail.process);
    let main = sys::vfork(&mut stack, 0, || {
        let begun = enter(root, ruleset.as_ref());
        let failure = match begun.and_then(|()| become_command(process, report, None, false)) {
            Ok(never) => match never {},
            Err(failure) => failure,
        };
        let _ = rustix::io::write(report, &failure.encode());
        127
    });
    std::mem::forget(stack);
    main.at(Step::Start)
}

/// Goes into the root, for good.
fn enter(root: &OwnedFd, ruleset: Option<&OwnedFd>) -> Result<(), Failure> {
    rustix::process::fchdir(root).at(Step::Chroot)?;
    rustix::process::chroot(c".").at(Step::Chroot)?;
    rustix::process::chdir(c"/").at(Step::Chroot)?;
    rustix::thread::set_no_new_privs(true).at(Step::Landlock)?;
    match ruleset {
        Some(ruleset) => sys::restrict_self(ruleset.as_fd()).at(Step::Landlock),
        None => Ok(()),
    }
}

/// Kills and reaps until there is no child left. The children of one that is killed become ours.
fn end_all() {
    loop {
        kill_children();
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
    }
}

fn kill_children() {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let Ok(list) = rustix::fs::open(c"/proc/thread-self/children", flags, Mode::empty()) else {
        return;
    };
    let mut buffer = [0_u8; 4096];
    // What does not fit is killed the next time.
    let Ok(n_read) = rustix::io::read(&list, &mut buffer) else { return };
    let mut pid = 0_i32;
    for byte in &buffer[..n_read] {
        if byte.is_ascii_digit() {
            pid = pid.saturating_mul(10).saturating_add(i32::from(byte - b'0'));
        } else {
            if pid > 1 {
                let _ = sys::kill(pid, libc::SIGKILL);
            }
            pid = 0;
        }
    }
}
