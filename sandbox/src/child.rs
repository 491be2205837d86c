//! A running process, and what is tidied up after it.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Mutex;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags};
use rustix::process::{WaitId, WaitIdOptions};

use crate::cgroup::{DeviceGroup, LimitGroups};
use crate::chroot::{Placed, ProcServer};
use crate::error::SandboxError;
use crate::init;
use crate::inside;
use crate::net::{self, Lease};
use crate::notify::{LinkOwners, Supervisor};
use crate::stubs::InPlace;
use crate::sys;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exit {
    /// Its exit status, if it ended by itself.
    pub code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// Whether a process of the sandbox was killed because its memory limit was reached.
    pub oom: bool,
    /// Whether one could not be started because the limit of processes was reached.
    pub too_many_processes: bool,
}

impl Exit {
    /// Whether it ended with status 0.
    pub fn is_success(&self) -> bool {
        self.code == Some(0)
    }

    /// The status a shell gives it: its own, or 128 and the signal.
    pub fn shell_status(&self) -> i32 {
        self.code.unwrap_or_else(|| 128 + self.signal.unwrap_or(0))
    }
}

/// What is undone when a process has ended.
#[derive(Debug, Default)]
pub(crate) struct CleanUp {
    /// A directory whose content is ours.
    pub(crate) work: Option<PathBuf>,
    pub(crate) stubs: Option<InPlace>,
    /// What stands in a tree where nothing can be mounted.
    pub(crate) placed: Option<Placed>,
    /// Who answers for `/proc` there.
    pub(crate) proc_server: Option<ProcServer>,
    pub(crate) device_group: Option<DeviceGroup>,
    pub(crate) limit_groups: LimitGroups,
    pub(crate) network: Option<Lease>,
    pub(crate) supervisor: Option<Supervisor>,
    /// What the supervisor has left when it ended.
    pub(crate) link_owners: LinkOwners,
    /// Limits that could not be enforced.
    pub(crate) notes: Vec<String>,
}

impl CleanUp {
    fn run(&mut self) {
        if let Some(mut supervisor) = self.supervisor.take() {
            self.link_owners = supervisor.finish();
        }
        self.proc_server = None;
        self.placed = None;
        if let Some(mut stubs) = self.stubs.take() {
            stubs.remove();
        }
        self.limit_groups = LimitGroups::default();
        self.device_group = None;
        self.network = None;
        if let Some(work) = self.work.take() {
            // What overlayfs leaves in it, deepest first; see `volatile` in its documentation.
            for name in ["work/incompat/volatile", "work/incompat", "work"] {
                let _ = std::fs::remove_dir(work.join(name));
            }
            // More is there after a fallback or an interrupted copy. What stays even so is in a
            // directory that the caller made for us and removes.
            for entry in std::fs::read_dir(&work).into_iter().flatten().flatten() {
                let _ = inside::remove_all(&entry.path());
            }
        }
    }
}

impl Drop for CleanUp {
    fn drop(&mut self) {
        self.run();
    }
}

/// A process that [`spawn`](crate::spawn) has started.
///
/// All methods take `&self`, so that one thread can wait while another sends signals. Dropping it
/// kills the process and all of its children.
#[derive(Debug)]
pub struct Child {
    pid: i32,
    pidfd: OwnedFd,
    control: OwnedFd,
    /// Whether killing the first process ends all others.
    has_namespace: bool,
    streams: Mutex<Streams>,
    /// The file system of the command; it is gone when the last handle is.
    root: Mutex<Option<OwnedFd>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct Streams {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
}

#[derive(Debug)]
struct State {
    exit: Option<Exit>,
    clean_up: CleanUp,
}

impl Child {
    pub(crate) fn new(
        pid: i32,
        pidfd: OwnedFd,
        control: OwnedFd,
        [stdin, stdout, stderr]: [Option<OwnedFd>; 3],
        clean_up: CleanUp,
    ) -> Self {
        Self {
            pid,
            pidfd,
            control,
            has_namespace: true,
            streams: Mutex::new(Streams { stdin, stdout, stderr, terminal: None }),
            root: Mutex::new(None),
            state: Mutex::new(State { exit: None, clean_up }),
        }
    }

    pub(crate) fn with_root(mut self, root: OwnedFd) -> Self {
        self.root = Mutex::new(Some(root));
        self
    }

    /// Without a pid namespace it is the first process that ends the others.
    pub(crate) fn without_namespace(mut self) -> Self {
        self.has_namespace = false;
        self
    }

    pub(crate) fn receive_terminal(&mut self) -> Result<(), SandboxError> {
        let failed = |errno: Errno| SandboxError::setup("receive the terminal", errno);
        let mut kind = [0_u8; 1];
        let (_, terminal) = receive(self.control.as_fd(), &mut kind).map_err(failed)?;
        lock(&self.streams).terminal = terminal;
        if kind[0] == init::TERMINAL { Ok(()) } else { Err(failed(Errno::PROTO)) }
    }

    /// The process id of the process that started the command and watches it, as seen from outside. When it ends, all end.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// A handle on that process; it becomes readable when everything has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Takes the writing end of the standard input, of a process with [`Stdio::Piped`](crate::Stdio).
    pub fn take_stdin(&self) -> Option<OwnedFd> {
        lock(&self.streams).stdin.take()
    }

    /// Takes the reading end of the standard output, of a process whose output is captured.
    pub fn take_stdout(&self) -> Option<OwnedFd> {
        lock(&self.streams).stdout.take()
    }

    /// Takes the reading end of the standard error stream, as [`take_stdout`](Self::take_stdout).
    pub fn take_stderr(&self) -> Option<OwnedFd> {
        lock(&self.streams).stderr.take()
    }

    /// Takes our end of the terminal, of a process that has one. Reading gives `EIO` at the end.
    pub fn take_terminal(&self) -> Option<OwnedFd> {
        lock(&self.streams).terminal.take()
    }

    /// Takes the handle that keeps the file system of the command; else [`wait`](Self::wait) drops it. To take an overlay apart in
    /// which much was looked at takes as long as to start many processes: whoever drops the handle waits for that.
    pub fn take_root(&self) -> Option<OwnedFd> {
        lock(&self.root).take()
    }

    /// Limits that were asked for and that this machine cannot enforce, one sentence each.
    pub fn notes(&self) -> Vec<String> {
        lock(&self.state).clean_up.notes.clone()
    }

    /// Takes the owners of symbolic links and pipes in the upper directory, after [`wait`](Self::wait). There are none unless
    /// [`keeps_owners`](crate::keeps_owners).
    pub fn take_link_owners(&self) -> LinkOwners {
        std::mem::take(&mut lock(&self.state).clean_up.link_owners)
    }

    /// Passes the connections that `listener` gets on to a port of the sandbox, as long as this process lives.
    ///
    /// # Errors
    ///
    /// [`SandboxError::Setup`] if it has no network of its own, or that cannot be entered.
    pub fn publish(&self, listener: TcpListener, port: u16) -> Result<(), SandboxError> {
        let failed = |source| SandboxError::Setup { action: "publish a port", source };
        let network = lock(&self.state).clean_up.network.as_ref().map_or(Ok(None), Lease::handle);
        let Some(network) = network.map_err(failed)? else {
            return Err(failed(Errno::NETUNREACH.into()));
        };
        net::publish(network, listener, port).map_err(failed)
    }

    /// Sends a signal to the command. One that has ended is no error.
    ///
    /// # Errors
    ///
    /// [`SandboxError::Invalid`] for a number that is no signal.
    pub fn signal(&self, signal: i32) -> Result<(), SandboxError> {
        let number = u8::try_from(signal).ok().filter(|it| (1..=64).contains(it));
        let Some(number) = number else {
            return Err(SandboxError::Invalid {
                what: "signal",
                value: signal.to_string(),
                reason: "signals are numbered from 1 to 64",
            });
        };
        match rustix::net::send(&self.control, &[number], SendFlags::NOSIGNAL) {
            Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
            Err(errno) => Err(SandboxError::setup("send a signal", errno)),
        }
    }

    /// Kills the command and every process it has started, at once.
    pub fn kill(&self) {
        // Both fail only if they have ended already.
        if !self.has_namespace {
            let _ = rustix::net::send(&self.control, &[init::END_ALL], SendFlags::NOSIGNAL);
            return;
        }
        let _ = sys::pidfd_send_signal(self.pidfd.as_fd(), libc::SIGKILL);
    }

    /// Waits until the command has ended and every process it has started is gone, and tidies up.
    ///
    /// Reading the output to its end first is the caller's part: a full pipe stops the command.
    ///
    /// # Errors
    ///
    /// [`SandboxError::Setup`] if the kernel cannot be asked.
    pub fn wait(&self) -> Result<Exit, SandboxError> {
        loop {
            if let Some(exit) = self.try_wait()? {
                return Ok(exit);
            }
            let mut polled = [PollFd::new(&self.pidfd, PollFlags::IN)];
            match rustix::event::poll(&mut polled, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(SandboxError::setup("wait for the command", errno)),
            }
        }
    }

    /// As [`wait`](Self::wait), but returns `None` at once if the command still runs.
    ///
    /// # Errors
    ///
    /// As for [`wait`](Self::wait).
    pub fn try_wait(&self) -> Result<Option<Exit>, SandboxError> {
        let mut state = lock(&self.state);
        if let Some(exit) = state.exit {
            return Ok(Some(exit));
        }
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        match rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), options) {
            Ok(None) | Err(Errno::INTR) => return Ok(None),
            Ok(Some(_)) => {}
            Err(errno) => return Err(SandboxError::setup("wait for the command", errno)),
        }
        let mut exit = self.reported();
        exit.oom = state.clean_up.limit_groups.had_oom_kill();
        exit.too_many_processes = state.clean_up.limit_groups.had_too_many_processes();
        drop(self.take_root());
        state.clean_up.run();
        state.exit = Some(exit);
        Ok(Some(exit))
    }

    /// What init said before it ended. If it said nothing, it was killed and all others with it.
    fn reported(&self) -> Exit {
        let mut exit =
            Exit { code: None, signal: Some(libc::SIGKILL), oom: false, too_many_processes: false };
        let mut message = [0_u8; 3];
        while let Ok((n_read, _)) =
            rustix::net::recv(&self.control, &mut message, RecvFlags::DONTWAIT)
        {
            match message {
                [init::ENDED, 0, code] if n_read == 3 => {
                    exit = Exit { code: Some(i32::from(code)), signal: None, ..exit };
                }
                [init::ENDED, 1, signal] if n_read == 3 => exit.signal = Some(i32::from(signal)),
                _ => {}
            }
            if n_read == 0 {
                break;
            }
        }
        exit
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
        let _ = self.wait();
    }
}

/// Receives a message and the handle that comes with it.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    message: &mut [u8],
) -> rustix::io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut buffer = [IoSliceMut::new(message)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(socket, &mut buffer, &mut ancillary, flags)
    })?;
    let mut handle = None;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(mut handles) = message {
            handle = handles.next();
        }
    }
    Ok((received.bytes, handle))
}

/// A lock whose holder has panicked is still good here: every change is a single assignment.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
