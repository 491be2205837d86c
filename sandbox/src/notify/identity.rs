//! Who each process of a sandbox is, in its own eyes.
//!
//! For the kernel all of them are the one user there is. The ids they have given themselves are kept here: a thread whose
//! ids were never changed has those of the process that started it. A process is looked up in `/proc` when it is first seen,
//! which is too late if who started it is gone or somebody else by then; so the children of a process are noted before it
//! changes its ids, and before it ends.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::io::{Errno, Result};
use rustix::process::{Pid, PidfdFlags};

use crate::{caps, sys};

/// The ids of a process, and the capabilities that go with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) uids: Ids,
    pub(crate) gids: Ids,
    pub(crate) groups: Vec<u32>,
    pub(crate) capabilities: Capabilities,
}

/// What a process may do and take back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capabilities {
    pub(crate) effective: u64,
    pub(crate) permitted: u64,
    /// Whether the permitted ones stay when the last id of root goes (`PR_SET_KEEPCAPS`).
    pub(crate) are_kept: bool,
}

/// Ids of one kind: real, effective, saved, and the one that files are accessed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) real: u32,
    pub(crate) effective: u32,
    pub(crate) saved: u32,
    pub(crate) files: u32,
}

impl Ids {
    /// All the same.
    pub(crate) fn all(id: u32) -> Self {
        Self { real: id, effective: id, saved: id, files: id }
    }

    fn has(self, id: u32) -> bool {
        [self.real, self.effective, self.saved].contains(&id)
    }

    /// As `setuid(2)`.
    pub(crate) fn set(self, id: u32, may_all: bool) -> Result<Self> {
        if id == UNCHANGED {
            return Err(Errno::INVAL);
        }
        if may_all {
            Ok(Self::all(id))
        } else if id == self.real || id == self.saved {
            Ok(Self { effective: id, files: id, ..self })
        } else {
            Err(Errno::PERM)
        }
    }

    /// As `setreuid(2)`.
    pub(crate) fn set_two(self, real: u32, effective: u32, may_all: bool) -> Result<Self> {
        let mut new = self;
        if real != UNCHANGED {
            if !may_all && real != self.real && real != self.effective {
                return Err(Errno::PERM);
            }
            new.real = real;
        }
        if effective != UNCHANGED {
            if !may_all && !self.has(effective) {
                return Err(Errno::PERM);
            }
            new.effective = effective;
        }
        if real != UNCHANGED || (effective != UNCHANGED && effective != self.real) {
            new.saved = new.effective;
        }
        new.files = new.effective;
        Ok(new)
    }

    /// As `setresuid(2)`.
    pub(crate) fn set_three(self, ids: [u32; 3], may_all: bool) -> Result<Self> {
        if !may_all && ids.iter().any(|id| *id != UNCHANGED && !self.has(*id)) {
            return Err(Errno::PERM);
        }
        let or = |new: u32, old: u32| if new == UNCHANGED { old } else { new };
        let effective = or(ids[1], self.effective);
        Ok(Self {
            real: or(ids[0], self.real),
            effective,
            saved: or(ids[2], self.saved),
            files: effective,
        })
    }

    /// As `setfsuid(2)`, which never fails.
    pub(crate) fn set_files(self, id: u32, may_all: bool) -> Self {
        if id != UNCHANGED && (may_all || self.has(id) || id == self.files) {
            Self { files: id, ..self }
        } else {
            self
        }
    }
}

/// The id that means "as it is".
pub(crate) const UNCHANGED: u32 = u32::MAX;

impl Credentials {
    /// Those of a process that starts as this user, where root has these capabilities.
    pub(crate) fn new(uid: u32, gid: u32, groups: Vec<u32>, granted: u64) -> Self {
        let set = if uid == 0 { granted } else { 0 };
        let capabilities = Capabilities { effective: set, permitted: set, are_kept: false };
        Self { uids: Ids::all(uid), gids: Ids::all(gid), groups, capabilities }
    }

    /// Whether it has a capability, by its name in small letters.
    pub(crate) fn can(&self, name: &str) -> bool {
        caps::bit(name).is_some_and(|bit| self.capabilities.effective & bit != 0)
    }

    /// Whether no mode of a file keeps it from it.
    pub(crate) fn overrides(&self) -> bool {
        self.uids.files == 0 && self.can("dac_override")
    }

    /// Changes the user ids, and the capabilities with them as the kernel does it.
    pub(crate) fn set_users(&mut self, new: Ids) {
        let (old, caps) = (self.uids, &mut self.capabilities);
        self.uids = new;
        if old.has(0) && !new.has(0) && !caps.are_kept {
            (caps.effective, caps.permitted) = (0, 0);
        }
        match (old.effective, new.effective) {
            (0, 0) => {}
            (0, _) => caps.effective = 0,
            (_, 0) => caps.effective = caps.permitted,
            _ => {}
        }
    }

    /// What executing a program makes of the capabilities, where root has those of `granted`.
    pub(crate) fn execute(&mut self, granted: u64) {
        let is_root = self.uids.effective == 0 || self.uids.real == 0;
        let permitted = if is_root { granted } else { 0 };
        let effective = if self.uids.effective == 0 { permitted } else { 0 };
        self.capabilities = Capabilities { effective, permitted, are_kept: false };
    }

    /// Whether files are accessed with this group.
    pub(crate) fn is_in(&self, gid: u32) -> bool {
        self.gids.files == gid || self.groups.contains(&gid)
    }
}

/// Everybody that is known.
pub(crate) struct Processes {
    initial: Arc<Credentials>,
    /// The first process of the sandbox, as the supervisor sees it.
    init: u32,
    known: HashMap<u32, Known>,
    /// Whether somebody has ever changed its ids.
    is_changed: bool,
}

struct Known {
    credentials: Arc<Credentials>,
    /// By which it is noticed that the number is another process's by now.
    handle: Option<OwnedFd>,
}

/// What `/proc` says of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) process: u32,
    pub(crate) parent: u32,
    pub(crate) umask: u32,
}

impl Status {
    /// That of a thread.
    pub(crate) fn of(tid: u32) -> Result<Self> {
        let text = read(&format!("{tid}/status"))?;
        Self::parse(&text).ok_or(Errno::SRCH)
    }

    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            line[name.len()..].split_whitespace().next()
        };
        Some(Self {
            process: field("Tgid:")?.parse().ok()?,
            parent: field("PPid:")?.parse().ok()?,
            umask: u32::from_str_radix(field("Umask:")?, 8).ok()?,
        })
    }
}

/// Reads a file of `/proc`, which is the working directory.
fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

impl Processes {
    /// A sandbox whose first process is `init` and whose command starts as `initial`.
    pub(crate) fn new(initial: Credentials, init: u32) -> Self {
        Self { initial: Arc::new(initial), init, known: HashMap::new(), is_changed: false }
    }

    /// Who a thread is.
    pub(crate) fn get(&mut self, tid: u32) -> Arc<Credentials> {
        if !self.is_changed {
            return self.initial.clone();
        }
        let mut unknown = Vec::new();
        let mut at = tid;
        let found = loop {
            if let Some(found) = self.look_up(at) {
                break found;
            }
            let Ok(status) = Status::of(at) else { break self.initial.clone() };
            unknown.push(at);
            at = if status.process == at { status.parent } else { status.process };
            // A chain is as long as processes are nested; the limit is for one that changes meanwhile.
            if at == 0 || at == self.init || unknown.len() > 1000 {
                break self.initial.clone();
            }
        };
        for tid in unknown {
            self.insert(tid, found.clone());
        }
        found
    }

    fn look_up(&mut self, tid: u32) -> Option<Arc<Credentials>> {
        let known = self.known.get(&tid)?;
        if let Some(handle) = &known.handle
            && sys::pidfd_send_signal(handle.as_fd(), 0) == Err(Errno::SRCH)
        {
            self.known.remove(&tid);
            return None;
        }
        Some(known.credentials.clone())
    }

    fn insert(&mut self, tid: u32, credentials: Arc<Credentials>) {
        // Of those who are as everybody is at first there may be many, and nothing is lost if one is taken for another.
        let handle = match credentials == self.initial {
            true => None,
            false => handle(tid),
        };
        self.known.insert(tid, Known { credentials, handle });
    }

    /// Changes who a thread is.
    pub(crate) fn set(&mut self, tid: u32, credentials: Credentials) {
        let before = self.get(tid);
        if *before == credentials {
            return;
        }
        self.note_children(tid, &before);
        self.is_changed = true;
        self.insert(tid, Arc::new(credentials));
    }

    /// Is told that a thread, or its whole process, is about to end.
    pub(crate) fn ends(&mut self, tid: u32) {
        if !self.is_changed {
            return;
        }
        let credentials = self.get(tid);
        if credentials != self.initial {
            self.note_children(tid, &credentials);
        }
        self.known.remove(&tid);
    }

    /// Notes that the children of a process are who it is now.
    fn note_children(&mut self, tid: u32, credentials: &Arc<Credentials>) {
        for task in std::fs::read_dir(format!("{tid}/task")).into_iter().flatten().flatten() {
            let Ok(text) = std::fs::read_to_string(task.path().join("children")) else { continue };
            for child in text.split_whitespace().filter_map(|it| it.parse().ok()) {
                if self.look_up(child).is_none() {
                    self.insert(child, credentials.clone());
                }
            }
        }
    }
}

fn handle(tid: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(tid).ok()?)?;
    rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_change_as_the_kernel_changes_them() {
        let root = Ids::all(0);
        assert_eq!(root.set(33, true), Ok(Ids::all(33)));
        let user = Ids::all(33);
        assert_eq!(user.set(0, false), Err(Errno::PERM));
        assert_eq!(user.set(UNCHANGED, false), Err(Errno::INVAL));
        // `seteuid` and back.
        let lowered = root.set_three([UNCHANGED, 33, UNCHANGED], true).unwrap();
        assert_eq!(lowered, Ids { real: 0, effective: 33, saved: 0, files: 33 });
        assert_eq!(lowered.set_three([UNCHANGED, 0, UNCHANGED], false), Ok(root));
        assert_eq!(lowered.set(0, false), Ok(root));
        // `setreuid` gives up the way back.
        let swapped = root.set_two(33, 33, true).unwrap();
        assert_eq!(swapped, Ids::all(33));
        assert_eq!(
            lowered.set_two(33, 0, false),
            Ok(Ids { real: 33, effective: 0, saved: 0, files: 0 })
        );
        assert_eq!(user.set_two(0, UNCHANGED, false), Err(Errno::PERM));
        assert_eq!(user.set_files(0, false), user);
        assert_eq!(lowered.set_files(0, false).files, 0);
    }

    #[test]
    fn capabilities_go_with_root() {
        let granted = caps::bit("setgid").unwrap();
        let root = Credentials::new(0, 0, vec![], granted);
        assert!(root.can("setgid") && !root.can("chown"));
        let mut user = root.clone();
        user.set_users(Ids::all(5));
        assert_eq!(user.capabilities.permitted, 0);
        let mut keeping = root.clone();
        keeping.capabilities.are_kept = true;
        keeping.set_users(Ids::all(5));
        assert_eq!((keeping.capabilities.effective, keeping.capabilities.permitted), (0, granted));
        keeping.execute(granted);
        assert_eq!(keeping.capabilities.permitted, 0);
        let mut back = root.clone();
        back.set_users(Ids { effective: 5, files: 5, ..Ids::all(0) });
        assert!(!back.can("setgid"));
        back.set_users(Ids::all(0));
        assert!(back.can("setgid"));
    }

    #[test]
    fn status_of_a_thread() {
        let text = "Name:\tx y\nUmask:\t0022\nState:\tS\nTgid:\t12\nNgid:\t0\nPid:\t13\nPPid:\t7\n";
        assert_eq!(Status::parse(text), Some(Status { process: 12, parent: 7, umask: 0o22 }));
        assert_eq!(Status::parse("Tgid:\t1\n"), None);
    }
}
