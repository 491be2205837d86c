//! Owners, ids and devices for processes that have only one id.
//!
//! Without subordinate ids a user namespace has one user, who is root there and owns every file. What programs do beyond
//! that (`chown`, `mknod`, `setuid`, and asking about it) would fail; instead the kernel is told to ask us (seccomp's user
//! notification), and a thread of kiln, the supervisor, answers: owners and devices are kept in attributes of the files, ids of
//! processes in its memory.
//!
//! Read in this order: [`record`] and [`links`] (what is remembered of files), [`identity`] (of processes), [`calls`] (what is asked),
//! [`caller`] (who asks, and where its paths lead), [`answers`] with [`owner`], [`create`], [`ids`] and [`access`] (what is answered).
//!
//! # What always holds
//!
//! - **It widens nothing.** The supervisor does on behalf of a process what that process may do by itself, in the same root, with an id
//!   that the process has, too. A call that the kernel is to run anyway is checked by nobody but the kernel.
//! - **It is no protection** of one process of a sandbox from another: paths may have changed since they were looked at.
//! - **Nothing stays.** When the last process is gone, so is the thread.

mod access;
mod answers;
mod caller;
mod calls;
mod create;
mod identity;
mod ids;
mod links;
mod owner;
mod record;

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};

pub use links::{Inode, LinkOwners};
pub(crate) use record::Record;

use self::answers::Answers;
use self::caller::Caller;
use self::identity::{Credentials, Processes};
use self::links::Links;
use crate::seccomp;
use crate::sys::{self, Instruction, notify};

/// What the supervisor of a sandbox needs to know.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) root: OwnedFd,
    /// The upper directory, if the root is an overlay that has one.
    pub(crate) upper: Option<OwnedFd>,
    /// Owners of links and pipes of the layers below.
    pub(crate) links: Vec<(Vec<u8>, (u32, u32))>,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    /// The paths that the command may have.
    pub(crate) commands: Vec<CString>,
    pub(crate) granted: u64,
    pub(crate) no_new_privs: bool,
}

/// A running supervisor.
#[derive(Debug)]
pub(crate) struct Supervisor {
    thread: Option<JoinHandle<LinkOwners>>,
    /// Closed to end it.
    stop: Option<OwnedFd>,
}

/// The filter of a process that has a supervisor.
pub(crate) fn filter(granted: u64, is_confined: bool, starts_as_root: bool) -> Vec<Instruction> {
    seccomp::supervised(granted, is_confined, |name| calls::ask(name, starts_as_root))
}

impl Supervisor {
    /// Starts to answer what arrives at `listener`, for the sandbox with this first process.
    pub(crate) fn start(listener: OwnedFd, setup: Setup, init: i32) -> Result<Self> {
        let proc = rustix::fs::open(
            c"/proc",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let (stopped, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        notify::take_turns(listener.as_fd());
        let (sender, receiver) = std::sync::mpsc::channel();
        let body = move || {
            let answers = enter(setup, &proc, init);
            let _ = sender.send(answers.as_ref().err().copied());
            match answers {
                Ok(answers) => serve(answers, &listener, &stopped),
                Err(_) => LinkOwners::default(),
            }
        };
        let thread = std::thread::Builder::new()
            .name("supervisor".to_owned())
            .spawn(body)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))?;
        match receiver.recv() {
            Ok(None) => Ok(Self { thread: Some(thread), stop: Some(stop) }),
            Ok(Some(errno)) => Err(errno),
            Err(_) => Err(Errno::IO),
        }
    }

    /// Ends it, when the sandbox has ended, and returns the owners of links and pipes of the upper directory.
    pub(crate) fn finish(&mut self) -> LinkOwners {
        self.stop = None;
        self.thread.take().and_then(|it| it.join().ok()).unwrap_or_default()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Gives this thread the root of the sandbox, and `/proc` of the machine as its working directory.
fn enter(setup: Setup, proc: &OwnedFd, init: i32) -> Result<Answers> {
    sys::unshare(libc::CLONE_FS)?;
    rustix::process::fchdir(&setup.root)?;
    rustix::process::chroot(c".")?;
    rustix::process::fchdir(proc)?;
    rustix::process::umask(Mode::empty());
    let init = u32::try_from(init).map_err(|_| Errno::INVAL)?;
    let initial = Credentials::new(setup.uid, setup.gid, setup.groups, setup.granted);
    Ok(Answers {
        processes: Processes::new(initial, init),
        links: Links::new(setup.links, setup.root.as_fd(), setup.upper)?,
        has_unmarked: false,
        commands: setup.commands,
        granted: setup.granted,
        no_new_privs: setup.no_new_privs,
        may_have_own_root: false,
    })
}

fn serve(mut answers: Answers, listener: &OwnedFd, stopped: &OwnedFd) -> LinkOwners {
    let calls = calls::by_number();
    loop {
        let mut polled =
            [PollFd::new(listener, PollFlags::IN), PollFd::new(stopped, PollFlags::empty())];
        match rustix::event::poll(&mut polled, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => break,
        }
        if !polled[0].revents().contains(PollFlags::IN) {
            // Nobody is left who could ask.
            if polled.iter().any(|it| !it.revents().is_empty()) {
                break;
            }
            continue;
        }
        // A caller that was killed meanwhile has taken its call along.
        let Ok(call) = notify::receive(listener.as_fd()) else { continue };
        let caller = Caller {
            listener: listener.as_fd(),
            call,
            may_have_own_root: answers.may_have_own_root,
        };
        let reply = match calls.get(&call.number) {
            Some(it) => answers.answer(&caller, *it),
            None => Some(notify::Reply::Continue),
        };
        if let Some(reply) = reply {
            let _ = notify::send(listener.as_fd(), call.id, reply);
        }
    }
    answers.links.into_upper()
}
