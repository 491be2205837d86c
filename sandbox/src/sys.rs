//! Thin safe wrappers around system calls that `rustix` has no safe function for, one each.
//!
//! A wrapper changes types, never behaviour: it checks no policy, retries nothing, and returns the
//! kernel's error as it came. None of them allocates, so all may be called between
//! [`fork_into`] and [`execve`].
#![expect(unsafe_code, reason = "the only module of the workspace that may call libc")]

mod landlock;

use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{Errno, Result};

pub(crate) use landlock::{
    Handled, allow_beneath, create_ruleset, landlock_version, restrict_self,
};

pub(crate) mod notify;

/// Namespaces for [`fork_into`] and [`unshare`].
pub(crate) mod namespace {
    pub(crate) const MOUNT: i32 = libc::CLONE_NEWNS;
    pub(crate) const PID: i32 = libc::CLONE_NEWPID;
    pub(crate) const IPC: i32 = libc::CLONE_NEWIPC;
    pub(crate) const UTS: i32 = libc::CLONE_NEWUTS;
    pub(crate) const NET: i32 = libc::CLONE_NEWNET;
    pub(crate) const CGROUP: i32 = libc::CLONE_NEWCGROUP;
    pub(crate) const USER: i32 = libc::CLONE_NEWUSER;
}

/// One instruction of a classic BPF program, as the kernel reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Instruction {
    pub(crate) code: u16,
    pub(crate) jt: u8,
    pub(crate) jf: u8,
    pub(crate) k: u32,
}

/// Attributes of a mount, for [`mount_setattr`].
pub(crate) mod mount_attr {
    pub(crate) const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
    pub(crate) const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
    pub(crate) const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
    pub(crate) const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;
}

fn check(status: c_long) -> Result<c_long> {
    if status == -1 { Err(last_error()) } else { Ok(status) }
}

fn last_error() -> Errno {
    // SAFETY: the location is this thread's own `errno`, which lives as long as the thread.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}

/// What [`fork_into`] returns, once in each process.
pub(crate) enum Fork {
    /// In the caller: the id and handle of the new process.
    Parent {
        /// Its id in the caller's pid namespace.
        pid: i32,
        /// A handle that stays valid when the id is used again.
        pidfd: OwnedFd,
    },
    /// In the new process.
    Child,
}

/// Starts a copy of this process in new namespaces, and in a version 2 control group if one is given.
///
/// The copy has one thread. Other threads of the caller may have held locks, the allocator's among
/// them, so the copy must neither allocate nor lock until it ends or executes a program.
///
/// # Source
///
/// `clone(2)`; the older call where no group is given, because the seccomp profiles of containers
/// let it through.
pub(crate) fn fork_into(namespaces: i32, cgroup: Option<BorrowedFd<'_>>) -> Result<Fork> {
    let mut pidfd: c_int = -1;
    let flags = namespaces | libc::CLONE_PIDFD;
    let pid = if let Some(cgroup) = cgroup {
        // SAFETY: `clone_args` is plain integers, for which zero means "not used".
        let mut args = unsafe { std::mem::zeroed::<libc::clone_args>() };
        args.flags = flags as u64 | CLONE_INTO_CGROUP;
        args.pidfd = (&raw mut pidfd) as u64;
        args.exit_signal = libc::SIGCHLD as u64;
        args.cgroup = cgroup.as_raw_fd() as u64;
        // SAFETY: without CLONE_VM this is `fork`: the child continues on a copy of this stack. The
        // kernel reads `args` and writes the handle to `pidfd`; both outlive the call.
        check(unsafe {
            libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>())
        })?
    } else {
        let flags = c_long::from(flags | libc::SIGCHLD);
        let none: c_long = 0;
        // SAFETY: as above; the third argument is where the handle goes.
        check(unsafe { libc::syscall(libc::SYS_clone, flags, none, &raw mut pidfd, none, none) })?
    };
    if pid == 0 {
        return Ok(Fork::Child);
    }
    // SAFETY: the kernel has just opened `pidfd` for us, and nobody else knows of it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Fork::Parent { pid: pid as i32, pidfd })
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Loads a program that decides about device nodes of a control group, from its instructions.
///
/// # Source
///
/// `bpf(2)`, `BPF_PROG_LOAD` with `BPF_PROG_TYPE_CGROUP_DEVICE`.
pub(crate) fn load_device_program(instructions: &[u64]) -> Result<OwnedFd> {
    const BPF_PROG_LOAD: c_int = 5;
    const TYPE_CGROUP_DEVICE: u32 = 15;
    #[repr(C)]
    struct Load {
        kind: u32,
        n_instructions: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
    }
    let load = Load {
        kind: TYPE_CGROUP_DEVICE,
        n_instructions: u32::try_from(instructions.len()).map_err(|_| Errno::INVAL)?,
        instructions: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the kernel reads `load` and the two arrays it points to, all of which outlive the
    // call; the descriptor it returns is new.
    unsafe {
        let fd =
            check(libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of::<Load>()))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// Makes a loaded program decide about device nodes of a control group, for as long as the group
/// exists.
pub(crate) fn attach_device_program(group: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    const BPF_PROG_ATTACH: c_int = 8;
    const BPF_CGROUP_DEVICE: u32 = 6;
    const BPF_F_ALLOW_MULTI: u32 = 2;
    let attach: [u32; 4] = [
        group.as_raw_fd() as u32,
        program.as_raw_fd() as u32,
        BPF_CGROUP_DEVICE,
        BPF_F_ALLOW_MULTI,
    ];
    // SAFETY: the kernel reads four integers.
    check(unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attach, size_of_val(&attach))
    })
    .map(drop)
}

/// Runs `body` in a new process that shares this one's memory, in new namespaces if some are given, and waits until it
/// ends or executes a program. Returns its id.
///
/// `body` must not return before [`execve`] succeeds or [`exit`] is called; what it returns becomes
/// the exit status.
pub(crate) fn vfork<F: FnMut() -> i32>(
    stack: &mut [u8],
    namespaces: i32,
    mut body: F,
) -> Result<i32> {
    extern "C" fn enter<F: FnMut() -> i32>(body: *mut c_void) -> c_int {
        // SAFETY: `body` is the pointer passed to `clone` below; the caller is suspended while this
        // runs, so nobody else uses it.
        let body = unsafe { &mut *body.cast::<F>() };
        body()
    }
    let top = stack.as_mut_ptr_range().end;
    let top = top.wrapping_sub(top as usize % 16);
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD | namespaces;
    // SAFETY: the child runs on `stack`, which is exclusively borrowed, 16-byte aligned and outlives
    // it, because CLONE_VFORK suspends this thread until the child has left this memory.
    let pid = unsafe {
        libc::clone(enter::<F>, top.cast::<c_void>(), flags, (&raw mut body).cast::<c_void>())
    };
    check(c_long::from(pid)).map(|pid| pid as i32)
}

/// Executes a program; returns only if that fails.
pub(crate) fn execve(path: &CStr, argv: &CStrings, envp: &CStrings) -> Errno {
    // SAFETY: both arrays end in a null pointer and point to strings that `CStrings` owns.
    unsafe { libc::execve(path.as_ptr(), argv.pointers.as_ptr(), envp.pointers.as_ptr()) };
    last_error()
}

/// Overwrites the memory from `start` to `end` with zeros: the command line of this process, which every process that
/// sees it can read in `/proc`, and its environment, which some can.
///
/// Only for the copy of kiln that a fork made, and only with the range that the kernel names for it: see
/// `arg_start` and `env_end` of `proc_pid_stat(5)`. Nothing in that copy reads its arguments or variables any more.
pub(crate) fn blank_command_line(range: &std::ops::Range<usize>) {
    if range.start == 0 || range.end <= range.start {
        return;
    }
    // SAFETY: the kernel placed the arguments there when it started the program; the memory is writable, private to
    // this copy, and no reference of this process points into it but those of the standard library to its arguments
    // and variables, which are not read after the fork.
    unsafe { std::ptr::write_bytes(range.start as *mut u8, 0, range.end - range.start) };
}

/// Ends this process at once, running nothing of the language's or library's clean-up.
pub(crate) fn exit(status: i32) -> ! {
    // SAFETY: `_exit` takes an integer and does not return.
    unsafe { libc::_exit(status) }
}

/// Strings in the form that `execve` wants: an array of pointers that ends in null.
#[derive(Debug)]
pub(crate) struct CStrings {
    pointers: Vec<*const c_char>,
    _strings: Vec<std::ffi::CString>,
}

// SAFETY: the pointers lead to the strings, which are owned, never change, and stay where they are when this moves.
unsafe impl Send for CStrings {}

impl CStrings {
    /// Takes the strings over.
    pub(crate) fn new(strings: Vec<std::ffi::CString>) -> Self {
        let pointers = strings.iter().map(|it| it.as_ptr()).chain([std::ptr::null()]).collect();
        Self { pointers, _strings: strings }
    }
}

/// Moves this process into new namespaces.
pub(crate) fn unshare(namespaces: i32) -> Result<()> {
    // SAFETY: takes an integer. Callers pass no flag that would unshare the file table, so no
    // handle changes its meaning.
    check(c_long::from(unsafe { libc::unshare(namespaces) })).map(drop)
}

/// Closes all descriptors from `first` to `last`, both included.
///
/// The caller must not use an owned handle in the range afterwards; only a process that is about
/// to lose its memory can promise that, so this is for the child alone.
pub(crate) fn close_range(first: RawFd, last: RawFd) {
    // SAFETY: the child holds no owning handle that it will drop: it leaves by `exit` or `execve`.
    let status = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if status == -1 {
        // Before Linux 5.9. The limit on open files bounds the loop.
        let n_open = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let last = last.min(n_open.unwrap_or(4096).min(1 << 20) as RawFd);
        for fd in first..=last {
            // SAFETY: as above.
            unsafe { libc::close(fd) };
        }
    }
}

/// Closes every descriptor above the standard streams but one.
pub(crate) fn close_all_but(kept: RawFd) {
    if kept > 3 {
        close_range(3, kept - 1);
    }
    close_range(kept + 1, RawFd::MAX);
}

/// Moves a descriptor to another number, replacing what was there; the new one survives `execve`.
pub(crate) fn dup_to(from: BorrowedFd<'_>, to: RawFd) -> Result<()> {
    if from.as_raw_fd() == to {
        return rustix::io::fcntl_setfd(from, rustix::io::FdFlags::empty());
    }
    // SAFETY: only used for the standard streams 0 to 2 of a child process, which nothing owns.
    check(c_long::from(unsafe { libc::dup2(from.as_raw_fd(), to) })).map(drop)
}

/// A signal mask to go back to.
#[derive(Clone, Copy)]
pub(crate) struct SignalMask(libc::sigset_t);

/// Blocks all signals for this thread and returns the mask before.
pub(crate) fn block_signals() -> SignalMask {
    // SAFETY: `sigset_t` is plain data; both calls only write the sets passed, and cannot fail with
    // these arguments.
    unsafe {
        let mut all = std::mem::zeroed::<libc::sigset_t>();
        let mut before = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        SignalMask(before)
    }
}

/// Sets this thread's mask.
pub(crate) fn restore_signals(mask: SignalMask) {
    // SAFETY: reads the set passed.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask.0, std::ptr::null_mut()) };
}

/// Unblocks every signal for this thread.
pub(crate) fn unblock_signals() {
    // SAFETY: `sigset_t` is plain data, of which `sigemptyset` writes every part that counts.
    let none = unsafe {
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut none);
        none
    };
    restore_signals(SignalMask(none));
}

/// Gives every signal its default effect again.
pub(crate) fn reset_signal_handlers() {
    // The kernel counts to 64; the library hides two or three of them, which it never handles.
    for signal in 1..=64 {
        // SAFETY: `sigaction` is plain data, and all zeroes mean the default action. Refusals
        // (SIGKILL, SIGSTOP, the library's own) change nothing.
        unsafe {
            let action = std::mem::zeroed::<libc::sigaction>();
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

/// Opens a descriptor that becomes readable when a child ends. SIGCHLD must be blocked.
pub(crate) fn child_events() -> Result<OwnedFd> {
    // SAFETY: the set lives through the call, and the descriptor returned is new.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        check(c_long::from(fd))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Sends a signal, which may be one without a name (a real-time signal).
pub(crate) fn kill(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: takes two integers.
    check(c_long::from(unsafe { libc::kill(pid, signal) })).map(drop)
}

/// Sends a signal through a handle.
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // SAFETY: the information pointer may be null; the rest are integers.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<c_void>(),
            0,
        )
    })
    .map(drop)
}

/// Sets attributes of a mount, by a handle on its root.
///
/// # Source
///
/// `mount_setattr(2)`, since Linux 5.12.
pub(crate) fn mount_setattr(
    mount: BorrowedFd<'_>,
    recursive: bool,
    set: u64,
    clear: u64,
) -> Result<()> {
    let attr = libc::mount_attr { attr_set: set, attr_clr: clear, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the kernel reads an empty string and `attr`, whose size it is told.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// Installs a seccomp filter on this thread, for good.
pub(crate) fn install_filter(program: &[Instruction]) -> Result<()> {
    set_filter(program, libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW).map(drop)
}

fn set_filter(program: &[Instruction], flags: u64) -> Result<c_long> {
    #[repr(C)]
    struct Program {
        len: u16,
        filter: *const Instruction,
    }
    let len = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let program = Program { len, filter: program.as_ptr() };
    // SAFETY: `program` describes a slice that outlives the call; the kernel copies it.
    check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    })
}

/// Leaves the session keyring of the caller's login for a new, empty one.
pub(crate) fn new_session_keyring() -> Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring; nothing is read.
    check(unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<c_char>())
    })
    .map(drop)
}

/// Brings the loopback interface of this network namespace up.
pub(crate) fn loopback_up(socket: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: `ifreq` is plain data; the name is shorter than its field and ends in the zeroes
    // around it; the kernel reads the name and the flags.
    unsafe {
        let mut request = std::mem::zeroed::<libc::ifreq>();
        request.ifr_name[0] = b'l' as c_char;
        request.ifr_name[1] = b'o' as c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
        // The type of the second argument differs between the C libraries.
        check(c_long::from(libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            &raw const request,
        )))
        .map(drop)
    }
}

/// Sets a resource limit of this process, by the number of the resource.
pub(crate) fn set_limit(resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: pid 0 is this process, the new limit is read, the old one is not asked for.
    check(unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            &raw const limit,
            std::ptr::null_mut::<c_void>(),
        )
    })
    .map(drop)
}

/// Whether the kernel knows seccomp filters that return an error number.
pub(crate) fn has_seccomp_filter() -> bool {
    let action: u32 = libc::SECCOMP_RET_ERRNO;
    // SAFETY: the kernel reads one `u32`.
    let status = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action)
    };
    status == 0
}

/// Lets the allocator give memory back to the machine as soon as it is free. It would keep it for a second, and of what one part of a build
/// has freed little fits the next part. That takes milliseconds, which a build with little to do would notice: large ones ask for it.
pub fn give_memory_back() {
    #[cfg(target_env = "musl")]
    {
        use mimalloc as _;

        /// `mi_option_purge_delay`, in milliseconds.
        const PURGE_DELAY: c_int = 15;
        unsafe extern "C" {
            fn mi_option_set(option: c_int, value: libc::c_long);
        }
        // SAFETY: the function is that of the allocator that `mimalloc` links, sets a number, and takes any.
        unsafe { mi_option_set(PURGE_DELAY, 0) };
    }
}

/// Writes the path of the working directory into a buffer, without allocating; returns its length.
pub(crate) fn getcwd(buffer: &mut [u8]) -> Result<usize> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes to the buffer.
    check(unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) })
        .map(|n_bytes| n_bytes as usize)
}
