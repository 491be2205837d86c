//! New files: who owns them.
//!
//! What root makes in a folder that hands down no group belongs to 0:0, needs no record, and is made by the kernel. Everything
//! else is made here, so that it has its record before anybody can look at it. So what fails here for somebody else fails: if the kernel
//! tried it once more, it could succeed by then, because another process has made the folder, and make something without a record. One gap is
//! left: who opens a file that is there, and may make it, while another process removes it, makes one that belongs to root.
//! Below a root of their own (`chroot`) processes are left to the kernel where something is missing.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::{Errno, Result};

use super::access::{EXECUTE, WRITE};
use super::answers::Answers;
use super::caller::{AT_CWD, Caller, Given, Place};
use super::calls::Call;
use super::identity::{Credentials, Status};
use super::record::{Device, Record};
use crate::sys::notify::{self, Reply};

const SET_GROUP: u32 = 0o2000;

impl Answers {
    /// `mkdir`, `symlink`, `mknod` and their relatives.
    pub(crate) fn create(&mut self, caller: &Caller<'_>, call: Call) -> Result<Reply> {
        // The place of the path, and of what comes after it.
        let (given, next) = match call {
            Call::Mkdir | Call::Mknod => (caller.given(AT_CWD, 0)?, 1),
            Call::Symlink => (caller.given(AT_CWD, 1)?, 0),
            Call::Symlinkat => (caller.given(caller.int(1), 2)?, 0),
            _ => (caller.given(caller.int(0), 1)?, 2),
        };
        let me = self.processes.get(caller.call.tid);
        let made = self.create_as(&me, caller, call, &given, next);
        finally(&me, caller, &given, made)
    }

    fn create_as(
        &mut self,
        me: &Credentials,
        caller: &Caller<'_>,
        call: Call,
        given: &Given,
        next: usize,
    ) -> Result<Reply> {
        let mode = caller.id(next);
        let device = match (call, mode & libc::S_IFMT) {
            (Call::Mknod | Call::Mknodat, kind @ (libc::S_IFCHR | libc::S_IFBLK)) => {
                Some(device(kind == libc::S_IFBLK, caller.id(next + 1)))
            }
            _ => None,
        };
        let Some((parent, _)) = given.split() else { return Ok(Reply::Continue) };
        let parent = caller.place(&parent, true)?;
        let Some(owner) = self.new_owner(me, &parent)? else {
            return match (device, call) {
                (Some(device), _) => self.make_device(caller, me, given, mode, device, (0, 0)),
                // So that nobody takes it for a link of the layers below that had this name.
                (None, Call::Symlink | Call::Symlinkat | Call::Mknod | Call::Mknodat)
                    if self.links.has_lower() && mode & libc::S_IFMT != libc::S_IFREG =>
                {
                    self.make(caller, call, given, mode, next, (0, 0))
                }
                _ => Ok(Reply::Continue),
            };
        };
        // That there is something comes before the question whether it may be made.
        if caller.place(given, false)?.open().is_ok() {
            return Err(Errno::EXIST);
        }
        self.may_write_to(me, &parent)?;
        match device {
            Some(device) => self.make_device(caller, me, given, mode, device, owner),
            None => self.make(caller, call, given, mode, next, owner),
        }
    }

    fn make(
        &mut self,
        caller: &Caller<'_>,
        call: Call,
        given: &Given,
        mode: u32,
        next: usize,
        owner: (u32, u32),
    ) -> Result<Reply> {
        let place = caller.place(given, false)?;
        let masked = |mode: u32| -> Result<Mode> {
            Ok(Mode::from_raw_mode(mode & !Status::of(caller.call.tid)?.umask))
        };
        match call {
            Call::Mkdir | Call::Mkdirat => {
                let mode = masked(mode & 0o1777)?;
                caller.check()?;
                rustix::fs::mkdirat(CWD, place.path(), mode)?;
            }
            Call::Symlink | Call::Symlinkat => {
                let target = caller.string(caller.arg(next))?;
                caller.check()?;
                rustix::fs::symlinkat(target.as_slice(), CWD, place.path())?;
            }
            _ => {
                let kind = match mode & libc::S_IFMT {
                    0 | libc::S_IFREG => FileType::RegularFile,
                    libc::S_IFIFO => FileType::Fifo,
                    libc::S_IFSOCK => FileType::Socket,
                    _ => return Ok(Reply::Continue),
                };
                let mode = masked(mode & 0o7777)?;
                caller.check()?;
                rustix::fs::mknodat(CWD, place.path(), kind, mode, 0)?;
            }
        }
        self.record_new(&place, Record { uid: owner.0, gid: owner.1, device: None })?;
        Ok(Reply::Value(0))
    }

    fn record_new(&mut self, place: &Place, record: Record) -> Result<()> {
        let file = open_new(place)?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
        self.record(file.as_fd(), kind, record)
    }

    /// An empty file that stands for the device. The device 0:0 is how overlay marks what is removed; the kernel refuses it.
    fn make_device(
        &mut self,
        caller: &Caller<'_>,
        me: &Credentials,
        given: &Given,
        mode: u32,
        device: Device,
        (uid, gid): (u32, u32),
    ) -> Result<Reply> {
        if (device.is_block, device.major, device.minor) == (false, 0, 0) {
            return Ok(Reply::Continue);
        }
        if !me.can("mknod") {
            return Err(Errno::PERM);
        }
        let place = caller.place(given, false)?;
        let mode = Mode::from_raw_mode(mode & 0o7777 & !Status::of(caller.call.tid)?.umask);
        caller.check()?;
        rustix::fs::mknodat(CWD, place.path(), FileType::RegularFile, mode, 0)?;
        let file = open_new(&place)?;
        let record = Record { uid, gid, device: Some(device) };
        match record.set(&super::caller::own_handle(file.as_fd())) {
            Ok(()) => Ok(Reply::Value(0)),
            Err(errno) => {
                let _ = rustix::fs::unlinkat(CWD, place.path(), AtFlags::empty());
                Err(errno)
            }
        }
    }

    /// `open` with a flag that writes or makes, or any if the command is not root. `None` if the caller has its answer.
    pub(crate) fn open(&mut self, caller: &Caller<'_>, call: Call) -> Result<Option<Reply>> {
        let (given, flags, mode) = match call {
            Call::Open => (caller.given(AT_CWD, 0)?, caller.int(1), caller.id(2)),
            Call::Creat => {
                let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
                (caller.given(AT_CWD, 0)?, flags, caller.id(1))
            }
            Call::Openat2 => {
                let mut how = [0_u8; 24];
                caller.read(caller.arg(2), &mut how)?;
                let word =
                    |at: usize| u64::from_ne_bytes(how[at..at + 8].try_into().unwrap_or_default());
                let (flags, mode, resolve) = (word(0), word(8), word(16));
                // A program that wants it resolved in another way falls back to a walk of its own.
                if resolve != 0 && flags & libc::O_CREAT as u64 != 0 {
                    return Ok(Some(Reply::Error(Errno::NOSYS)));
                }
                (caller.given(caller.int(0), 1)?, flags as i32, mode as u32)
            }
            _ => (caller.given(caller.int(0), 1)?, caller.int(2), caller.id(3)),
        };
        let me = self.processes.get(caller.call.tid);
        let flags = OFlags::from_bits_retain(flags as u32);
        let is_temporary = flags.contains(OFlags::TMPFILE);
        if flags.contains(OFlags::PATH) && !is_temporary {
            return Ok(Some(Reply::Continue));
        }
        if !flags.contains(OFlags::CREATE) && !is_temporary {
            self.may_open(caller, &me, &given, flags)?;
            return Ok(Some(Reply::Continue));
        }
        match self.open_or_make(&me, caller, &given, flags, mode) {
            Ok(reply) => Ok(reply),
            Err(errno) => finally(&me, caller, &given, Err(errno)).map(Some),
        }
    }

    fn open_or_make(
        &mut self,
        me: &Credentials,
        caller: &Caller<'_>,
        given: &Given,
        flags: OFlags,
        mode: u32,
    ) -> Result<Option<Reply>> {
        if flags.contains(OFlags::TMPFILE) {
            let parent = caller.place(given, true)?;
            let Some(owner) = self.new_owner(me, &parent)? else {
                return Ok(Some(Reply::Continue));
            };
            self.may_write_to(me, &parent)?;
            return self.open_new(caller, &parent, flags, mode, owner);
        }
        let Some((parent, _)) = given.split() else { return Ok(Some(Reply::Continue)) };
        let parent = caller.place(&parent, true)?;
        let Some(owner) = self.new_owner(me, &parent)? else { return Ok(Some(Reply::Continue)) };
        let place = caller.place(given, !flags.contains(OFlags::NOFOLLOW))?;
        match place.open() {
            Ok(_) if flags.contains(OFlags::EXCL) => return Err(Errno::EXIST),
            Ok(_) => {
                self.may_open(caller, me, given, flags)?;
                return Ok(Some(Reply::Continue));
            }
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
        self.may_write_to(me, &parent)?;
        self.open_new(caller, &place, flags, mode, owner)
    }

    fn open_new(
        &mut self,
        caller: &Caller<'_>,
        place: &Place,
        flags: OFlags,
        mode: u32,
        (uid, gid): (u32, u32),
    ) -> Result<Option<Reply>> {
        let umask = Status::of(caller.call.tid)?.umask;
        let mode = Mode::from_raw_mode(mode & 0o7777 & !umask);
        let is_cloexec = flags.contains(OFlags::CLOEXEC);
        caller.check()?;
        // A pipe that has come there meanwhile must not make everybody wait.
        let ours = flags | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let file = rustix::fs::openat(CWD, place.path(), ours, mode)?;
        if !flags.contains(OFlags::NONBLOCK) {
            let set = rustix::fs::fcntl_getfl(&file)? - OFlags::NONBLOCK;
            rustix::fs::fcntl_setfl(&file, set)?;
        }
        self.record(file.as_fd(), FileType::RegularFile, Record { uid, gid, device: None })?;
        notify::send_fd(caller.listener, caller.call.id, file.as_fd(), is_cloexec)?;
        Ok(None)
    }

    /// The owner of what is made in a folder, unless that is what it has anyway.
    fn new_owner(&self, me: &Credentials, parent: &Place) -> Result<Option<(u32, u32)>> {
        let record = Record::get(parent.path(), true)?.unwrap_or_default();
        let mut gid = me.gids.files;
        if gid != record.gid {
            let stat = rustix::fs::statat(CWD, parent.path(), AtFlags::empty())?;
            if stat.st_mode & SET_GROUP != 0 {
                gid = record.gid;
            }
        }
        let owner = (me.uids.files, gid);
        Ok((owner != (0, 0)).then_some(owner))
    }

    fn may_write_to(&self, me: &Credentials, parent: &Place) -> Result<()> {
        self.may(me, parent, WRITE | EXECUTE)
    }
}

/// The answer to who makes something: that it failed is one for who is not root, unless the kernel knows the place better.
fn finally(
    me: &Credentials,
    caller: &Caller<'_>,
    given: &Given,
    made: Result<Reply>,
) -> Result<Reply> {
    match made {
        Err(errno) if (me.uids.files, me.gids.files) != (0, 0) && caller.sees_the_same(given) => {
            Ok(Reply::Error(errno))
        }
        made => made,
    }
}

/// What was just made, and is no link that is followed.
fn open_new(place: &Place) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, place.path(), flags, Mode::empty())
}

/// A device number as `mknod` takes it.
fn device(is_block: bool, number: u32) -> Device {
    let number = u64::from(number);
    Device { is_block, major: rustix::fs::major(number), minor: rustix::fs::minor(number) }
}
