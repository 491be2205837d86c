//! The sandbox of a root that may not mount: chroot, a tree of its own, and Landlock.
//!
//! That is how far one gets in a container with default capabilities and the default filter: no namespace can be made, but
//! `chroot` works, `chown` too, and mostly `mknod`. So the process gets a tree that is its alone; what other sandboxes mount is put into that
//! tree ([`place`]) and taken out again; and the rest of the machine is kept from it by Landlock ([`landlock`]), by missing
//! capabilities (no `CAP_SYS_CHROOT`, without which a chroot is not left; no `CAP_MKNOD`), and by `no_new_privs`, which Landlock
//! and the system call filter need here. A set-user-id program gains nothing for that reason.
//!
//! Read on in [`init`], the first process; [`files`], `/dev` and what of `/proc` is a copy; [`proc`], [`calls`], [`caller`] and [`listing`],
//! what of it is true; [`nodes`], devices where `mknod` is refused, too; [`orphans`], what is left if both kiln and the first process are killed.
//!
//! What it cannot give: a host name, process ids and a network of its own. Without a network, a command can make no sockets but local
//! ones; not even a loopback interface is there.

mod caller;
mod calls;
mod files;
mod init;
mod landlock;
mod listing;
mod nodes;
mod orphans;
mod place;
mod proc;

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Gid, Mode, StatVfsMountFlags, Uid};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::CapabilitySet;

pub use self::orphans::end_orphans;
use self::{init::Jail, nodes::Nodes, place::Kind};
pub(crate) use self::{place::Placed, proc::ProcServer};
use crate::caps;
use crate::cgroup::{DeviceGroup, LimitGroups};
use crate::child::{Child, CleanUp, receive};
use crate::error::SandboxError;
use crate::inside;
use crate::mounts::target;
use crate::program::{Failure, Process};
use crate::seccomp;
use crate::spawn::{
    STACK_SIZE, c_string, command_line, commands, environment, explain, invalid, invalid_nul,
    limits_of, streams,
};
use crate::spec::{Mount, Network, Root, Seccomp, Source, Spec, Stdio};
use crate::sys::{self, CStrings, Fork};
use crate::user;
use crate::userns::Refusal;

static CHOSEN: AtomicBool = AtomicBool::new(false);
static TREES: OnceLock<PathBuf> = OnceLock::new();

/// Says where copied trees will lie, so that it is tried there what they need; the folder may be made later. Without it, that is
/// tried in the folder for temporary files. To be called before [`isolate`](crate::isolate).
pub fn trees_in(folder: &Path) {
    let there = folder.ancestors().find(|it| it.is_dir());
    let _ = TREES.set(there.unwrap_or(Path::new("/")).to_owned());
}

/// Whether processes of this kiln run in a chroot and a copied tree.
pub(crate) fn is_chosen() -> bool {
    CHOSEN.load(Ordering::Relaxed)
}

/// Chooses this kind of sandbox, if the machine permits it.
pub(crate) fn choose() -> Result<(), Refusal> {
    try_out()?;
    CHOSEN.store(true, Ordering::Relaxed);
    Ok(())
}

/// What of it works here, in words.
pub(crate) fn describe() -> Result<String, Refusal> {
    let devices = match try_out()? {
        true => "devices of its own",
        false => "devices of the container",
    };
    Ok(format!("chroot and chown; {devices}; Landlock keeps apart {}", landlock::describe()))
}

/// Tries what it takes: to change the root, to give a file away, and to make a device that works or to lend one. Returns whether it
/// can be made.
fn try_out() -> Result<bool, Refusal> {
    let needs = |what: &str, errno: Errno, capability: &str| {
        Refusal::new(
            format!("without mounts, a chroot is needed, and {what} is refused: {errno}"),
            format!(
                "run kiln as root of a container that has {capability}, as Docker's default is"
            ),
        )
    };
    crate::probe::try_in(0, || rustix::process::chroot(c"/"))
        .map_err(|errno| needs("changing the root", errno, "CAP_SYS_CHROOT"))?;
    let place = TREES.get().cloned().unwrap_or_else(std::env::temp_dir);
    let flags = rustix::fs::statvfs(&place).map_or(StatVfsMountFlags::empty(), |it| it.f_flag);
    if flags.contains(StatVfsMountFlags::NOEXEC) {
        return Err(Refusal::new(
            format!(
                "trees would be copied to `{}`, which is mounted with `noexec`",
                place.display()
            ),
            "name a folder on another file system with KILN_ROOT, for example of a volume",
        ));
    }
    let folder = place.join(format!(".kiln-probe-{}", std::process::id()));
    let made = rustix::fs::mkdir(&folder, Mode::RWXU);
    made.map_err(|errno| {
        Refusal::plain(format!("cannot write to `{}`: {errno}", folder.display()))
    })?;
    let tried = || {
        let plain = |errno: Errno| Refusal::plain(format!("cannot try to make devices: {errno}"));
        let dir = inside::open_dir(&folder).map_err(plain)?;
        let has_nodes = files::takes_nodes(&dir).map_err(plain)?;
        if !has_nodes && !has_listener() {
            return Err(Refusal::new(
                "without mounts, `/dev` takes devices that can be made or lent, and both are refused",
                "run kiln as root of a container that has CAP_MKNOD, or whose filter permits the call `seccomp`",
            ));
        }
        let (uid, gid) = (Some(Uid::from_raw(1)), Some(Gid::from_raw(1)));
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(inside::HERE, &folder, uid, gid, flags)
            .map_err(|errno| needs("giving a file away", errno, "CAP_CHOWN"))?;
        Ok(has_nodes)
    };
    let tried = tried();
    let _ = inside::remove_all(&folder);
    let has_nodes = tried?;
    let own = rustix::thread::gettid().as_raw_nonzero();
    if !Path::new(&format!("/proc/self/task/{own}/children")).exists() {
        return Err(Refusal::plain(
            "the kernel does not list the children of a process (CONFIG_PROC_CHILDREN)",
        ));
    }
    Ok(has_nodes)
}

/// Starts the process that `spec` describes, in a chroot.
pub(crate) fn spawn(spec: &Spec) -> Result<Child, SandboxError> {
    refuse_what_needs_mounts(spec)?;
    let Root::Copy { tree, aside } = &spec.root else {
        return Err(invalid("root", spec.hostname.as_ref(), "nothing can be mounted here"));
    };
    if spec.args.is_empty() {
        return Err(invalid("command", "".as_ref(), "it is empty"));
    }
    if !spec.cwd.is_absolute() {
        return Err(invalid("working directory", spec.cwd.as_os_str(), "it is not absolute"));
    }
    let mut clean_up = CleanUp::default();
    let failed = |errno| SandboxError::path("open", aside, errno);
    if files::any_node_works(&inside::open_dir(aside).map_err(failed)?) {
        clean_up.device_group = Some(device_group()?);
    }
    let root = inside::open_dir(tree).map_err(|errno| SandboxError::path("open", tree, errno))?;
    let identity = user::identify(root.as_fd(), &spec.user)?;
    let cwd = inside::components(&spec.cwd);
    let placed = clean_up.placed.insert(
        Placed::new(&root, aside).map_err(|errno| SandboxError::path("open", aside, errno))?,
    );
    let (listings, nodes) = fill(placed, spec)?;
    if spec.create_cwd {
        inside::create_dirs(root.as_fd(), &cwd)
            .map_err(|errno| SandboxError::path("create working directory", &spec.cwd, errno))?;
    }
    clean_up.notes = LimitGroups::none(&spec.cgroup);
    let (streams, ours) = streams(spec.stdio, &identity)?;
    let granted = granted(spec)?;
    let asks = has_listener();
    let process = Process {
        asks,
        is_supervised: false,
        stdio: spec.stdio,
        streams,
        limits: limits_of(spec, &clean_up)?,
        cwd: inside::join(&cwd)
            .map_err(|_| invalid_nul("working directory", spec.cwd.as_os_str()))?,
        uid: Uid::from_raw(identity.uid),
        gid: Gid::from_raw(identity.gid),
        groups: identity.groups.iter().map(|gid| Gid::from_raw(*gid)).collect(),
        capabilities: granted,
        no_new_privs: true,
        dies_with_parent: true,
        filter: Some(
            seccomp::without_namespaces(granted, spec.network != Network::None, |name| {
                if asks { calls::ask(name) } else { None }
            })
            .into(),
        ),
        commands: commands(spec)?,
        argv: CStrings::new(
            spec.args.iter().map(|arg| c_string("argument", arg)).collect::<Result<_, _>>()?,
        ),
        envp: environment(spec, &identity)?,
        stack: vec![0; STACK_SIZE],
    };
    let ruleset = landlock::ruleset(root.as_fd())
        .map_err(|errno| SandboxError::setup("make the rules of Landlock", errno))?;
    let group = clean_up.device_group.as_mut();
    let (start_in, join) = group.map_or((None, None), |it| (it.start_in.take(), it.join.take()));
    let jail = Jail { root, ruleset, join, command_line: command_line(), process };
    start(spec, jail, start_in, ours, (listings, nodes), clean_up)
}

/// What decides about device nodes where nobody else does.
fn device_group() -> Result<DeviceGroup, SandboxError> {
    DeviceGroup::enter().ok_or_else(|| SandboxError::Unsupported {
        reason: "the device nodes of an image would work in a chroot here, and no control group can forbid it".to_owned(),
        remedy: Some(
            "run kiln in a container, which forbids them, or with the right to make control groups"
                .to_owned(),
        ),
    })
}

/// What it may do: what Docker grants and this process has, but for what would lead out of the root.
fn granted(spec: &Spec) -> Result<u64, SandboxError> {
    let own = rustix::thread::capabilities(None)
        .map_err(|errno| SandboxError::setup("read the own capabilities", errno))?;
    let out = CapabilitySet::SYS_CHROOT | CapabilitySet::MKNOD;
    Ok(spec.capabilities.bits()? & caps::DEFAULT & own.permitted.bits() & !out.bits())
}

fn refuse_what_needs_mounts(spec: &Spec) -> Result<(), SandboxError> {
    let what = match spec {
        Spec { privileged: true, .. } => "a command with all rights",
        Spec { seccomp: Seccomp::Unconfined, .. } => "a command without a system call filter",
        Spec { read_only: true, .. } => "a root that is read-only",
        Spec { stdio: Stdio::Pty { .. }, .. } => "a terminal",
        Spec { network: Network::Host | Network::None, .. } => return Ok(()),
        _ => "a network of its own",
    };
    Err(SandboxError::Unsupported {
        reason: format!("{what} needs namespaces or mounts, and neither can be made"),
        remedy: Some("`kiln info` shows what a stronger kind of sandbox needs".to_owned()),
    })
}

/// Whether the kernel, and a container's own filter, let a filter ask somebody. Found out once.
fn has_listener() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let tried = || {
            rustix::thread::set_no_new_privs(true)?;
            sys::notify::try_listener()
        };
        crate::probe::try_in(0, tried).is_ok()
    })
}

/// Puts into the tree what is mounted elsewhere. Returns the folder for what [`listing`] makes, and the devices that are to be lent.
fn fill(placed: &mut Placed, spec: &Spec) -> Result<(OwnedFd, &'static Nodes), SandboxError> {
    let at = |path: &str| inside::components(Path::new(path));
    let failed =
        |path: &'static str| move |error: std::io::Error| SandboxError::path("fill", path, error);
    let dev = placed.directory(&at("/dev"), Kind::Top, 0o755);
    let has_nodes = dev.and_then(|it| files::fill_dev(&it));
    let nodes = match has_nodes.map_err(|errno| failed("/dev")(errno.into()))? {
        true => Nodes::none(),
        false => Nodes::of_container(),
    };
    let proc = placed.directory(&at("/proc"), Kind::Top, 0o555);
    let listings = proc
        .map_err(std::io::Error::from)
        .and_then(|it| files::fill_proc(&it))
        .map_err(failed("/proc"))?;
    placed
        .directory(&at("/sys"), Kind::Top, 0o555)
        .map_err(|errno| failed("/sys")(errno.into()))?;
    for (path, content) in [("/etc/hosts", &spec.hosts), ("/etc/resolv.conf", &spec.resolv_conf)] {
        let Some(content) = content else { continue };
        match placed.file(&at(path), Kind::Any, content, (0o644, 0, 0)) {
            Ok(()) => {}
            // An image in which `/etc` is no directory has no use for it.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTDIR | libc::ELOOP)) => {}
            Err(error) => return Err(failed(path)(error)),
        }
    }
    let mut mounts: Vec<_> = spec
        .mounts
        .iter()
        .map(|mount| Ok((target(mount.target())?, mount)))
        .collect::<Result<_, SandboxError>>()?;
    // Outer ones first; in the given order where that is not the question.
    mounts.sort_by_key(|(path, _)| path.len());
    for (path, mount) in mounts {
        let shown = inside::display(&path);
        let failed =
            |error: std::io::Error| SandboxError::path("put something in place at", &shown, error);
        match mount {
            Mount::Tmpfs { mode, .. } => {
                placed.directory(&path, Kind::Exact, *mode).map(drop).map_err(Into::into)
            }
            Mount::File { content, mode, uid, gid, .. } => {
                placed.file(&path, Kind::Exact, content, (*mode, *uid, *gid))
            }
            Mount::Moved { source, lent, .. } => {
                placed.moved(&path, source, *lent).map_err(Into::into)
            }
            Mount::Bind { source: Source::Host(source), .. } if is_socket(source) => {
                placed.socket(&path, source).map_err(Into::into)
            }
            Mount::Bind { .. } => {
                return Err(SandboxError::Unsupported {
                    reason: format!(
                        "`{}` is a mount of something else, and nothing can be mounted",
                        shown.display()
                    ),
                    remedy: None,
                });
            }
        }
        .map_err(failed)?;
    }
    Ok((listings, nodes))
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_socket())
}

fn start(
    spec: &Spec,
    mut jail: Jail,
    start_in: Option<OwnedFd>,
    ours: [Option<OwnedFd>; 3],
    (listings, nodes): (OwnedFd, &'static Nodes),
    mut clean_up: CleanUp,
) -> Result<Child, SandboxError> {
    let failed = |errno: Errno| SandboxError::setup("start the set-up process", errno);
    let sockets = || {
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        rustix::net::socketpair(family, kind, SocketFlags::CLOEXEC, None).map_err(failed)
    };
    let (reports, report) = sockets()?;
    let (control, control_of_init) = sockets()?;
    // No handler of ours may run in the copy.
    let mask = sys::block_signals();
    let mut forked = sys::fork_into(0, start_in.as_ref().map(|it| it.as_fd()));
    match &forked {
        // Started in its group already.
        Ok(Fork::Child) if start_in.is_some() => jail.join = None,
        Err(_) if start_in.is_some() => forked = sys::fork_into(0, None),
        _ => {}
    }
    if let Ok(Fork::Child) = forked {
        init::run(&mut jail, &report, &control_of_init);
    }
    sys::restore_signals(mask);
    let Fork::Parent { pid, pidfd } = forked.map_err(failed)? else {
        return Err(SandboxError::SetupDied);
    };
    drop((report, control_of_init));
    let mut record = [0_u8; 16];
    let mut received = receive(reports.as_fd(), &mut record);
    let mut refused = None;
    if let Ok((1, handle)) = &mut received
        && record[0] == crate::init::LISTENER
        && let Some(listener) = handle.take()
    {
        match ProcServer::start(listener, pid, jail.process.capabilities, listings, nodes) {
            Ok(server) => clean_up.proc_server = Some(server),
            Err(errno) => refused = Some(errno),
        }
        received = receive(reports.as_fd(), &mut record);
    }
    let n_read = received.map(|(n_bytes, _)| n_bytes);
    let child = Child::new(pid, pidfd, control, ours, clean_up).without_namespace();
    if let Some(errno) = refused {
        return Err(SandboxError::setup("start to answer for `/proc`", errno));
    }
    if n_read != Ok(0) {
        let failure = Failure::decode(&record[..n_read.unwrap_or(0)]);
        let error = failure.map_or(SandboxError::SetupDied, |it| {
            explain(it, spec, None, &jail.process, &jail.root)
        });
        drop((jail, child));
        return Err(error);
    }
    Ok(child)
}
