//! What this machine permits, found out by trying, and the rung of the ladder that follows.

use std::os::fd::AsFd;
use std::sync::OnceLock;

use crate::cgroup::Hierarchies;
use crate::error::SandboxError;
use crate::sys::{self, Fork, namespace};

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
    /// The best rung that the machine permits.
    pub rung: Rung,
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
    let mut out = Permissions { findings: vec![], rung: Rung::None };
    let uid = rustix::process::geteuid();
    let is_root = uid.is_root();
    out.add(
        "root",
        if is_root { Ok("uid 0".into()) } else { Err(format!("running as uid {}", uid.as_raw())) },
    );
    let all = namespace::MOUNT | namespace::PID | namespace::IPC | namespace::UTS | namespace::NET;
    let has_namespaces = out.add("namespaces", try_namespaces(all));
    let has_overlay = has_namespaces && out.add("overlay", try_overlay(false));
    let has_user = out.add("user namespace", try_namespaces(namespace::USER | namespace::MOUNT));
    let has_userxattr = has_user && out.add("overlay userxattr", try_overlay(true));
    let has_ids = out.add("subordinate ids", subordinate_ids(is_root));
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
    out.add(
        "landlock",
        match sys::landlock_version() {
            Ok(version) => Ok(format!("ABI {version}")),
            Err(errno) => Err(errno.to_string()),
        },
    );
    out.rung = if has_namespaces && has_overlay {
        Rung::Root
    } else if has_userxattr && has_ids {
        Rung::SubordinateIds
    } else if has_userxattr {
        Rung::SingleId
    } else if is_root {
        Rung::Chroot
    } else {
        Rung::None
    };
    out
}

/// Fails unless the root rung can be used; found out once.
pub(crate) fn require_root_rung() -> Result<(), SandboxError> {
    static REFUSED: OnceLock<Option<String>> = OnceLock::new();
    let refused = REFUSED.get_or_init(|| {
        let all = namespace::MOUNT | namespace::PID | namespace::IPC | namespace::UTS;
        match try_namespaces(all) {
            Ok(_) => None,
            Err(reason) => Some(format!("{reason} (so far kiln runs commands as root only)")),
        }
    });
    match refused {
        None => Ok(()),
        Some(reason) => Err(SandboxError::Unsupported { reason: reason.clone() }),
    }
}

fn try_namespaces(namespaces: i32) -> Result<String, String> {
    try_in(namespaces, || Ok(()))
        .map(|()| "permitted".to_owned())
        .map_err(|errno| format!("new namespaces are refused: {errno}"))
}

/// Mounts an overlay, which is only looked at by the process that does it.
fn try_overlay(in_user_namespace: bool) -> Result<String, String> {
    use rustix::mount::{FsOpenFlags, fsopen};

    let namespaces =
        if in_user_namespace { namespace::USER | namespace::MOUNT } else { namespace::MOUNT };
    try_in(namespaces, || {
        let fs = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        if in_user_namespace {
            rustix::mount::fsconfig_set_flag(fs.as_fd(), c"userxattr")?;
        }
        Ok(())
    })
    .map(|()| "permitted".to_owned())
    .map_err(|errno| format!("an overlay is refused: {errno}"))
}

/// Tries something in a new process with new namespaces. `body` may only make system calls.
fn try_in(
    namespaces: i32,
    body: impl FnOnce() -> rustix::io::Result<()>,
) -> rustix::io::Result<()> {
    let mask = sys::block_signals();
    let forked = sys::fork_into(namespaces, None);
    if let Ok(Fork::Child) = forked {
        sys::exit(body().err().map_or(0, rustix::io::Errno::raw_os_error));
    }
    sys::restore_signals(mask);
    let Fork::Parent { pidfd, .. } = forked? else { return Err(rustix::io::Errno::CHILD) };
    let status = rustix::io::retry_on_intr(|| {
        let exited = rustix::process::WaitIdOptions::EXITED;
        rustix::process::waitid(rustix::process::WaitId::PidFd(pidfd.as_fd()), exited)
    })?;
    match status.and_then(|it| it.exit_status()) {
        Some(0) => Ok(()),
        Some(errno) => Err(rustix::io::Errno::from_raw_os_error(errno)),
        None => Err(rustix::io::Errno::CHILD),
    }
}

fn subordinate_ids(is_root: bool) -> Result<String, String> {
    if is_root {
        return Ok("root may map any".to_owned());
    }
    let uid = rustix::process::geteuid().as_raw().to_string();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.get(2) == Some(&uid.as_str())).then(|| fields[0].to_owned())
    });
    for path in ["/etc/subuid", "/etc/subgid"] {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let has_range = text.lines().any(|line| {
            line.split(':').next().is_some_and(|it| it == uid || Some(it) == name.as_deref())
        });
        if !has_range {
            return Err(format!("`{path}` has no line for this user"));
        }
    }
    let helpers = ["newuidmap", "newgidmap"];
    let path = std::env::var_os("PATH").unwrap_or_default();
    for helper in helpers {
        if !std::env::split_paths(&path).any(|dir| dir.join(helper).is_file()) {
            return Err(format!("`{helper}` is not installed"));
        }
    }
    Ok("a range and the helpers".to_owned())
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
