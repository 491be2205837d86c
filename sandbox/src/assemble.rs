//! The file system of a sandbox, put together by its first process.
//!
//! Everything here goes by directory handles; a path is resolved by the kernel, inside the new root,
//! without links where the place is one of ours. Only system calls are made, see [`init`](crate::init).

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};
use rustix::mount::{
    MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags, mount_change, move_mount,
    unmount,
};

use crate::inside::{self, HERE};
use crate::overlay::{clone_tree, instance};
use crate::program::{At, Attach, Failure, Program, Step, What};
use crate::spec::Stdio;
use crate::sys::{self, mount_attr};

const NOSUID_NODEV_NOEXEC: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Paths that are shown but cannot be changed.
const READ_ONLY: [&CStr; 5] =
    [c"proc/bus", c"proc/fs", c"proc/irq", c"proc/sys", c"proc/sysrq-trigger"];

/// Enters the root and mounts everything in it. Returns both ends of the terminal, if there is one.
pub(crate) fn assemble(
    program: &mut Program,
) -> std::result::Result<Option<(OwnedFd, OwnedFd)>, Failure> {
    let system = SystemMounts::make(program)?;
    enter_root(program.root.as_fd())?;
    stage(program)?;
    let root = program.root.as_fd();
    for (index, it) in program.mounts.iter().enumerate() {
        let outer = it.inside.as_ref().and_then(|(outer, rest)| {
            Some((program.mounts.get(*outer)?.mount()?, rest.as_c_str()))
        });
        // What is mounted may be changed by others meanwhile: no link in it leads out of it.
        let (root, target, resolve) = match outer {
            Some((outer, rest)) => (outer, rest, ResolveFlags::BENEATH),
            None => (root, it.target.as_c_str(), ResolveFlags::IN_ROOT),
        };
        attach(root, target, it, resolve).at_index(Step::Mount, index)?;
    }
    let terminal = standard_mounts(program, &system)?;
    for (index, it) in program.mounts_in_dev.iter().enumerate() {
        let resolve = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);
        attach(root, &it.target, it, resolve).at_index(Step::MountInDev, index)?;
    }
    if program.is_read_only {
        sys::mount_setattr(root, false, mount_attr::RDONLY, 0).at(Step::ReadOnlyRoot)?;
    }
    Ok(terminal)
}

/// File systems that a user namespace may mount only while it can see others of their kind, so before the old root goes.
struct SystemMounts {
    proc: OwnedFd,
    /// Missing where the machine's own is shown.
    sys: Option<OwnedFd>,
}

impl SystemMounts {
    fn make(program: &Program) -> std::result::Result<Self, Failure> {
        let proc = instance(c"proc", &[], NOSUID_NODEV_NOEXEC).at(Step::Proc)?;
        let sys = match instance(c"sysfs", &[], sys_attrs(program)) {
            Err(Errno::PERM | Errno::ACCESS) if program.sys.is_some() => None,
            sys => Some(sys.at(Step::Sys)?),
        };
        Ok(Self { proc, sys })
    }
}

fn sys_attrs(program: &Program) -> MountAttrFlags {
    if program.privileged {
        NOSUID_NODEV_NOEXEC
    } else {
        NOSUID_NODEV_NOEXEC | MountAttrFlags::MOUNT_ATTR_RDONLY
    }
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
            it.cut_out = Some(clone_tree(staging.as_fd(), name, false).at(Step::Stage)?);
        }
    }
    if program.staging.is_some() {
        unmount(c"/dev", UnmountFlags::DETACH).at(Step::Stage)?;
    }
    for (step, mounts) in
        [(Step::Mount, &mut program.mounts), (Step::MountInDev, &mut program.mounts_in_dev)]
    {
        for (index, it) in mounts.iter_mut().enumerate() {
            if let What::Part { mount, path } = &it.what {
                mount_at(mount.as_fd(), place).at_index(step, index)?;
                let part = inside::open(mount.as_fd(), path.as_c_str()).at_index(step, index)?;
                it.cut_out = Some(clone_tree(part.as_fd(), c"", false).at_index(step, index)?);
                unmount(c"/dev", UnmountFlags::DETACH).at_index(step, index)?;
            }
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

fn attach(root: BorrowedFd<'_>, target: &CStr, it: &Attach, resolve: ResolveFlags) -> Result<()> {
    let mount = it.mount().ok_or(Errno::INVAL)?;
    if it.attrs != 0 {
        sys::mount_setattr(mount, it.recursive, it.attrs, 0)?;
    }
    let place = match open_target(root, target, resolve) {
        Err(Errno::NOENT) => {
            make_target(root, target, it.is_dir, resolve)?;
            open_target(root, target, resolve)?
        }
        place => place?,
    };
    mount_at(mount, place.as_fd())
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
fn standard_mounts(
    program: &Program,
    system: &SystemMounts,
) -> std::result::Result<Option<(OwnedFd, OwnedFd)>, Failure> {
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
    // With one id there is no such group.
    let n_options = if program.process.is_supervised { 2 } else { 3 };
    mount(c"devpts", c"dev/pts", &pts_options[..n_options], no_suid_exec).at(Step::Pts)?;
    match mount(c"mqueue", c"dev/mqueue", &[], NOSUID_NODEV_NOEXEC) {
        // Left out of a kernel, message queues are not missed.
        Ok(_) | Err(Errno::NODEV) => {}
        Err(errno) => return Err(errno).at(Step::Mqueue),
    }
    at(c"proc").and_then(|place| mount_at(system.proc.as_fd(), place.as_fd())).at(Step::Proc)?;
    if let Some(sys) = system.sys.as_ref().or(program.sys.as_ref()) {
        at(c"sys").and_then(|place| mount_at(sys.as_fd(), place.as_fd())).at(Step::Sys)?;
    }
    if program.has_cgroup2 {
        match mount(c"cgroup2", c"sys/fs/cgroup", &[], sys_attrs(program)) {
            // The machine's stays visible there, read-only.
            Err(Errno::PERM | Errno::ACCESS | Errno::BUSY) if program.sys.is_some() => {}
            group => drop(group.at(Step::Sys)?),
        }
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
            // Where no node can be made, it is an empty file.
            sys::mount_setattr(cover.as_fd(), false, mount_attr::RDONLY, 0)?;
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
