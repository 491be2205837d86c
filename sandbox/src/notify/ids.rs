//! Calls that ask for ids or change them, and programs that change them by being executed.

use std::ffi::CString;
use std::io::Read;
use std::os::fd::AsFd;

use rustix::fs::FileType;
use rustix::io::{Errno, Result};

use super::answers::Answers;
use super::caller::{AT_CWD, Caller, Given, own_handle};
use super::calls::Call;
use super::identity::{Credentials, Ids};
use crate::sys::notify::Reply;

const SET_USER: u32 = 0o4000;
const SET_GROUP: u32 = 0o2000;
/// As many groups as the kernel lets a process have.
const MAX_GROUPS: usize = 65536;

impl Answers {
    /// `getuid` and its relatives.
    pub(crate) fn get_ids(&mut self, caller: &Caller<'_>, call: Call) -> Result<Reply> {
        let me = self.processes.get(caller.call.tid);
        let three = |ids: Ids| -> Result<Reply> {
            for (index, id) in [ids.real, ids.effective, ids.saved].into_iter().enumerate() {
                caller.write(caller.arg(index), &id.to_ne_bytes())?;
            }
            Ok(Reply::Value(0))
        };
        Ok(Reply::Value(match call {
            Call::Getuid => me.uids.real.into(),
            Call::Geteuid => me.uids.effective.into(),
            Call::Getgid => me.gids.real.into(),
            Call::Getegid => me.gids.effective.into(),
            Call::Getresuid => return three(me.uids),
            Call::Getresgid => return three(me.gids),
            _ => {
                let size = caller.int(0);
                let n_groups = me.groups.len();
                if size != 0 {
                    if usize::try_from(size).map_or(true, |size| size < n_groups) {
                        return Ok(Reply::Error(Errno::INVAL));
                    }
                    let bytes: Vec<u8> = me.groups.iter().flat_map(|it| it.to_ne_bytes()).collect();
                    caller.write(caller.arg(1), &bytes)?;
                }
                n_groups as i64
            }
        }))
    }

    /// `setuid` and its relatives.
    pub(crate) fn set_ids(&mut self, caller: &Caller<'_>, call: Call) -> Result<Reply> {
        let me = self.processes.get(caller.call.tid);
        let mut new = Credentials::clone(&me);
        let (may_users, may_groups) = (me.can("setuid"), me.can("setgid"));
        let [a, b, c] = [caller.id(0), caller.id(1), caller.id(2)];
        let mut value = 0;
        match call {
            Call::Setuid => new.set_users(me.uids.set(a, may_users)?),
            Call::Setgid => new.gids = me.gids.set(a, may_groups)?,
            Call::Setreuid => new.set_users(me.uids.set_two(a, b, may_users)?),
            Call::Setregid => new.gids = me.gids.set_two(a, b, may_groups)?,
            Call::Setresuid => new.set_users(me.uids.set_three([a, b, c], may_users)?),
            Call::Setresgid => new.gids = me.gids.set_three([a, b, c], may_groups)?,
            Call::Setfsuid => {
                new.set_users(me.uids.set_files(a, may_users));
                value = i64::from(me.uids.files);
            }
            Call::Setfsgid => {
                new.gids = me.gids.set_files(a, may_groups);
                value = i64::from(me.gids.files);
            }
            _ => {
                if !may_groups {
                    return Err(Errno::PERM);
                }
                let n_groups = usize::try_from(caller.int(0)).map_err(|_| Errno::INVAL)?;
                if n_groups > MAX_GROUPS {
                    return Err(Errno::INVAL);
                }
                let mut bytes = vec![0; 4 * n_groups];
                if n_groups > 0 {
                    caller.read(caller.arg(1), &mut bytes)?;
                }
                let id = |it: &[u8]| u32::from_ne_bytes(it.try_into().unwrap_or_default());
                new.groups = bytes.chunks_exact(4).map(id).collect();
                new.groups.sort_unstable();
            }
        }
        caller.check()?;
        self.processes.set(caller.call.tid, new);
        Ok(Reply::Value(value))
    }

    /// `capget`.
    pub(crate) fn get_capabilities(&mut self, caller: &Caller<'_>) -> Result<Reply> {
        let me = self.processes.get(caller.call.tid);
        let Some(n_words) = words(caller)? else { return Ok(Reply::Continue) };
        if me.uids == Ids::all(0) || caller.arg(1) == 0 {
            return Ok(Reply::Continue);
        }
        let mut bytes = Vec::new();
        for word in 0..n_words {
            let part = |set: u64| ((set >> (32 * word)) as u32).to_ne_bytes();
            bytes.extend(part(me.capabilities.effective));
            bytes.extend(part(me.capabilities.permitted));
            bytes.extend(part(0));
        }
        caller.write(caller.arg(1), &bytes)?;
        Ok(Reply::Value(0))
    }

    /// `capset`: the kernel does it, too, with the capabilities that it thinks the process has.
    pub(crate) fn set_capabilities(&mut self, caller: &Caller<'_>) -> Result<Reply> {
        let me = self.processes.get(caller.call.tid);
        let Some(n_words) = words(caller)? else { return Ok(Reply::Continue) };
        let mut bytes = [0; 24];
        let bytes = &mut bytes[..12 * n_words];
        caller.read(caller.arg(1), bytes)?;
        let set = |at: usize| {
            (0..n_words).fold(0_u64, |set, word| {
                let start = 12 * word + at;
                let part = bytes[start..start + 4].try_into().unwrap_or_default();
                set | u64::from(u32::from_ne_bytes(part)) << (32 * word)
            })
        };
        let (effective, permitted) = (set(0), set(4));
        if permitted & !me.capabilities.permitted != 0 || effective & !permitted != 0 {
            return Err(Errno::PERM);
        }
        let mut new = Credentials::clone(&me);
        (new.capabilities.effective, new.capabilities.permitted) = (effective, permitted);
        self.processes.set(caller.call.tid, new);
        Ok(Reply::Continue)
    }

    /// `prctl`, as far as it is about capabilities.
    pub(crate) fn control(&mut self, caller: &Caller<'_>) {
        if caller.int(0) == libc::PR_SET_KEEPCAPS {
            let mut new = Credentials::clone(&self.processes.get(caller.call.tid));
            new.capabilities.are_kept = caller.arg(1) == 1;
            self.processes.set(caller.call.tid, new);
        }
    }

    /// `execve`: a program with the bits for it changes who the process is.
    pub(crate) fn execute(&mut self, caller: &Caller<'_>, call: Call) -> Result<Reply> {
        let place = match call {
            Call::Execve => match caller.given(AT_CWD, 0) {
                Ok(given) => caller.place(&given, true)?,
                // It is kiln that executes the command, and tries these in turn; which one it is at cannot be seen.
                Err(_) => {
                    let given = |it: &CString| Given { dir: AT_CWD, path: it.as_bytes().to_vec() };
                    let places =
                        self.commands.iter().filter_map(|it| caller.place(&given(it), true).ok());
                    places.into_iter().find(|it| it.open().is_ok()).ok_or(Errno::NOENT)?
                }
            },
            _ => caller.place_or_handle(&caller.given(caller.int(0), 1)?, caller.int(4))?,
        };
        let file = place.open()?;
        let owned = self.owned(file.as_fd())?;
        if owned.kind != FileType::RegularFile || owned.mode & 0o111 == 0 {
            return Ok(Reply::Continue);
        }
        let me = self.processes.get(caller.call.tid);
        self.may(&me, &place, super::access::EXECUTE)?;
        let mut new = Credentials::clone(&me);
        // A set-group-id bit without the right to execute meant something else once.
        let is_group = owned.mode & (SET_GROUP | 0o010) == SET_GROUP | 0o010;
        let has_bits = owned.mode & SET_USER != 0 || is_group;
        if has_bits && !self.no_new_privs && is_elf(&own_handle(file.as_fd())) {
            if owned.mode & SET_USER != 0 {
                new.uids.effective = owned.record.uid;
            }
            if is_group {
                new.gids.effective = owned.record.gid;
            }
        }
        for ids in [&mut new.uids, &mut new.gids] {
            (ids.saved, ids.files) = (ids.effective, ids.effective);
        }
        new.execute(self.granted);
        if new != *me {
            caller.check()?;
            self.processes.set(caller.call.tid, new);
        }
        Ok(Reply::Continue)
    }
}

/// How many words of 32 bits the sets of capabilities have that a call is about. Whose they are is not looked at: a process may
/// only change its own, and asks for those of others hardly ever.
fn words(caller: &Caller<'_>) -> Result<Option<usize>> {
    let mut version = [0; 4];
    caller.read(caller.arg(0), &mut version)?;
    Ok(match u32::from_ne_bytes(version) {
        0x1998_0330 => Some(1),
        0x2007_1026 | 0x2008_0522 => Some(2),
        _ => None,
    })
}

/// Whether it is a program and no script: the bits of a script do not count.
fn is_elf(path: &std::ffi::CStr) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let mut magic = [0; 4];
    std::fs::File::open(std::ffi::OsStr::from_bytes(path.to_bytes()))
        .and_then(|mut file| file.read_exact(&mut magic))
        .is_ok_and(|()| magic == *b"\x7fELF")
}
