//! What a process that is not root may do to files, by the owners that they have for it.
//!
//! For the kernel every process is the owner of every file and may do everything. Programs ask, try and choose their way by
//! the answer, so it is given as far as owners and modes say it. It is no protection: nothing in a sandbox is protected from its
//! other processes.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, CWD, FileType, OFlags};
use rustix::io::{Errno, Result};

use super::answers::Answers;
use super::caller::{AT_CWD, Caller, Given, Place};
use super::calls::Call;
use super::identity::Credentials;
use super::owner::Owned;
use crate::sys::notify::Reply;

pub(crate) const READ: u32 = 4;
pub(crate) const WRITE: u32 = 2;
pub(crate) const EXECUTE: u32 = 1;

const STICKY: u32 = 0o1000;

impl Answers {
    /// Fails if the folders that lead to a file, or the file itself, do not permit what is wanted.
    pub(crate) fn may(&self, me: &Credentials, place: &Place, wanted: u32) -> Result<()> {
        if me.overrides() {
            return Ok(());
        }
        let file = place.open()?;
        self.may_reach(me, place, file.as_fd())?;
        let owned = self.owned(file.as_fd())?;
        // Devices, pipes and sockets of others are meant to be used.
        let is_plain = matches!(owned.kind, FileType::RegularFile | FileType::Directory);
        if !is_plain || permits(me, &owned, wanted) { Ok(()) } else { Err(Errno::ACCESS) }
    }

    /// Fails if one of the folders on the way to a file must not be entered.
    fn may_reach(&self, me: &Credentials, place: &Place, file: BorrowedFd<'_>) -> Result<()> {
        for folder in place.folders_to(file)? {
            let folder = folder.as_slice();
            let Ok(stat) = rustix::fs::statat(CWD, folder, AtFlags::SYMLINK_NOFOLLOW) else {
                return Ok(());
            };
            if stat.st_mode & 0o111 == 0o111 {
                continue;
            }
            let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let folder = rustix::fs::openat(CWD, folder, flags, rustix::fs::Mode::empty())?;
            if !permits(me, &self.owned(folder.as_fd())?, EXECUTE) {
                return Err(Errno::ACCESS);
            }
        }
        Ok(())
    }

    /// Fails if a file that exists must not be opened like this. One that cannot be found is left to the kernel.
    pub(crate) fn may_open(
        &self,
        caller: &Caller<'_>,
        me: &Credentials,
        given: &Given,
        flags: OFlags,
    ) -> Result<()> {
        if me.overrides() {
            return Ok(());
        }
        let wanted = match flags & OFlags::RWMODE {
            OFlags::RDONLY => READ,
            OFlags::WRONLY => WRITE,
            _ => READ | WRITE,
        };
        let wanted = if flags.contains(OFlags::TRUNC) { wanted | WRITE } else { wanted };
        let place = caller.place(given, !flags.contains(OFlags::NOFOLLOW))?;
        match self.may(me, &place, wanted) {
            Err(Errno::ACCESS) => Err(Errno::ACCESS),
            _ => Ok(()),
        }
    }

    /// Calls that only ask, or only need a right: they are run by the kernel unless it is missing.
    pub(crate) fn permission(&mut self, caller: &Caller<'_>, call: Call) -> Result<Reply> {
        let me = self.processes.get(caller.call.tid);
        if matches!(call, Call::Rename | Call::Renameat | Call::Link | Call::Linkat) {
            self.keep_owner(caller, call);
        }
        if me.overrides() {
            return Ok(Reply::Continue);
        }
        let path = |index: usize| caller.given(AT_CWD, index);
        let path_at = |index: usize| caller.given(caller.int(index), index + 1);
        match call {
            Call::Access => return self.access(caller, &me, &path(0)?, caller.id(1), 0),
            Call::Faccessat => return self.access(caller, &me, &path_at(0)?, caller.id(2), 0),
            Call::Faccessat2 => {
                return self.access(caller, &me, &path_at(0)?, caller.id(2), caller.int(3));
            }
            Call::Unlink | Call::Rmdir => self.may_remove(caller, &me, &path(0)?, false)?,
            Call::Unlinkat => self.may_remove(caller, &me, &path_at(0)?, false)?,
            Call::Rename => {
                self.may_remove(caller, &me, &path(0)?, false)?;
                self.may_remove(caller, &me, &path(1)?, true)?;
            }
            Call::Renameat => {
                self.may_remove(caller, &me, &path_at(0)?, false)?;
                self.may_remove(caller, &me, &path_at(2)?, true)?;
            }
            Call::Link => self.may_make(caller, &me, &path(1)?)?,
            Call::Linkat => self.may_make(caller, &me, &path_at(2)?)?,
            Call::Chmod => self.must_own(&me, &caller.place(&path(0)?, true)?)?,
            Call::Fchmod => self.must_own(&me, &caller.handle(caller.int(0))?)?,
            Call::Fchmodat => self.must_own(&me, &caller.place(&path_at(0)?, true)?)?,
            Call::Utimensat => self.may_set_times(caller, &me)?,
            Call::Truncate => {
                self.may(&me, &caller.place(&path(0)?, true)?, WRITE)?;
            }
            _ => self.may(&me, &caller.place(&path(0)?, true)?, EXECUTE)?,
        }
        Ok(Reply::Continue)
    }

    /// A question: for the real user, unless the effective one is asked about.
    fn access(
        &self,
        caller: &Caller<'_>,
        me: &Credentials,
        given: &Given,
        wanted: u32,
        flags: i32,
    ) -> Result<Reply> {
        let mut me = me.clone();
        if flags & libc::AT_EACCESS == 0 {
            (me.uids.files, me.gids.files) = (me.uids.real, me.gids.real);
        }
        let place = caller.place_or_handle(given, flags)?;
        self.may(&me, &place, wanted & 7)?;
        Ok(Reply::Continue)
    }

    fn may_make(&self, caller: &Caller<'_>, me: &Credentials, given: &Given) -> Result<()> {
        let Some((parent, _)) = given.split() else { return Ok(()) };
        if caller.place(given, false)?.open().is_ok() {
            return Ok(());
        }
        self.may(me, &caller.place(&parent, true)?, WRITE | EXECUTE)
    }

    /// For a name that goes away, or that is the target of one that moves.
    fn may_remove(
        &self,
        caller: &Caller<'_>,
        me: &Credentials,
        given: &Given,
        is_target: bool,
    ) -> Result<()> {
        let Some((parent, _)) = given.split() else { return Ok(()) };
        let parent = caller.place(&parent, true)?;
        let file = caller.place(given, false)?.open();
        if file.is_err() && !is_target {
            return Ok(());
        }
        self.may(me, &parent, WRITE | EXECUTE)?;
        let folder = self.owned(parent.open()?.as_fd())?;
        if let Ok(file) = file
            && folder.mode & STICKY != 0
            && !me.can("fowner")
            && folder.record.uid != me.uids.files
            && self.owned(file.as_fd())?.record.uid != me.uids.files
        {
            return Err(Errno::PERM);
        }
        Ok(())
    }

    fn must_own(&self, me: &Credentials, place: &Place) -> Result<()> {
        let file = place.open()?;
        let owned = self.owned(file.as_fd())?;
        self.may_reach(me, place, file.as_fd())?;
        let may = owned.record.uid == me.uids.files || me.can("fowner");
        if may { Ok(()) } else { Err(Errno::PERM) }
    }

    fn may_set_times(&self, caller: &Caller<'_>, me: &Credentials) -> Result<()> {
        let place = match caller.arg(1) {
            0 => caller.handle(caller.int(0))?,
            _ => caller.place_or_handle(&caller.given(caller.int(0), 1)?, caller.int(3))?,
        };
        match (self.must_own(me, &place), caller.arg(2)) {
            // The present, which everybody may set who may write.
            (Err(Errno::PERM), 0) => self.may(me, &place, WRITE),
            (result, _) => result,
        }
    }

    /// A link of the layers below whose owner is known by its path is copied up before it gets another one.
    fn keep_owner(&mut self, caller: &Caller<'_>, call: Call) {
        if !self.links.has_lower() {
            return;
        }
        let given = match call {
            Call::Rename | Call::Link => caller.given(AT_CWD, 0),
            _ => caller.given(caller.int(0), 1),
        };
        // What cannot be found here will not be found by the kernel.
        let _ = given.and_then(|given| caller.place(&given, false)).and_then(|place| {
            let file = place.open()?;
            let owned = self.owned(file.as_fd())?;
            if matches!(owned.kind, FileType::RegularFile | FileType::Directory) {
                return Ok(());
            }
            if (owned.record.uid, owned.record.gid) == (0, 0) {
                return Ok(());
            }
            caller.check()?;
            rustix::fs::chownat(&file, c"", None, None, AtFlags::EMPTY_PATH)?;
            self.record(file.as_fd(), owned.kind, owned.record)
        });
    }
}

/// What owner and mode of a file permit.
fn permits(me: &Credentials, file: &Owned, wanted: u32) -> bool {
    let bits = if file.record.uid == me.uids.files {
        file.mode >> 6
    } else if me.is_in(file.record.gid) {
        file.mode >> 3
    } else {
        file.mode
    };
    bits & wanted == wanted
}
