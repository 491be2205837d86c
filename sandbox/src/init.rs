//! The first process of a sandbox: sets it up, starts the command, and stays as its init.
//!
//! It is a copy of kiln with one thread and nothing but system calls to make: no allocation, no
//! lock, no panic that prints. All it needs is in its [`Program`]. After the command has started it
//! keeps one handle, the control socket: a byte that arrives there is a signal for the command, and
//! its end means that kiln is gone. When the command ends, init sends its status and ends too, upon
//! which the kernel kills every process that is left in the namespace.
//!
//! It is not dumpable, so the processes inside cannot look at the memory, environment or executable
//! that it has from kiln.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};
use rustix::mount::{
    MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags, mount_change, move_mount,
    unmount,
};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::{WaitOptions, WaitStatus};
use rustix::thread::CapabilitySet;

use crate::inside::{self, HERE};
use crate::overlay::{clone_tree, instance};
use crate::program::{Attach, Failure, Process, Program, Step, What};
use crate::spec::Stdio;
use crate::sys::{self, mount_attr};

/// First byte of the message with which init reports how the command ended.
pub(crate) const ENDED: u8 = b'E';
/// First byte of the message that carries the terminal.
pub(crate) const TERMINAL: u8 = b'T';

const NOSUID_NODEV_NOEXEC: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Paths that are shown but cannot be changed.
const READ_ONLY: [&CStr; 5] =
    [c"proc/bus", c"proc/fs", c"proc/irq", c"proc/sys", c"proc/sysrq-trigger"];

/// Adds to an error at which step it happened.
trait At<T> {
    fn at(self, step: Step) -> std::result::Result<T, Failure>;
    fn at_index(self, step: Step, index: usize) -> std::result::Result<T, Failure>;
}

impl<T> At<T> for Result<T> {
    fn at(self, step: Step) -> std::result::Result<T, Failure> {
        self.at_index(step, 0)
    }

    fn at_index(self, step: Step, index: usize) -> std::result::Result<T, Failure> {
        let index = index.min(usize::from(u16::MAX)) as u16;
        self.map_err(|errno| Failure { step, index, errno: errno.raw_os_error() })
    }
}

/// Runs as the sandbox's first process, and does not return.
///
/// `report` receives one [`Failure`], or is closed when the command has started.
pub(crate) fn run(program: &mut Program, report: &OwnedFd, control: &OwnedFd) -> ! {
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
    rustix::process::umask(Mode::from_raw_mode(0o022));
    for group in &program.groups_to_join {
        rustix::io::write(group, b"0").at(Step::JoinCgroup)?;
    }
    if program.own_cgroup_view {
        sys::unshare(sys::namespace::CGROUP).at(Step::CgroupView)?;
    }
    rustix::system::sethostname(&program.hostname).at(Step::Hostname)?;
    if program.has_own_network {
        loopback_up().at(Step::Loopback)?;
    }

    enter_root(program.root.as_fd())?;
    stage(program)?;
    let root = program.root.as_fd();
    for (index, it) in program.mounts.iter().enumerate() {
        attach(root, it, ResolveFlags::IN_ROOT).at_index(Step::Mount, index)?;
    }
    let terminal = standard_mounts(program)?;
    for (index, it) in program.mounts_in_dev.iter().enumerate() {
        attach(root, it, ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS))
            .at_index(Step::MountInDev, index)?;
    }
    if program.is_read_only {
        sys::mount_setattr(root, false, mount_attr::RDONLY, 0).at(Step::ReadOnlyRoot)?;
    }
    if let Some((terminal, _)) = &terminal {
        send_terminal(control, terminal.as_fd()).at(Step::Terminal)?;
    }

    let is_privileged = program.privileged;
    let slave = terminal.as_ref().map(|(_, slave)| slave.as_fd());
    // The stack is taken out because the closure uses the rest of the process.
    let mut stack = std::mem::take(&mut program.process.stack);
    let process = &program.process;
    let main = sys::vfork(&mut stack, || {
        let failure = match become_command(process, slave, is_privileged) {
            Ok(never) => match never {},
            Err(failure) => failure,
        };
        let _ = rustix::io::write(report, &failure.encode());
        127
    });
    std::mem::forget(stack);
    main.at(Step::Start)
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

fn enter_root(root: BorrowedFd<'_>) -> std::result::Result<(), Failure> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change(c"/", private).at(Step::PrivateMounts)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(root, c"", HERE, c"/", flags).at(Step::AttachRoot)?;
    rustix::process::fchdir(root).at(Step::AttachRoot)?;
    rustix::process::pivot_root(c".", c".").at(Step::PivotRoot)?;
    unmount(c".", UnmountFlags::DETACH).at(Step::DetachOldRoot)?;
    rustix::process::chdir(c"/").at(Step::DetachOldRoot)
}

/// Cuts out the mounts that are parts of others. For that the whole must have a place for a moment;
/// it is `/dev`, which is known to be a directory and has nothing mounted yet.
fn stage(program: &mut Program) -> std::result::Result<(), Failure> {
    let place =
        open_target(program.root.as_fd(), c"dev", ResolveFlags::NO_SYMLINKS).at(Step::Dev)?;
    let place = place.as_fd();
    if let Some(staging) = &program.staging {
        mount_at(staging.as_fd(), place).at(Step::Stage)?;
    }
    let all = program.mounts.iter_mut().chain(&mut program.mounts_in_dev);
    for it in all {
        if let (What::Staged(name), Some(staging)) = (&it.what, &program.staging) {
            it.what = What::Mount(clone_tree(staging.as_fd(), name, false).at(Step::Stage)?);
        }
    }
    if program.staging.is_some() {
        unmount(c"/dev", UnmountFlags::DETACH).at(Step::Stage)?;
    }
    for (index, it) in program.mounts.iter_mut().enumerate() {
        if let What::Part { mount, path } = &it.what {
            mount_at(mount.as_fd(), place).at_index(Step::Mount, index)?;
            let part = inside::open(mount.as_fd(), path.as_c_str()).at_index(Step::Mount, index)?;
            let part = clone_tree(part.as_fd(), c"", false).at_index(Step::Mount, index)?;
            it.what = What::Mount(part);
            unmount(c"/dev", UnmountFlags::DETACH).at_index(Step::Mount, index)?;
        }
    }
    Ok(())
}

fn mount_at(mount: BorrowedFd<'_>, place: BorrowedFd<'_>) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", place, c"", flags)
}

fn open_target(root: BorrowedFd<'_>, path: &CStr, resolve: ResolveFlags) -> Result<OwnedFd> {
    let resolve = resolve | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
}

fn attach(root: BorrowedFd<'_>, it: &Attach, resolve: ResolveFlags) -> Result<()> {
    let What::Mount(mount) = &it.what else { return Err(Errno::INVAL) };
    if it.attrs != 0 {
        sys::mount_setattr(mount.as_fd(), it.recursive, it.attrs, 0)?;
    }
    let place = match open_target(root, &it.target, resolve) {
        Err(Errno::NOENT) => {
            make_target(root, &it.target, it.is_dir, resolve)?;
            open_target(root, &it.target, resolve)?
        }
        place => place?,
    };
    mount_at(mount.as_fd(), place.as_fd())
}

/// Makes a target inside another mount; those in the root itself have been made before.
fn make_target(
    root: BorrowedFd<'_>,
    path: &CStr,
    is_dir: bool,
    resolve: ResolveFlags,
) -> Result<()> {
    let mut buffer = [0_u8; 4096];
    let path = path.to_bytes();
    if path.len() >= buffer.len() {
        return Err(Errno::NAMETOOLONG);
    }
    buffer[..path.len()].copy_from_slice(path);
    let mut start = 0;
    while start < path.len() {
        let end = path[start..].iter().position(|it| *it == b'/').map_or(path.len(), |n| start + n);
        let is_last = end == path.len();
        let parent = if start == 0 {
            open_target(root, c".", resolve)?
        } else {
            buffer[start - 1] = 0;
            let parent = CStr::from_bytes_until_nul(&buffer).map_err(|_| Errno::INVAL)?;
            let parent = open_target(root, parent, resolve)?;
            buffer[start - 1] = b'/';
            parent
        };
        let name = &path[start..end];
        let made = if is_dir || !is_last {
            rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))
        } else {
            let mode = Mode::from_raw_mode(0o644);
            rustix::fs::mknodat(&parent, name, FileType::RegularFile, mode, 0)
        };
        match made {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        start = end + 1;
    }
    Ok(())
}

/// Mounts `/dev`, `/proc` and `/sys` and what belongs below them. Returns both ends of the
/// terminal, if there is one.
fn standard_mounts(program: &Program) -> std::result::Result<Option<(OwnedFd, OwnedFd)>, Failure> {
    let root = program.root.as_fd();
    let at = |path: &CStr| open_target(root, path, ResolveFlags::NO_SYMLINKS);

    at(c"dev").and_then(|place| mount_at(program.dev.as_fd(), place.as_fd())).at(Step::Dev)?;
    let shm = program.shm.as_fd();
    at(c"dev/shm").and_then(|place| mount_at(shm, place.as_fd())).at(Step::Shm)?;
    let mount = |name: &CStr, path: &CStr, options: &[(&CStr, &CStr)], attrs| {
        let mount = instance(name, options, attrs)?;
        mount_at(mount.as_fd(), at(path)?.as_fd())?;
        Ok(mount)
    };
    let no_suid_exec = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let pts_options = [(c"ptmxmode", c"0666"), (c"mode", c"0620"), (c"gid", c"5")];
    mount(c"devpts", c"dev/pts", &pts_options, no_suid_exec).at(Step::Pts)?;
    match mount(c"mqueue", c"dev/mqueue", &[], NOSUID_NODEV_NOEXEC) {
        // Left out of a kernel, message queues are not missed.
        Ok(_) | Err(Errno::NODEV) => {}
        Err(errno) => return Err(errno).at(Step::Mqueue),
    }
    mount(c"proc", c"proc", &[], NOSUID_NODEV_NOEXEC).at(Step::Proc)?;
    let sys_attrs = if program.privileged {
        NOSUID_NODEV_NOEXEC
    } else {
        NOSUID_NODEV_NOEXEC | MountAttrFlags::MOUNT_ATTR_RDONLY
    };
    mount(c"sysfs", c"sys", &[], sys_attrs).at(Step::Sys)?;
    if program.has_cgroup2 {
        mount(c"cgroup2", c"sys/fs/cgroup", &[], sys_attrs).at(Step::Sys)?;
    }
    if !program.privileged {
        mask(program).at(Step::Mask)?;
    }

    let Stdio::Pty { rows, cols } = program.process.stdio else { return Ok(None) };
    open_terminal(root, rows, cols).at(Step::Terminal).map(Some)
}

fn mask(program: &Program) -> Result<()> {
    let root = program.root.as_fd();
    let present = |path: &CStr| match open_target(root, path, ResolveFlags::NO_SYMLINKS) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        place => place.map(Some),
    };
    let null = open_target(program.dev.as_fd(), c"null", ResolveFlags::NO_SYMLINKS)?;
    let mut is_empty_placed = false;
    for path in &program.masked {
        let Some(place) = present(path)? else { continue };
        if inside::file_type(place.as_fd())? == FileType::Directory {
            if is_empty_placed {
                let empty = clone_tree(program.empty.as_fd(), c"", false)?;
                mount_at(empty.as_fd(), place.as_fd())?;
            } else {
                mount_at(program.empty.as_fd(), place.as_fd())?;
                is_empty_placed = true;
            }
        } else {
            let cover = clone_tree(null.as_fd(), c"", false)?;
            mount_at(cover.as_fd(), place.as_fd())?;
        }
    }
    for path in READ_ONLY {
        let Some(place) = present(path)? else { continue };
        let copy = clone_tree(place.as_fd(), c"", true)?;
        sys::mount_setattr(copy.as_fd(), true, mount_attr::RDONLY, 0)?;
        mount_at(copy.as_fd(), place.as_fd())?;
    }
    Ok(())
}

fn open_terminal(root: BorrowedFd<'_>, rows: u16, cols: u16) -> Result<(OwnedFd, OwnedFd)> {
    use rustix::pty::OpenptFlags;

    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let master = rustix::fs::openat2(root, c"dev/pts/ptmx", flags, Mode::empty(), resolve)?;
    rustix::pty::unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    let size = rustix::termios::Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&slave, size)?;
    // `/dev/console` is the terminal too; it is a file of our own `/dev`, so nobody can redirect it.
    let place = open_target(root, c"dev/console", ResolveFlags::NO_SYMLINKS)?;
    let console = open_target(root, c"dev/pts/0", ResolveFlags::NO_SYMLINKS)?;
    mount_at(clone_tree(console.as_fd(), c"", false)?.as_fd(), place.as_fd())?;
    Ok((master, slave))
}

fn send_terminal(control: &OwnedFd, terminal: BorrowedFd<'_>) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let terminal = [terminal];
    ancillary.push(SendAncillaryMessage::ScmRights(&terminal));
    let message = [std::io::IoSlice::new(&[TERMINAL])];
    rustix::net::sendmsg(control, &message, &mut ancillary, SendFlags::NOSIGNAL).map(drop)
}

/// Turns the process it runs in into the command.
fn become_command(
    process: &Process,
    terminal: Option<BorrowedFd<'_>>,
    is_privileged: bool,
) -> std::result::Result<std::convert::Infallible, Failure> {
    let _ = rustix::process::setsid();
    streams(process, terminal).at(Step::Streams)?;
    match sys::new_session_keyring() {
        // No keys in this kernel, or none left for this user: no keyring is passed on either.
        Ok(()) | Err(Errno::NOSYS | Errno::DQUOT | Errno::PERM | Errno::ACCESS) => {}
        Err(errno) => return Err(errno).at(Step::Start),
    }
    for (index, (resource, soft, hard)) in process.limits.iter().enumerate() {
        sys::set_limit(*resource, *soft, *hard).at_index(Step::Limit, index)?;
    }
    rustix::process::chdir(process.cwd.as_c_str()).at(Step::Cwd)?;
    // Every handle from outside is closed on exec; the working directory is not one of them.
    if !is_inside_root().at(Step::Cwd)? {
        return Err(Errno::XDEV).at(Step::CwdOutside);
    }

    if process.no_new_privs {
        rustix::thread::set_no_new_privs(true).at(Step::Seccomp)?;
    }
    if let Some(filter) = &process.filter {
        // Before the capabilities go, because without no_new_privs it needs CAP_SYS_ADMIN.
        sys::install_filter(filter).at(Step::Seccomp)?;
    }
    if !is_privileged {
        bound_capabilities(process.capabilities).at(Step::Capabilities)?;
    }
    rustix::thread::set_thread_groups(&process.groups).at(Step::User)?;
    rustix::thread::set_thread_res_gid(process.gid, process.gid, process.gid).at(Step::User)?;
    rustix::thread::set_thread_res_uid(process.uid, process.uid, process.uid).at(Step::User)?;
    if process.uid.is_root() {
        set_capabilities(process.capabilities).at(Step::Capabilities)?;
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

/// Reaps and forwards until the command ends or kiln does.
fn watch(main: i32, control: &OwnedFd) -> i32 {
    // Keeps no pipe of the command open, so that readers see its end, and no mount busy.
    if let Ok(null) = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
    {
        for number in 0..3 {
            let _ = sys::dup_to(null.as_fd(), number);
        }
    }
    let control_number = control.as_raw_fd();
    if control_number > 3 {
        sys::close_range(3, control_number - 1);
    }
    sys::close_range(control_number + 1, RawFd::MAX);
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
