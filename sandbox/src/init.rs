//! The process between kiln and the command: starts the command in its namespaces, and stays until it ends.
//!
//! It is a copy of kiln with one thread and nothing but system calls to make: no allocation, no
//! lock, no panic that prints. All it needs is in its [`Program`]. After the command has started it
//! keeps one handle, the control socket: a byte that arrives there is a signal for the command, and
//! its end means that kiln is gone.
//!
//! It is the first process of a pid namespace, and the command that of one inside it. So the command
//! is process 1 for itself, sees nothing of kiln, and whatever it has left is killed by the kernel when
//! it ends; and when the process here is killed, the kernel kills all of that, too. With
//! [`Spec::init`](crate::Spec::init) there is one namespace only, with this process as its number 1,
//! which takes care of orphans. For that case it is not dumpable, so the processes inside
//! cannot look at the memory, environment or executable that it has from kiln.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::{WaitOptions, WaitStatus};

use crate::assemble::assemble;
use crate::command::become_command;
use crate::program::{At, Failure, Program, Step, What};
use crate::sys;

/// First byte of the message with which init reports how the command ended.
pub(crate) const ENDED: u8 = b'E';
/// First byte of the message that carries the terminal.
pub(crate) const TERMINAL: u8 = b'T';
/// The message that carries the handle on which system calls are to be answered.
pub(crate) const LISTENER: u8 = b'L';

/// In place of a signal's number: the command and all that it has started are to end at once.
pub(crate) const END_ALL: u8 = 0;

/// Runs as the process between kiln and the command, and does not return.
///
/// `report`, a socket, receives one [`Failure`], or is closed when the command has started.
pub(crate) fn run(program: &mut Program, report: &OwnedFd, control: &OwnedFd) -> ! {
    sys::blank_command_line(&program.command_line);
    sys::reset_signal_handlers();
    close_others(program, report, control);
    let status = match start(program, report, control) {
        Ok(main) => {
            sys::close_range(report.as_raw_fd(), report.as_raw_fd());
            watch(main, control)
        }
        Err(failure) => {
            let _ = rustix::io::write(report, &failure.encode());
            1
        }
    };
    sys::exit(status)
}

/// Closes every descriptor above the standard streams that the program does not name. They belong
/// to other threads of kiln, and may be other sandboxes' pipes.
fn close_others(program: &Program, report: &OwnedFd, control: &OwnedFd) {
    let mut next = 3;
    loop {
        let mut lowest: Option<RawFd> = None;
        let mut consider = |fd: RawFd| {
            if fd >= next && lowest.is_none_or(|it| fd < it) {
                lowest = Some(fd);
            }
        };
        consider(report.as_raw_fd());
        consider(control.as_raw_fd());
        each_handle(program, &mut consider);
        let Some(kept) = lowest else { break };
        if kept > next {
            sys::close_range(next, kept - 1);
        }
        next = kept + 1;
    }
    sys::close_range(next, RawFd::MAX);
}

fn each_handle(program: &Program, visit: &mut impl FnMut(RawFd)) {
    let mut one = |fd: &OwnedFd| visit(fd.as_raw_fd());
    program.groups_to_join.iter().for_each(&mut one);
    [&program.root, &program.dev, &program.shm, &program.empty].into_iter().for_each(&mut one);
    program.staging.iter().for_each(&mut one);
    program.sys.iter().chain(&program.network).for_each(&mut one);
    program.process.streams.iter().flatten().for_each(&mut one);
    for attach in program.mounts.iter().chain(&program.mounts_in_dev) {
        match &attach.what {
            What::Mount(mount) | What::Part { mount, .. } => one(mount),
            What::Staged(_) => {}
        }
    }
}

/// Does everything up to the command's `execve`; returns the command's process id.
fn start(
    program: &mut Program,
    report: &OwnedFd,
    control: &OwnedFd,
) -> std::result::Result<i32, Failure> {
    // Fails only if we lead a session already; then nobody shares it with us.
    let _ = rustix::process::setsid();
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    // The stack is taken out because the closures use the rest of the program.
    let mut stack = std::mem::take(&mut program.process.stack);
    let is_init = program.is_init;
    let terminal = if is_init { Some(set_up(program, control)?) } else { None };
    let namespaces = if is_init { 0 } else { program.namespaces };
    let main = sys::vfork(&mut stack, namespaces, || {
        let failure = match become_first(program, terminal.as_ref(), report, control) {
            Ok(never) => match never {},
            Err(failure) => failure,
        };
        let _ = rustix::io::write(report, &failure.encode());
        127
    });
    std::mem::forget((stack, terminal));
    main.at(Step::Start)
}

/// The two ends of a terminal, if there is one.
type Terminal = Option<(OwnedFd, OwnedFd)>;

/// Becomes the command, in a sandbox that is set up already if `terminal` is given.
fn become_first(
    program: &mut Program,
    terminal: Option<&Terminal>,
    report: &OwnedFd,
    control: &OwnedFd,
) -> std::result::Result<std::convert::Infallible, Failure> {
    let own;
    let terminal = match terminal {
        Some(terminal) => terminal,
        None => {
            let _ = rustix::process::setsid();
            own = std::mem::ManuallyDrop::new(set_up(program, control)?);
            &own
        }
    };
    let slave = terminal.as_ref().map(|(_, slave)| slave.as_fd());
    become_command(&program.process, report, slave, program.privileged)
}

/// Puts the sandbox together, in its namespaces.
fn set_up(program: &mut Program, control: &OwnedFd) -> std::result::Result<Terminal, Failure> {
    rustix::process::umask(Mode::from_raw_mode(0o022));
    for group in &program.groups_to_join {
        rustix::io::write(group, b"0").at(Step::JoinCgroup)?;
    }
    if program.own_cgroup_view {
        sys::unshare(sys::namespace::CGROUP).at(Step::CgroupView)?;
    }
    match rustix::system::sethostname(&program.hostname) {
        // The filter of a podman container; the name of the container stays.
        Err(Errno::PERM) if program.sys.is_some() => {}
        result => result.at(Step::Hostname)?,
    }
    if let Some(network) = &program.network {
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(network.as_fd(), kind).at(Step::Network)?;
    }
    if program.has_own_network {
        loopback_up().at(Step::Loopback)?;
    }

    let terminal = assemble(program)?;
    if let Some((terminal, _)) = &terminal {
        send_handle(control, TERMINAL, terminal.as_fd()).at(Step::Terminal)?;
    }
    Ok(terminal)
}

fn loopback_up() -> Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    sys::loopback_up(socket.as_fd())
}

/// Sends a handle and the byte that says what it is.
pub(crate) fn send_handle(socket: &OwnedFd, kind: u8, handle: BorrowedFd<'_>) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let handle = [handle];
    ancillary.push(SendAncillaryMessage::ScmRights(&handle));
    let kind = [kind];
    let message = [std::io::IoSlice::new(&kind)];
    rustix::net::sendmsg(socket, &message, &mut ancillary, SendFlags::NOSIGNAL).map(drop)
}

/// Reaps and forwards until the command ends or kiln does.
///
/// The end of a command that is the first of its namespace comes when all others in it have ended.
pub(crate) fn watch(main: i32, control: &OwnedFd) -> i32 {
    // Keeps no pipe of the command open, so that readers see its end, and no mount busy.
    if let Ok(null) = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
    {
        for number in 0..3 {
            let _ = sys::dup_to(null.as_fd(), number);
        }
    }
    sys::close_all_but(control.as_raw_fd());
    let Ok(events) = sys::child_events() else { return 1 };
    loop {
        // First, because the command may have ended before the events were asked for.
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if pid.as_raw_nonzero().get() == main {
                let _ = rustix::net::send(control, &ended(status), SendFlags::NOSIGNAL);
                return 0;
            }
        }
        let mut polled = [PollFd::new(control, PollFlags::IN), PollFd::new(&events, PollFlags::IN)];
        let _ = rustix::event::poll(&mut polled, None);
        let has_message = !polled[0].revents().is_empty();
        let has_event = !polled[1].revents().is_empty();
        if has_event {
            let _ = rustix::io::read(&events, &mut [0_u8; 128]);
        }
        if has_message {
            let mut signal = [0_u8; 1];
            match rustix::net::recv(control, &mut signal, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return 1,
                Ok(_) if signal[0] == END_ALL => return 1,
                Ok(_) => drop(sys::kill(main, i32::from(signal[0]))),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => return 1,
            }
        }
    }
}

fn ended(status: WaitStatus) -> [u8; 3] {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => [ENDED, 0, code as u8],
        (_, Some(signal)) => [ENDED, 1, signal as u8],
        _ => [ENDED, 1, libc::SIGKILL as u8],
    }
}
