//! The way into a user namespace, for a kiln that is not root.
//!
//! In it kiln is root of as many ids as the machine grants its user, may mount, and so does everything as on a machine of its
//! own: unpack layers with their owners, mount overlays, start sandboxes. The namespace is made in a process of its own, which
//! waits while the maps are written from outside (only there they can be), and tries whether it may mount. If all that works, kiln
//! moves in; if not, nothing has happened, and what needs no sandbox still works.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountPropagationFlags};
use rustix::process::{WaitId, WaitIdOptions};
use rustix::thread::{CapabilitySet, ThreadNameSpaceType};

use crate::chroot;
use crate::error::SandboxError;
use crate::ids::{self, IdMap, IdMaps};
use crate::overlay::instance;
use crate::sys::{self, Fork, namespace};

/// Which kind of sandbox is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Isolation {
    /// The best that the machine permits.
    #[default]
    Auto,
    /// That of root, without a user namespace.
    Root,
    /// In a user namespace with subordinate ids.
    Rootless,
    /// In a user namespace with one id, where owners are kept beside the files and ids of processes are made up.
    SingleId,
    /// In a chroot and a copied tree.
    Chroot,
    /// None: commands are refused.
    None,
}

/// Why there is no sandbox, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    pub(crate) remedy: Option<String>,
}

impl Refusal {
    pub(crate) fn new(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { reason: reason.into(), remedy: Some(remedy.into()) }
    }

    pub(crate) fn plain(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), remedy: None }
    }

    /// As an error.
    pub(crate) fn into_error(self) -> SandboxError {
        SandboxError::Unsupported { reason: self.reason, remedy: self.remedy }
    }
}

/// Why no command can be run, if that is known from the start.
static REFUSED: OnceLock<Refusal> = OnceLock::new();

/// Why no command can be run, if [`isolate`] has found out.
pub(crate) fn refused() -> Option<&'static Refusal> {
    REFUSED.get()
}

/// Chooses the sandbox for everything that this process will run and unpack, and moves into a user namespace if that is
/// what it takes.
///
/// With [`Isolation::Auto`], a machine that permits no sandbox is no error: what runs no command works, and
/// [`spawn`](crate::spawn) says later what is missing.
///
/// To be called once, while this process has one thread, and before it opens what it will mount. User and group ids are
/// others afterwards; what depends on them is to be looked up before.
///
/// # Errors
///
/// [`SandboxError::Unsupported`] if a certain sandbox was asked for, and the machine does not permit it.
pub fn isolate(isolation: Isolation) -> Result<(), SandboxError> {
    let is_admin = || {
        rustix::thread::capabilities(None)
            .is_ok_and(|it| it.effective.contains(CapabilitySet::SYS_ADMIN))
    };
    match isolation {
        Isolation::Auto if is_admin() => Ok(()),
        Isolation::Auto => {
            let entered = enter(Maps::find).or_else(|_| enter(Maps::single));
            if let Err(refusal) = entered
                && let Err(of_chroot) = chroot::choose()
            {
                // Root of a container lacks less for the latter, an ordinary user for the former.
                let is_root = rustix::process::geteuid().is_root();
                let _ = REFUSED.set(if is_root { of_chroot } else { refusal });
            }
            Ok(())
        }
        Isolation::Root if is_admin() => Ok(()),
        Isolation::Root => Err(Refusal::new(
            "`--isolation=root` needs the capability CAP_SYS_ADMIN",
            "run kiln as root, or leave the option away",
        )
        .into_error()),
        Isolation::Rootless => enter(Maps::find).map_err(Refusal::into_error),
        Isolation::SingleId => enter(Maps::single).map_err(Refusal::into_error),
        Isolation::Chroot => chroot::choose().map_err(Refusal::into_error),
        Isolation::None => {
            let _ = REFUSED.set(Refusal::new(
                "`--isolation=none` runs no commands",
                "leave the option away, or build what needs no RUN",
            ));
            Ok(())
        }
    }
}

/// Whether processes run in trees of their own, of which [`Root::Copy`](crate::Root::Copy) is one: nothing can be mounted.
pub fn copies_trees() -> bool {
    chroot::is_chosen()
}

/// Whether this process is in a user namespace, where devices cannot be made and overlays have other attributes. Found out once.
pub(crate) fn is_inside() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        std::fs::metadata("/proc/self/ns/user")
            .is_ok_and(|it| std::os::unix::fs::MetadataExt::ino(&it) != INITIAL_NAMESPACE)
    })
}

/// The number of the user namespace that every machine starts with (`PROC_USER_INIT_INO`).
const INITIAL_NAMESPACE: u64 = 0xEFFF_FFFD;

/// Whether this process is in a user namespace with one id, so that true owners are kept in attributes of files. Found out once;
/// to be asked after [`isolate`].
pub fn has_one_id() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| is_inside() && IdMaps::of_process().has_one_user())
}

/// Makes a user namespace, tries it, and moves in.
fn enter(find: impl FnOnce() -> Result<Maps, Refusal>) -> Result<(), Refusal> {
    let maps = find()?;
    let waiting = Waiting::start(maps.needs_listener())?;
    maps.write(waiting.pid)?;
    let user = waiting.finish()?;
    // Checked by the process that waited; should it fail now, the process is neither here nor there.
    let moved = || {
        rustix::thread::move_into_thread_name_spaces(user.as_fd(), ThreadNameSpaceType::USER)?;
        sys::unshare(namespace::MOUNT)?;
        make_private()
    };
    moved()
        .map_err(|errno: Errno| Refusal::plain(format!("cannot enter the user namespace: {errno}")))
}

fn make_private() -> rustix::io::Result<()> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change(c"/", private)
}

/// The namespaces that are needed to try all of it out.
pub(crate) const TRIED: i32 = namespace::USER | namespace::MOUNT | namespace::PID;

/// Tries in them what a sandbox will do. Only system calls are made; the result is an exit status for [`why_not`].
pub(crate) fn try_out() -> i32 {
    if let Err(errno) = make_private() {
        return errno.raw_os_error();
    }
    // A new one is refused where parts of the old are covered.
    match instance(c"proc", &[], MountAttrFlags::empty()) {
        Ok(_) => 0,
        Err(_) => NO_PROC,
    }
}

/// As [`try_out`], for a sandbox that needs to be asked about system calls.
pub(crate) fn try_out_listener() -> i32 {
    match try_out() {
        0 if sys::notify::try_listener().is_err() => NO_LISTENER,
        status => status,
    }
}

/// Exit statuses that are no error numbers.
const NO_PROC: i32 = 200;
const NO_LISTENER: i32 = 201;

/// What the exit status of [`try_out`] means.
pub(crate) fn why_not(status: Option<i32>) -> Result<(), Refusal> {
    match status {
        Some(0) => Ok(()),
        Some(NO_PROC) => Err(Refusal::new(
            "a user namespace can be made, but a new /proc in it is refused, because parts of the one here are covered",
            "in a container: `--security-opt systempaths=unconfined` (podman: `unmask=ALL`), for a pod `procMount: Unmasked`",
        )),
        Some(NO_LISTENER) => Err(Refusal::new(
            "a user namespace with one id can be made, but system calls in it cannot be answered: the kernel lacks seccomp's user notification, or whoever runs this container uses it already",
            "use subordinate ids (`/etc/subuid`), or Linux 5.11 or later",
        )),
        Some(errno) => Err(why_no_mounts(Errno::from_raw_os_error(errno))),
        None => Err(Refusal::plain("the process in the user namespace was killed")),
    }
}

/// A process in a new user namespace that waits for its maps.
struct Waiting {
    pid: i32,
    pidfd: OwnedFd,
    user: OwnedFd,
    /// It goes on when this is closed.
    go: OwnedFd,
}

impl Waiting {
    fn start(needs_listener: bool) -> Result<Self, Refusal> {
        let failed = |errno: Errno| Refusal::plain(format!("cannot start a process: {errno}"));
        let (wait, go) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(failed)?;
        let mask = sys::block_signals();
        let forked = sys::fork_into(TRIED, None);
        if let Ok(Fork::Child) = forked {
            drop(go);
            let _ = rustix::io::retry_on_intr(|| rustix::io::read(&wait, &mut [0_u8]));
            sys::exit(if needs_listener { try_out_listener() } else { try_out() });
        }
        sys::restore_signals(mask);
        let Fork::Parent { pid, pidfd } = forked.map_err(why_no_namespace)? else {
            return Err(failed(Errno::CHILD));
        };
        let user = rustix::fs::open(
            format!("/proc/{pid}/ns/user"),
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        match user {
            Ok(user) => Ok(Self { pid, pidfd, user, go }),
            Err(errno) => {
                drop(go);
                let _ =
                    rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
                Err(Refusal::plain(format!("cannot open the user namespace: {errno}")))
            }
        }
    }

    /// Lets it try to mount, and gives the namespace out if it could.
    fn finish(self) -> Result<OwnedFd, Refusal> {
        let Self { pidfd, user, go, .. } = self;
        drop(go);
        let status = rustix::io::retry_on_intr(|| {
            rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)
        });
        why_not(status.ok().flatten().and_then(|it| it.exit_status())).map(|()| user)
    }
}

/// The maps to write, and how.
struct Maps {
    maps: IdMaps,
    writer: Writer,
}

/// Who writes the maps.
enum Writer {
    /// This process, which may write any.
    Root,
    /// This process, which may map its own ids and must give up groups for it.
    Owner,
    /// `newuidmap` and `newgidmap`.
    Helpers(PathBuf, PathBuf),
}

impl Maps {
    /// Root with the right to change its ids may map all it has; everybody else what the files say.
    fn find() -> Result<Self, Refusal> {
        let uid = rustix::process::geteuid();
        let own = rustix::thread::capabilities(None).map(|it| it.effective);
        let needed = CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::SETFCAP;
        if uid.is_root() && own.is_ok_and(|it| it.contains(needed)) {
            let maps = IdMaps::of_process();
            let maps = IdMaps { users: maps.users.identity(), groups: maps.groups.identity() };
            return Ok(Self { maps, writer: Writer::Root });
        }
        let maps = subordinate(uid.as_raw(), rustix::process::getegid().as_raw())?;
        let writer = Writer::Helpers(helper("newuidmap")?, helper("newgidmap")?);
        Ok(Self { maps, writer })
    }

    /// The own ids, which everybody may map.
    #[expect(clippy::unnecessary_wraps, reason = "in place of `find`")]
    fn single() -> Result<Self, Refusal> {
        let users = IdMap::single(rustix::process::geteuid().as_raw());
        let groups = IdMap::single(rustix::process::getegid().as_raw());
        Ok(Self { maps: IdMaps { users, groups }, writer: Writer::Owner })
    }

    /// Whether a sandbox with these maps has to be asked about system calls.
    fn needs_listener(&self) -> bool {
        matches!(self.writer, Writer::Owner)
    }

    fn write(&self, pid: i32) -> Result<(), Refusal> {
        let all = [("uid_map", &self.maps.users), ("gid_map", &self.maps.groups)];
        let Writer::Helpers(for_users, for_groups) = &self.writer else {
            let refused = |file: &str, errno: Errno| {
                Refusal::plain(format!("writing `{file}` of a user namespace is refused: {errno}"))
            };
            if self.needs_listener() {
                ids::write_text(&format!("/proc/{pid}/setgroups"), "deny")
                    .map_err(|errno| refused("setgroups", errno))?;
            }
            return all.into_iter().try_for_each(|(file, map)| {
                ids::write(&format!("/proc/{pid}/{file}"), map).map_err(|it| refused(file, it))
            });
        };
        for (helper, (_, map)) in [for_users, for_groups].into_iter().zip(all) {
            run_helper(helper, pid, map)?;
        }
        Ok(())
    }
}

fn run_helper(helper: &Path, pid: i32, map: &IdMap) -> Result<(), Refusal> {
    let name = helper.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut command = Command::new(helper);
    command.arg(pid.to_string()).env_clear().stdin(std::process::Stdio::null());
    command.args(map.numbers().flatten().map(|it| it.to_string()));
    let output = command
        .output()
        .map_err(|error| Refusal::plain(format!("cannot run `{}`: {error}", helper.display())))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().lines().next_back().unwrap_or_default();
    let remedy = why_helper_fails(helper).unwrap_or_else(|| {
        "compare `/etc/subuid` and `/etc/subgid` with the ids above; their ranges must belong to this user".to_owned()
    });
    Err(Refusal::new(
        format!("`{name}` refuses: {}", said.trim_start_matches("newuidmap: ")),
        remedy,
    ))
}

/// What keeps a helper from having the rights it needs.
fn why_helper_fails(helper: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if status.lines().any(|line| line.split_whitespace().eq(["NoNewPrivs:", "1"])) {
        return Some(
            "this process may gain no privileges (no_new_privs; in Kubernetes `allowPrivilegeEscalation: false`), which the helper must"
                .to_owned(),
        );
    }
    let metadata = std::fs::metadata(helper).ok()?;
    let has_capabilities =
        rustix::fs::getxattr_query(helper, "security.capability").is_ok_and(|it| it > 0);
    let is_setuid = metadata.mode() & 0o4000 != 0 && metadata.uid() == 0;
    (!is_setuid && !has_capabilities).then(|| {
        format!(
            "`{0}` has lost its rights: `chmod u+s {0}` as root, or install uidmap again",
            helper.display()
        )
    })
}

fn helper(name: &str) -> Result<PathBuf, Refusal> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/bin", "/bin", "/usr/local/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(usual)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|it| it.is_file())
        .ok_or_else(|| {
            Refusal::new(
                format!("`{name}` is not installed"),
                "install it (Debian, Ubuntu and Alpine: the packages `uidmap` or `shadow-uidmap`; Fedora: `shadow-utils`)",
            )
        })
}

/// The maps that the files grant a user.
fn subordinate(uid: u32, gid: u32) -> Result<IdMaps, Refusal> {
    let number = uid.to_string();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then_some(name)
    });
    let names = [number.as_str(), name.unwrap_or(&number)];
    let map = |path: &str, own| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        IdMap::subordinate(own, &text, &names).ok_or_else(|| {
            let shown = name.unwrap_or(&number);
            Refusal::new(
                format!("`{path}` has no line for user `{shown}`"),
                format!("as root: `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {shown}` (a range that no other line has), or run kiln as root"),
            )
        })
    };
    Ok(IdMaps { users: map("/etc/subuid", uid)?, groups: map("/etc/subgid", gid)? })
}

/// What the files and helpers grant this user, in words.
pub(crate) fn describe_ids() -> Result<String, Refusal> {
    let Maps { maps, writer } = Maps::find()?;
    let how = match writer {
        Writer::Helpers(..) => "newuidmap and newgidmap",
        Writer::Root | Writer::Owner => "written directly",
    };
    Ok(format!("{}, {how}", maps.users.describe()))
}

/// Settings that forbid user namespaces, the value that does, and what to do.
const SETTINGS: [(&str, &str, &str); 3] = [
    ("user/max_user_namespaces", "0", "as root: `sysctl user.max_user_namespaces=15000`"),
    (
        "kernel/unprivileged_userns_clone",
        "0",
        "as root: `sysctl kernel.unprivileged_userns_clone=1`",
    ),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "as root: give kiln an AppArmor profile with the rule `userns,`, or `sysctl kernel.apparmor_restrict_unprivileged_userns=0`",
    ),
];

fn forbidding_setting() -> Option<(&'static str, &'static str)> {
    SETTINGS.into_iter().find_map(|(name, value, remedy)| {
        let text = std::fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?;
        (text.trim() == value).then_some((name, remedy))
    })
}

/// Why a user namespace cannot be made.
pub(crate) fn why_no_namespace(errno: Errno) -> Refusal {
    let reason = format!("new user namespaces are refused: {errno}");
    match forbidding_setting() {
        Some((name, remedy)) => {
            Refusal::new(format!("{reason} (setting `{}`)", name.replace('/', ".")), remedy)
        }
        None => Refusal::new(
            reason,
            match rustix::process::geteuid().is_root() {
                true => {
                    "in a container: `--security-opt seccomp=unconfined`, or for a pod a seccomp profile that allows `unshare` and `mount`"
                }
                false => {
                    "in a container: run kiln as its root (`-u 0:0`, for a pod `runAsUser: 0`); or `--security-opt seccomp=unconfined`, for a pod a seccomp profile that allows `unshare` and `mount`"
                }
            },
        ),
    }
}

/// Why a user namespace is of no use.
fn why_no_mounts(errno: Errno) -> Refusal {
    let reason = format!("a user namespace can be made, but mounting in it is refused: {errno}");
    match forbidding_setting() {
        Some((name, remedy)) => {
            Refusal::new(format!("{reason} (setting `{}`)", name.replace('/', ".")), remedy)
        }
        None => Refusal::new(
            reason,
            "a security module or the filter of a container forbids it; `--security-opt seccomp=unconfined --security-opt apparmor=unconfined` there",
        ),
    }
}
