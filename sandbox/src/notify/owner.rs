//! Owners: what `stat` says, and what `chown` changes.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType};
use rustix::io::{Errno, Result};

use super::answers::Answers;
use super::caller::{AT_CWD, Caller, Given, Place, own_handle};
use super::calls::Call;
use super::identity::{Credentials, UNCHANGED};
use super::record::Record;
use crate::sys::notify::{FileStatus, Reply};

/// What a file is for the processes of the sandbox.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owned {
    pub(crate) record: Record,
    pub(crate) kind: FileType,
    /// Permission bits.
    pub(crate) mode: u32,
}

/// The structure that a program wants its answer in.
enum Form {
    Stat,
    Statx { flags: i32, mask: u32 },
}

impl Answers {
    /// `stat` and its relatives.
    pub(crate) fn stat(&mut self, caller: &Caller<'_>, call: Call) -> Result<Reply> {
        let path = |index: usize| caller.given(AT_CWD, index);
        let (place, buffer, form) = match call {
            Call::Stat => (caller.place(&path(0)?, true)?, 1, Form::Stat),
            Call::Lstat => (caller.place(&path(0)?, false)?, 1, Form::Stat),
            Call::Fstat => (caller.handle(caller.int(0))?, 1, Form::Stat),
            Call::Newfstatat => {
                (caller.place_or_handle(&given_or_empty(caller)?, caller.int(3))?, 2, Form::Stat)
            }
            _ => {
                let flags = caller.int(2);
                let place = caller.place_or_handle(&given_or_empty(caller)?, flags)?;
                let flags = flags & !(libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW);
                (place, 4, Form::Statx { flags, mask: caller.id(3) })
            }
        };
        let Some(record) = self.known(&place)? else { return Ok(Reply::Continue) };
        let mut status = match form {
            Form::Stat => FileStatus::stat(place.path(), place.at_flag())?,
            Form::Statx { flags, mask } => {
                FileStatus::statx(place.path(), flags | place.at_flag(), mask)?
            }
        };
        status.set_owner(record.uid, record.gid);
        if let Some(device) = record.device {
            status.set_device(device.is_block, device.major, device.minor);
        }
        caller.write(caller.arg(buffer), status.bytes())?;
        Ok(Reply::Value(0))
    }

    /// What is remembered of a file; `None` if that is nothing, or the kernel says it right.
    fn known(&self, place: &Place) -> Result<Option<Record>> {
        if let Some(record) = Record::get(place.path(), place.follow)? {
            return Ok(Some(record));
        }
        if self.links.is_empty() {
            return Ok(None);
        }
        let file = place.open()?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
        if !self.has_unmarked && matches!(kind, FileType::RegularFile | FileType::Directory) {
            return Ok(None);
        }
        let owner = self.links.get(file.as_fd())?;
        Ok(owner.map(|(uid, gid)| Record { uid, gid, device: None }))
    }

    /// All that counts of an open file.
    pub(crate) fn owned(&self, file: BorrowedFd<'_>) -> Result<Owned> {
        let stat = rustix::fs::fstat(file)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mut record = Record::get(&own_handle(file), true).unwrap_or(None);
        let is_plain = matches!(kind, FileType::RegularFile | FileType::Directory);
        if record.is_none() && !self.links.is_empty() && (!is_plain || self.has_unmarked) {
            let owner = self.links.get(file)?;
            record = owner.map(|(uid, gid)| Record { uid, gid, device: None });
        }
        let record = record.unwrap_or_default();
        Ok(Owned { record, kind, mode: stat.st_mode & 0o7777 })
    }

    /// Remembers an owner.
    pub(crate) fn record(
        &mut self,
        file: BorrowedFd<'_>,
        kind: FileType,
        record: Record,
    ) -> Result<()> {
        let owner = (record.uid, record.gid);
        if !matches!(kind, FileType::RegularFile | FileType::Directory) {
            return self.links.set(file, owner);
        }
        match record.set(&own_handle(file)) {
            Err(Errno::NOTSUP) => {
                self.has_unmarked = true;
                self.links.set(file, owner)
            }
            // A file of the machine, which is somebody else's.
            Err(Errno::ACCESS) => Err(Errno::PERM),
            result => result,
        }
    }

    /// `chown` and its relatives.
    pub(crate) fn chown(&mut self, caller: &Caller<'_>, call: Call) -> Result<Reply> {
        let path = |index: usize| caller.given(AT_CWD, index);
        let (place, first) = match call {
            Call::Chown => (caller.place(&path(0)?, true)?, 1),
            Call::Lchown => (caller.place(&path(0)?, false)?, 1),
            Call::Fchown => (caller.handle(caller.int(0))?, 1),
            _ => (caller.place_or_handle(&given_or_empty(caller)?, caller.int(4))?, 2),
        };
        let (uid, gid) = (caller.id(first), caller.id(first + 1));
        let file = place.open()?;
        let owned = self.owned(file.as_fd())?;
        let me = self.processes.get(caller.call.tid);
        if !may_chown(&me, owned.record, uid, gid) {
            return Err(Errno::PERM);
        }
        caller.check()?;
        // Copies it up, takes the rights away that go with the owner, and sets the time of change.
        rustix::fs::chownat(&file, c"", None, None, AtFlags::EMPTY_PATH)?;
        let or = |new: u32, old: u32| if new == UNCHANGED { old } else { new };
        let new = Record {
            uid: or(uid, owned.record.uid),
            gid: or(gid, owned.record.gid),
            device: owned.record.device,
        };
        if new != owned.record || !matches!(owned.kind, FileType::RegularFile | FileType::Directory)
        {
            self.record(file.as_fd(), owned.kind, new)?;
        }
        Ok(Reply::Value(0))
    }

    /// `listxattr` and its relatives: our attribute is not shown.
    pub(crate) fn list_attributes(&mut self, caller: &Caller<'_>, call: Call) -> Result<Reply> {
        let place = match call {
            Call::Listxattr => caller.place(&caller.given(AT_CWD, 0)?, true)?,
            Call::Llistxattr => caller.place(&caller.given(AT_CWD, 0)?, false)?,
            _ => caller.handle(caller.int(0))?,
        };
        if Record::get(place.path(), place.follow)?.is_none() {
            return Ok(Reply::Continue);
        }
        let mut names = vec![0_u8; 64 << 10];
        let n_bytes = match place.follow {
            true => rustix::fs::listxattr(place.path(), names.as_mut_slice())?,
            false => rustix::fs::llistxattr(place.path(), names.as_mut_slice())?,
        };
        let mut shown = Vec::with_capacity(n_bytes);
        for name in names[..n_bytes].split_inclusive(|it| *it == 0) {
            if !name.starts_with(super::record::PREFIX) {
                shown.extend_from_slice(name);
            }
        }
        let size = usize::try_from(caller.arg(2)).unwrap_or(usize::MAX);
        if size != 0 {
            if size < shown.len() {
                return Ok(Reply::Error(Errno::RANGE));
            }
            caller.write(caller.arg(1), &shown)?;
        }
        Ok(Reply::Value(shown.len() as i64))
    }
}

/// The path in the first two arguments; no path at all counts as an empty one.
fn given_or_empty(caller: &Caller<'_>) -> Result<Given> {
    match caller.arg(1) {
        0 => Ok(Given { dir: caller.int(0), path: Vec::new() }),
        _ => caller.given(caller.int(0), 1),
    }
}

fn may_chown(me: &Credentials, old: Record, uid: u32, gid: u32) -> bool {
    me.can("chown")
        || (old.uid == me.uids.files
            && (uid == UNCHANGED || uid == old.uid)
            && (gid == UNCHANGED || gid == old.gid || me.is_in(gid)))
}
