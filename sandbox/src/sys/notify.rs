//! System calls of seccomp's user notification, and of looking into the process that waits for an answer.

use std::ffi::{CStr, c_ulong, c_void};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{Errno, Result};

use super::{Instruction, check};

/// A call that waits for an answer: `struct seccomp_notif` of the kernel.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Notification {
    /// Names the call while it waits.
    pub(crate) id: u64,
    /// The calling thread, in the pid namespace of the reader.
    pub(crate) tid: u32,
    flags: u32,
    /// The number of the call.
    pub(crate) number: i32,
    /// The architecture of the caller.
    pub(crate) arch: u32,
    instruction: u64,
    /// Its arguments.
    pub(crate) args: [u64; 6],
}

/// What a call is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    /// It is run by the kernel, as if nobody had asked.
    Continue,
    /// It is not run, and returns this.
    Value(i64),
    /// It is not run, and fails.
    Error(Errno),
}

#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

#[repr(C)]
struct AddFd {
    id: u64,
    flags: u32,
    from: u32,
    to: u32,
    to_flags: u32,
}

// The numbers hold the sizes of the structures above: `_IOWR('!', 0, struct seccomp_notif)` and so on.
const RECEIVE: c_ulong = 0xC050_2100;
const SEND: c_ulong = 0xC018_2101;
const IS_VALID: c_ulong = 0x4008_2102;
const ADD_FD: c_ulong = 0x4018_2103;
const SET_FLAGS: c_ulong = 0x4008_2104;

const FLAG_NEW_LISTENER: u64 = 1 << 3;
/// Only a signal that kills disturbs a call that is being answered. Since Linux 5.19.
const FLAG_WAIT_KILLABLE: u64 = 1 << 5;
const FLAG_CONTINUE: u32 = 1;
const FLAG_ADD_FD_SEND: u32 = 1 << 1;
const SYNC_WAKE_UP: u64 = 1;

/// Installs a filter on this thread, for good, and returns the handle on which its notifications arrive.
///
/// # Source
///
/// `seccomp_unotify(2)`.
pub(crate) fn install_filter_with_listener(program: &[Instruction]) -> Result<OwnedFd> {
    let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW | FLAG_NEW_LISTENER;
    let fd = match super::set_filter(program, flags | FLAG_WAIT_KILLABLE) {
        Err(Errno::INVAL) => super::set_filter(program, flags)?,
        fd => fd?,
    };
    // SAFETY: the kernel has just opened it, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Installs a filter that lets everything through, to see whether a listener can be had.
pub(crate) fn try_listener() -> Result<()> {
    const RETURN: u16 = 0x06;
    let allow = Instruction { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW };
    install_filter_with_listener(&[allow]).map(drop)
}

fn control<T>(listener: BorrowedFd<'_>, request: c_ulong, argument: *mut T) -> Result<()> {
    // SAFETY: each request is called with a structure of the size that its number holds, which outlives the call.
    check(unsafe {
        libc::syscall(libc::SYS_ioctl, listener.as_raw_fd(), request, argument.cast::<c_void>())
    })
    .map(drop)
}

/// Waits for the next call.
pub(crate) fn receive(listener: BorrowedFd<'_>) -> Result<Notification> {
    let mut out = Notification::default();
    control(listener, RECEIVE, &raw mut out)?;
    Ok(out)
}

/// Answers a call. One that does not wait any more gives `ENOENT`.
pub(crate) fn send(listener: BorrowedFd<'_>, id: u64, reply: Reply) -> Result<()> {
    let mut response = match reply {
        Reply::Continue => Response { id, value: 0, error: 0, flags: FLAG_CONTINUE },
        Reply::Value(value) => Response { id, value, error: 0, flags: 0 },
        Reply::Error(errno) => Response { id, value: 0, error: -errno.raw_os_error(), flags: 0 },
    };
    control(listener, SEND, &raw mut response)
}

/// Whether a call still waits. What was learnt of its thread before is of that thread then.
pub(crate) fn is_waiting(listener: BorrowedFd<'_>, mut id: u64) -> bool {
    control(listener, IS_VALID, &raw mut id).is_ok()
}

/// Answers a call with a new descriptor of the caller's, for the same open file as `file`.
pub(crate) fn send_fd(
    listener: BorrowedFd<'_>,
    id: u64,
    file: BorrowedFd<'_>,
    is_cloexec: bool,
) -> Result<()> {
    let mut add = AddFd {
        id,
        flags: FLAG_ADD_FD_SEND,
        from: file.as_raw_fd() as u32,
        to: 0,
        to_flags: if is_cloexec { libc::O_CLOEXEC as u32 } else { 0 },
    };
    control(listener, ADD_FD, &raw mut add)
}

/// Lets a caller and who answers it take turns on one processor. Since Linux 6.6; before, nothing happens.
pub(crate) fn take_turns(listener: BorrowedFd<'_>) {
    // The flags are the argument itself, not pointed to.
    // SAFETY: takes integers.
    let _ = unsafe {
        libc::syscall(libc::SYS_ioctl, listener.as_raw_fd(), SET_FLAGS, SYNC_WAKE_UP as c_ulong)
    };
}

/// Size of the pieces in which memory is either there or not.
const PAGE: usize = 4096;

/// Reads memory of another process, up to where it ends; returns how much that is.
pub(crate) fn read_memory(tid: u32, address: u64, buffer: &mut [u8]) -> Result<usize> {
    let start = address as usize;
    let n_first = (PAGE - start % PAGE).min(buffer.len());
    let local =
        libc::iovec { iov_base: buffer.as_mut_ptr().cast::<c_void>(), iov_len: buffer.len() };
    // In two parts: one is read as a whole or not at all.
    let remote = [
        libc::iovec { iov_base: start as *mut c_void, iov_len: n_first },
        libc::iovec {
            iov_base: start.wrapping_add(n_first) as *mut c_void,
            iov_len: buffer.len() - n_first,
        },
    ];
    // SAFETY: the kernel writes at most `buffer.len()` bytes to the buffer; the other addresses are of another process.
    let n_read =
        unsafe { libc::process_vm_readv(tid as i32, &raw const local, 1, remote.as_ptr(), 2, 0) };
    check(n_read as _).map(|n_read| n_read as usize)
}

/// Writes memory of another process, all of it or with an error.
pub(crate) fn write_memory(tid: u32, address: u64, bytes: &[u8]) -> Result<()> {
    let local =
        libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast::<c_void>(), iov_len: bytes.len() };
    let remote = libc::iovec { iov_base: address as usize as *mut c_void, iov_len: bytes.len() };
    // SAFETY: the kernel reads `bytes`; the other address is of another process, and checked by the kernel.
    let n_written = unsafe {
        libc::process_vm_writev(tid as i32, &raw const local, 1, &raw const remote, 1, 0)
    };
    match check(n_written as _)? {
        n_written if n_written as usize == bytes.len() => Ok(()),
        _ => Err(Errno::FAULT),
    }
}

/// What the kernel says of a file, in the form in which it gives it to programs.
#[derive(Clone, Copy)]
pub(crate) enum FileStatus {
    /// For `stat` and its relatives.
    Stat(libc::stat),
    /// For `statx`.
    Statx(libc::statx),
}

impl FileStatus {
    /// As `newfstatat(2)`.
    pub(crate) fn stat(path: &CStr, flags: i32) -> Result<Self> {
        // SAFETY: `stat` is plain data.
        let mut out = unsafe { std::mem::zeroed::<libc::stat>() };
        // SAFETY: the path ends in zero, and the kernel writes one `stat`, which is the library's on 64-bit machines.
        check(unsafe {
            libc::syscall(libc::SYS_newfstatat, libc::AT_FDCWD, path.as_ptr(), &raw mut out, flags)
        })?;
        Ok(Self::Stat(out))
    }

    /// As `statx(2)`.
    pub(crate) fn statx(path: &CStr, flags: i32, mask: u32) -> Result<Self> {
        // SAFETY: `statx` is plain data.
        let mut out = unsafe { std::mem::zeroed::<libc::statx>() };
        // SAFETY: the path ends in zero, and the kernel writes one `statx`.
        check(unsafe {
            libc::syscall(libc::SYS_statx, libc::AT_FDCWD, path.as_ptr(), flags, mask, &raw mut out)
        })?;
        Ok(Self::Statx(out))
    }

    /// Another owner.
    pub(crate) fn set_owner(&mut self, uid: u32, gid: u32) {
        match self {
            Self::Stat(it) => (it.st_uid, it.st_gid) = (uid, gid),
            Self::Statx(it) => (it.stx_uid, it.stx_gid) = (uid, gid),
        }
    }

    /// Another type, that of a device.
    pub(crate) fn set_device(&mut self, is_block: bool, major: u32, minor: u32) {
        let kind = if is_block { libc::S_IFBLK } else { libc::S_IFCHR };
        match self {
            Self::Stat(it) => {
                it.st_mode = it.st_mode & !libc::S_IFMT | kind;
                it.st_rdev = libc::makedev(major, minor);
            }
            Self::Statx(it) => {
                it.stx_mode = it.stx_mode & !(libc::S_IFMT as u16) | kind as u16;
                (it.stx_rdev_major, it.stx_rdev_minor) = (major, minor);
            }
        }
    }

    /// The bytes that a program gets.
    pub(crate) fn bytes(&self) -> &[u8] {
        let (start, n_bytes) = match self {
            Self::Stat(it) => ((&raw const *it).cast::<u8>(), size_of_val(it)),
            Self::Statx(it) => ((&raw const *it).cast::<u8>(), size_of_val(it)),
        };
        // SAFETY: both are structures of integers without padding that was not zeroed before the kernel filled them.
        unsafe { std::slice::from_raw_parts(start, n_bytes) }
    }
}
