//! What this machine permits, found out by trying, and the rung of the ladder that follows.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::cgroup::Hierarchies;
use crate::chroot;
use crate::error::SandboxError;
use crate::inside::HERE;
use crate::overlay::instance;
use crate::sys::{self, Fork, namespace};
use crate::userns::{self, Refusal};

/// A level of the sandbox ladder, from the strongest down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rung {
    /// (a) Root with the right to mount: namespaces and overlay.
    Root,
    /// (b) A user namespace with subordinate ids.
    SubordinateIds,
    /// (c) A user namespace with one id, ownership kept beside the tree.
    SingleId,
    /// (d) No right to mount: chroot and a copied tree.
    Chroot,
    /// (e) Nothing: commands cannot be run.
    None,
}

impl Rung {
    /// The letter and the words that `kiln info` prints.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Root => "a: root, namespaces and overlay",
            Self::SubordinateIds => "b: rootless with subordinate ids",
            Self::SingleId => "c: rootless with one id",
            Self::Chroot => "d: chroot and copied tree",
            Self::None => "e: no sandbox, RUN is refused",
        }
    }
}

/// One thing a machine may permit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub name: &'static str,
    /// What was found, if it is permitted.
    pub found: Option<String>,
    /// Why it is not, if it is not.
    pub reason: Option<String>,
}

/// Everything that was found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permissions {
    /// One by one, in the order in which they are shown.
    pub findings: Vec<Finding>,
    /// The best rung that the machine permits and kiln has.
    pub rung: Rung,
    /// The better rungs, from the best down, and what each of them would need.
    pub better: Vec<(Rung, String)>,
}

impl Permissions {
    /// What was found under a name, if it is permitted.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.findings.iter().find(|it| it.name == name)?.found.as_deref()
    }

    fn add(&mut self, name: &'static str, result: Result<String, String>) -> bool {
        let (found, reason) = match result {
            Ok(found) => (Some(found), None),
            Err(reason) => (None, Some(reason)),
        };
        let is_permitted = found.is_some();
        self.findings.push(Finding { name, found, reason });
        is_permitted
    }
}

/// Finds out what this machine permits. Changes nothing on it.
///
/// Each thing is tried, in a short-lived process, because versions and settings do not tell: a
/// container's filter or a security module may refuse what the kernel could do.
pub fn probe() -> Permissions {
    let mut out = Permissions { findings: vec![], rung: Rung::None, better: vec![] };
    let uid = rustix::process::geteuid();
    let is_root = uid.is_root();
    out.add(
        "root",
        if is_root { Ok("uid 0".into()) } else { Err(format!("running as uid {}", uid.as_raw())) },
    );
    let all = namespace::MOUNT | namespace::PID | namespace::IPC | namespace::UTS | namespace::NET;
    let has_namespaces = out.add("namespaces", try_namespaces(all));
    let has_overlay = has_namespaces && out.add("overlay", try_overlay(false));
    let user = try_status(userns::TRIED, userns::try_out)
        .map_err(userns::why_no_namespace)
        .and_then(userns::why_not);
    let has_user = out.add("user namespace", say(&user.clone().map(|()| "permitted".to_owned())));
    let has_userxattr = has_user && out.add("overlay userxattr", try_overlay(true));
    let ids = userns::describe_ids();
    let has_ids = out.add("subordinate ids", say(&ids));
    out.add(
        "cgroup",
        match Hierarchies::get().version() {
            "none" => Err("no control groups are mounted".into()),
            version => Ok(format!("version {version}")),
        },
    );
    out.add(
        "seccomp",
        if sys::has_seccomp_filter() {
            Ok("filter".into())
        } else {
            Err("the kernel has no seccomp filters".into())
        },
    );
    let listener = try_status(userns::TRIED, userns::try_out_listener)
        .map_err(userns::why_no_namespace)
        .and_then(userns::why_not);
    out.add("seccomp notify", say(&listener.clone().map(|()| "permitted".to_owned())));
    out.add(
        "landlock",
        match sys::landlock_version() {
            Ok(version) => Ok(format!("ABI {version}")),
            Err(errno) => Err(errno.to_string()),
        },
    );
    if has_namespaces && has_overlay {
        out.rung = Rung::Root;
        return out;
    }
    let root = if is_root { "the capability CAP_SYS_ADMIN" } else { "kiln to be run as root" };
    out.better.push((Rung::Root, root.to_owned()));
    if has_userxattr && has_ids {
        out.rung = Rung::SubordinateIds;
        return out;
    }
    let needed = |missing: Option<Refusal>| {
        let missing = missing.map(|it| it.remedy.unwrap_or(it.reason));
        missing.unwrap_or_else(|| "overlays with the option `userxattr`".to_owned())
    };
    out.better.push((Rung::SubordinateIds, needed(user.clone().err().or(ids.err()))));
    if has_userxattr && listener.is_ok() {
        out.rung = Rung::SingleId;
        return out;
    }
    out.better.push((Rung::SingleId, needed(user.err().or(listener.err()))));
    let chroot = chroot::describe();
    if out.add("chroot", say(&chroot)) {
        out.rung = Rung::Chroot;
        return out;
    }
    let missing = chroot.err().map(|it| it.remedy.unwrap_or(it.reason)).unwrap_or_default();
    out.better.push((Rung::Chroot, missing));
    out
}

fn say(result: &Result<String, Refusal>) -> Result<String, String> {
    result.clone().map_err(|it| it.reason)
}

/// Fails if commands cannot be run here, with the reason; found out once. To be called before work is done that only a
/// command needs.
///
/// # Errors
///
/// [`SandboxError::Unsupported`].
pub fn require() -> Result<(), SandboxError> {
    static REFUSED: OnceLock<Option<String>> = OnceLock::new();
    if let Some(refusal) = userns::refused() {
        return Err(refusal.clone().into_error());
    }
    if chroot::is_chosen() {
        return Ok(());
    }
    let refused = REFUSED.get_or_init(|| {
        let all = namespace::MOUNT | namespace::PID | namespace::IPC | namespace::UTS;
        try_namespaces(all).err()
    });
    match refused {
        None => Ok(()),
        Some(reason) => Err(SandboxError::Unsupported { reason: reason.clone(), remedy: None }),
    }
}

/// As [`require`], for what cannot do without mounts: a container.
///
/// # Errors
///
/// [`SandboxError::Unsupported`].
pub fn require_mounts() -> Result<(), SandboxError> {
    if chroot::is_chosen() {
        return Err(SandboxError::Unsupported {
            reason: "a container needs mounts, and here only RUN does without".to_owned(),
            remedy: Some("`kiln info` shows what a stronger kind of sandbox needs".to_owned()),
        });
    }
    require()
}

fn try_namespaces(namespaces: i32) -> Result<String, String> {
    try_in(namespaces, || Ok(()))
        .map(|()| "permitted".to_owned())
        .map_err(|errno| format!("new namespaces are refused: {errno}"))
}

/// Mounts an overlay and lets a directory come back, which needs an attribute: without the right to set that, the mount
/// works all the same, and what is done in it fails.
fn try_overlay(in_user_namespace: bool) -> Result<String, String> {
    let namespaces =
        if in_user_namespace { namespace::USER | namespace::MOUNT } else { namespace::MOUNT };
    // Without an id nothing can be made; one's own may be mapped by everybody.
    let map = |id: u32| CString::new(format!("0 {id} 1")).unwrap_or_default();
    let users = map(rustix::process::geteuid().as_raw());
    let groups = map(rustix::process::getegid().as_raw());
    let tried = try_in(namespaces, || {
        if in_user_namespace {
            write(c"/proc/self/setgroups", c"deny")?;
            write(c"/proc/self/uid_map", &users)?;
            write(c"/proc/self/gid_map", &groups)?;
        }
        let overlay = small_overlay(in_user_namespace)?;
        rustix::fs::unlinkat(&overlay, c"dir", AtFlags::REMOVEDIR)?;
        rustix::fs::mkdirat(&overlay, c"dir", Mode::RWXU)
    });
    match tried {
        Ok(()) => Ok("permitted".to_owned()),
        // Memory has no attributes of users before Linux 6.6; a disk may have them.
        Err(Errno::NOTSUP | Errno::IO) if in_user_namespace => {
            Ok("permitted, but in memory".to_owned())
        }
        Err(errno) => Err(format!("an overlay is refused: {errno}")),
    }
}

/// An overlay in memory with the directory `dir` in its lower layer. Only system calls are made.
fn small_overlay(has_userxattr: bool) -> rustix::io::Result<OwnedFd> {
    use rustix::mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
        fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change,
        move_mount,
    };

    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change(c"/", private)?;
    let memory = instance(c"tmpfs", &[(c"mode", c"0700")], MountAttrFlags::empty())?;
    // Layers must be in the mount table before Linux 6.15.
    move_mount(&memory, c"", HERE, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    rustix::process::fchdir(&memory)?;
    for name in [c"lower", c"lower/dir", c"upper", c"work"] {
        rustix::fs::mkdirat(&memory, name, Mode::RWXU)?;
    }
    let fs = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in [(c"lowerdir", c"lower"), (c"upperdir", c"upper"), (c"workdir", c"work")] {
        fsconfig_set_string(&fs, key, value)?;
    }
    if has_userxattr {
        fsconfig_set_flag(&fs, c"userxattr")?;
    }
    fsconfig_create(&fs)?;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

fn write(path: &CStr, text: &CStr) -> rustix::io::Result<()> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, text.to_bytes()).map(drop)
}

/// Tries something in a new process with new namespaces. `body` may only make system calls.
pub(crate) fn try_in(
    namespaces: i32,
    body: impl FnOnce() -> rustix::io::Result<()>,
) -> rustix::io::Result<()> {
    match try_status(namespaces, || body().err().map_or(0, Errno::raw_os_error))? {
        Some(0) => Ok(()),
        Some(errno) => Err(Errno::from_raw_os_error(errno)),
        None => Err(Errno::CHILD),
    }
}

/// As [`try_in`], with the exit status as it is; `None` if the process was killed.
fn try_status(namespaces: i32, body: impl FnOnce() -> i32) -> rustix::io::Result<Option<i32>> {
    let mask = sys::block_signals();
    let forked = sys::fork_into(namespaces, None);
    if let Ok(Fork::Child) = forked {
        sys::exit(body());
    }
    sys::restore_signals(mask);
    let Fork::Parent { pidfd, .. } = forked? else { return Err(Errno::CHILD) };
    let status = rustix::io::retry_on_intr(|| {
        let exited = rustix::process::WaitIdOptions::EXITED;
        rustix::process::waitid(rustix::process::WaitId::PidFd(pidfd.as_fd()), exited)
    })?;
    Ok(status.and_then(|it| it.exit_status()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_has_a_result_or_a_reason() {
        let found = probe();
        assert!(found.findings.len() >= 6);
        for it in &found.findings {
            assert!(it.found.is_some() != it.reason.is_some(), "{it:?}");
        }
    }
}
