//! From a description to a running process.
//!
//! Everything that can be done outside of the sandbox is done here, in an ordinary process: mounts
//! are made without a place, users looked up, places to mount on prepared. The set-up process that
//! is started then only puts the pieces together.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::cgroup::{DeviceGroup, Hierarchies, LimitGroups};
use crate::child::{Child, CleanUp, receive};
use crate::error::SandboxError;
use crate::ids::IdMaps;
use crate::inside;
use crate::mounts;
use crate::net::Lease;
use crate::notify::{self, Setup, Supervisor};
use crate::overlay;
use crate::program::{Failure, Process, Program, Step};
use crate::spec::{Mount, Network, Root, Seccomp, Spec, Stdio};
use crate::sys::{self, CStrings, Fork, mount_attr, namespace};
use crate::user::{self, Identity};
use crate::userns;
use crate::{caps, devices, init, root, seccomp};

/// Where the kernel has the arguments and the environment of this process; empty if it does not say. A secret may be among
/// the variables that kiln was given.
pub(crate) fn command_line() -> std::ops::Range<usize> {
    let find = || {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The name of the program may hold anything, but it ends at the last bracket; the state after it is field 3.
        let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().skip(48 - 3);
        let mut next = || fields.next()?.parse::<usize>().ok();
        let (arg_start, arg_end, env_start, env_end) = (next()?, next()?, next()?, next()?);
        Some(arg_start..if env_start == arg_end { env_end } else { arg_end })
    };
    find().unwrap_or(0..0)
}

/// Where programs are looked for if the environment has no `PATH`.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Stack of the process that becomes the command, in bytes. It makes system calls only; what it does not use is never touched.
pub(crate) const STACK_SIZE: usize = 256 << 10;

/// Starts the process that `spec` describes.
///
/// Returns when the command has been executed, so a command that does not exist is an error here
/// and not an exit status.
///
/// # Errors
///
/// - [`SandboxError::CommandNotFound`], [`NotExecutable`](SandboxError::NotExecutable) and
///   [`ExecFormat`](SandboxError::ExecFormat) for the command,
/// - [`UnknownUser`](SandboxError::UnknownUser) and its neighbours for the user,
/// - [`Invalid`](SandboxError::Invalid) for a description that is refused as it stands,
/// - [`Path`](SandboxError::Path) and [`Setup`](SandboxError::Setup) for what the machine refuses,
/// - [`Unsupported`](SandboxError::Unsupported) where no rung of the ladder that is built so far can
///   be used.
///
/// Nothing is left behind in any of these cases.
pub fn spawn(spec: &Spec) -> Result<Child, SandboxError> {
    crate::probe::require()?;
    if crate::chroot::is_chosen() {
        return crate::chroot::spawn(spec);
    }
    let prepared = prepare(spec)?;
    start(spec, prepared)
}

struct Prepared {
    program: Program,
    /// Our ends of the command's streams.
    ours: [Option<OwnedFd>; 3],
    /// The root, to look at a command that did not start.
    root: OwnedFd,
    clean_up: CleanUp,
    supervision: Option<Setup>,
}

fn prepare(spec: &Spec) -> Result<Prepared, SandboxError> {
    if spec.args.is_empty() {
        return Err(invalid("command", OsStr::new(""), "it is empty"));
    }
    if !spec.cwd.is_absolute() {
        return Err(invalid("working directory", spec.cwd.as_os_str(), "it is not absolute"));
    }
    let mut clean_up = CleanUp::default();
    let granted = if spec.privileged { caps::ALL } else { spec.capabilities.bits()? };

    // Which device nodes work is decided by a control group where there is one, and else by
    // mounting everything but the standard nodes so that none does.
    let mut groups_to_join = Vec::new();
    let in_userns = userns::is_inside();
    let has_device_rules = !spec.privileged && !in_userns;
    let made = LimitGroups::make(&spec.cgroup, has_device_rules)?;
    clean_up.limit_groups = made.groups;
    clean_up.notes = made.notes;
    groups_to_join.extend(made.join);
    if has_device_rules && !clean_up.limit_groups.has_device_rules {
        clean_up.device_group = DeviceGroup::enter();
    }
    let has_device_group =
        clean_up.device_group.is_some() || clean_up.limit_groups.has_device_rules;
    // In a user namespace no node can be made, and none works but those of the machine.
    let is_device_group = !in_userns && (spec.privileged || has_device_group);
    let attrs =
        if is_device_group { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_NODEV };

    let mut plan = mounts::plan(spec, !is_device_group)?;
    let root = root::make(&spec.root, attrs, &plan.places, &mut clean_up)?;
    let identity = user::identify(root.as_fd(), &spec.user)?;
    let is_supervised = userns::has_one_id();
    if in_userns && !is_supervised {
        check_ids(spec, &identity)?;
    }
    let cwd = inside::components(&spec.cwd);
    if spec.create_cwd {
        inside::create_dirs(root.as_fd(), &cwd)
            .map_err(|errno| SandboxError::path("create working directory", &spec.cwd, errno))?;
    }

    let made = |errno: Errno| SandboxError::setup("make the file systems of the sandbox", errno);
    let dev =
        devices::dev(is_device_group, spec.privileged, matches!(spec.stdio, Stdio::Pty { .. }))
            .map_err(made)?;
    let no_code = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let shm = overlay::tmpfs(mounts::shm_size(spec), 0o1777, no_code).map_err(made)?;
    let read_only = no_code | MountAttrFlags::MOUNT_ATTR_RDONLY;
    let empty = overlay::tmpfs(Some(0), 0o755, read_only).map_err(made)?;

    if spec.network == Network::Isolated {
        let lease = Lease::take(spec.privileged);
        clean_up.network = Some(lease.map_err(|reason| SandboxError::NoNetwork { reason })?);
    }
    let network = clean_up.network.as_ref().map_or(Ok(None), Lease::handle);
    let network = network.map_err(|error| SandboxError::setup("copy a handle", error))?;

    let supervision = match is_supervised {
        true => Some(supervision(spec, &root, &identity, granted)?),
        false => None,
    };
    // For the kernel, whoever has a supervisor is root.
    let kernels = if is_supervised {
        Identity { uid: 0, gid: 0, groups: vec![], ..identity.clone() }
    } else {
        identity.clone()
    };
    let (streams, ours) = streams(spec.stdio, &kernels)?;
    let is_confined = spec.seccomp == Seccomp::Default && !spec.privileged;
    let process = Process {
        stdio: spec.stdio,
        streams,
        limits: limits_of(spec, &clean_up)?,
        cwd: inside::join(&cwd)
            .map_err(|_| invalid_nul("working directory", spec.cwd.as_os_str()))?,
        uid: Uid::from_raw(kernels.uid),
        gid: Gid::from_raw(kernels.gid),
        groups: kernels.groups.iter().map(|gid| Gid::from_raw(*gid)).collect(),
        capabilities: granted,
        no_new_privs: spec.no_new_privs,
        dies_with_parent: false,
        filter: if is_supervised {
            Some(notify::filter(granted, is_confined, identity.uid == 0).into())
        } else {
            is_confined.then(|| seccomp::filter(granted))
        },
        asks: is_supervised,
        is_supervised,
        commands: commands(spec)?,
        argv: CStrings::new(
            spec.args.iter().map(|arg| c_string("argument", arg)).collect::<Result<_, _>>()?,
        ),
        envp: environment(spec, &identity)?,
        stack: vec![0; STACK_SIZE],
    };
    let root_again =
        root.try_clone().map_err(|error| SandboxError::setup("copy a handle", error))?;
    let program = Program {
        namespaces: namespaces(spec),
        is_init: spec.init,
        groups_to_join,
        own_cgroup_view: true,
        hostname: spec.hostname.clone().into_bytes(),
        network,
        has_own_network: spec.network == Network::None,
        root: root_again,
        staging: plan.staging.take(),
        mounts: plan.mounts,
        dev,
        shm,
        command_line: command_line(),
        empty,
        sys: if in_userns { Some(machine_sys(spec.privileged)?) } else { None },
        mounts_in_dev: plan.mounts_in_dev,
        has_cgroup2: Hierarchies::get().is_unified(),
        masked: devices::masked().to_vec(),
        is_read_only: spec.read_only,
        privileged: spec.privileged,
        process,
    };
    Ok(Prepared { program, ours, root, clean_up, supervision })
}

/// What the supervisor of the sandbox has to know.
fn supervision(
    spec: &Spec,
    root: &OwnedFd,
    identity: &Identity,
    granted: u64,
) -> Result<Setup, SandboxError> {
    let upper = match &spec.root {
        Root::Overlay { upper, .. } => Some(
            inside::open_dir(upper).map_err(|errno| SandboxError::path("open", upper, errno))?,
        ),
        _ => None,
    };
    let root = root.try_clone().map_err(|error| SandboxError::setup("copy a handle", error))?;
    let links = spec.link_owners.iter();
    Ok(Setup {
        root,
        upper,
        links: links.map(|(path, uid, gid)| (path.clone(), (*uid, *gid))).collect(),
        uid: identity.uid,
        gid: identity.gid,
        groups: identity.groups.clone(),
        commands: commands(spec)?,
        granted,
        no_new_privs: spec.no_new_privs,
    })
}

/// Refuses ids that this user does not have; the kernel would do so without naming them.
fn check_ids(spec: &Spec, identity: &Identity) -> Result<(), SandboxError> {
    let maps = IdMaps::of_process();
    let mut missing = maps.missing(identity.uid, &identity.groups);
    for mount in &spec.mounts {
        if let Mount::File { uid, gid, .. } = mount {
            missing = missing.or_else(|| maps.missing(*uid, &[*gid]));
        }
    }
    match missing {
        None => Ok(()),
        Some((kind, id, available)) => Err(SandboxError::IdNotMapped { kind, id, available }),
    }
}

/// The `/sys` of the machine, for a user namespace with the machine's network: there no new one can be mounted.
fn machine_sys(is_privileged: bool) -> Result<OwnedFd, SandboxError> {
    let failed = |errno: Errno| SandboxError::path("mount", "/sys", errno);
    let sys = overlay::clone_tree(inside::HERE, c"/sys", true).map_err(failed)?;
    let attrs = mount_attr::NOSUID | mount_attr::NODEV | mount_attr::NOEXEC;
    let attrs = if is_privileged { attrs } else { attrs | mount_attr::RDONLY };
    sys::mount_setattr(sys.as_fd(), true, attrs, 0).map_err(failed)?;
    Ok(sys)
}

/// The command's ends and ours.
pub(crate) type Streams = ([Option<OwnedFd>; 3], [Option<OwnedFd>; 3]);

pub(crate) fn streams(stdio: Stdio, identity: &Identity) -> Result<Streams, SandboxError> {
    let failed = |errno: Errno| SandboxError::setup("make pipes", errno);
    let null = || {
        rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| SandboxError::path("open", "/dev/null", errno))
    };
    let pipe = || {
        let (read, write) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(failed)?;
        // So that the command may open `/dev/stdout`, whoever it is.
        rustix::fs::fchown(&write, Some(Uid::from_raw(identity.uid)), None).map_err(failed)?;
        Ok((read, write))
    };
    Ok(match stdio {
        Stdio::Capture | Stdio::Piped => {
            let (stdin, stdin_in) = match stdio {
                Stdio::Piped => pipe().map(|(read, write)| (read, Some(write)))?,
                _ => (null()?, None),
            };
            let (stdout, stdout_in) = pipe()?;
            let (stderr, stderr_in) = pipe()?;
            let ours = [stdin_in, Some(stdout), Some(stderr)];
            ([Some(stdin), Some(stdout_in), Some(stderr_in)], ours)
        }
        Stdio::Inherit { stdin: true } | Stdio::Pty { .. } => Default::default(),
        Stdio::Inherit { stdin: false } => ([Some(null()?), None, None], Default::default()),
    })
}

/// Those that were asked for; and where no control group limits the number of processes, what limits those of a user. That
/// does not hold for the machine's root.
pub(crate) fn limits_of(
    spec: &Spec,
    clean_up: &CleanUp,
) -> Result<Vec<(u32, u64, u64)>, SandboxError> {
    let mut all = limits(&spec.ulimits)?;
    let is_set = spec.ulimits.iter().any(|(name, ..)| name == "nproc");
    if let Some(pids) = spec.cgroup.pids
        && !is_set
        && !clean_up.limit_groups.has_pids
    {
        let number = LIMITS.iter().position(|it| *it == "nproc").unwrap_or_default();
        let most = rustix::process::getrlimit(rustix::process::Resource::Nproc).maximum;
        let pids = most.map_or(pids, |it| it.min(pids));
        all.push((number as u32, pids, pids));
    }
    Ok(all)
}

fn limits(ulimits: &[(String, i64, i64)]) -> Result<Vec<(u32, u64, u64)>, SandboxError> {
    let value = |it: i64| if it < 0 { u64::MAX } else { it as u64 };
    ulimits
        .iter()
        .map(|(name, soft, hard)| {
            let number = (0..).zip(LIMITS).find(|(_, known)| known == name);
            let (number, _) = number
                .ok_or_else(|| invalid("limit", OsStr::new(name), "there is no such limit"))?;
            Ok((number, value(*soft), value(*hard)))
        })
        .collect()
}

/// Names of resource limits, as `--ulimit` takes them; the position is the number.
const LIMITS: [&str; 16] = [
    "cpu",
    "fsize",
    "data",
    "stack",
    "core",
    "rss",
    "nproc",
    "nofile",
    "memlock",
    "as",
    "locks",
    "sigpending",
    "msgqueue",
    "nice",
    "rtprio",
    "rttime",
];

/// The paths at which the command may be, in the order of `PATH`.
pub(crate) fn commands(spec: &Spec) -> Result<Vec<CString>, SandboxError> {
    let command = &spec.args[0];
    let name = command.as_bytes();
    if name.is_empty() || name.contains(&b'/') {
        return Ok(vec![c_string("command", command)?]);
    }
    let path = spec.env.iter().rfind(|(key, _)| key == "PATH").map(|(_, value)| value.as_bytes());
    path.unwrap_or(DEFAULT_PATH)
        .split(|byte| *byte == b':')
        .map(|dir| {
            let dir = if dir.is_empty() { &b"."[..] } else { dir };
            c_string("command", OsStr::from_bytes(&[dir, b"/", name].concat()))
        })
        .collect()
}

pub(crate) fn environment(spec: &Spec, identity: &Identity) -> Result<CStrings, SandboxError> {
    let mut out = Vec::with_capacity(spec.env.len() + 1);
    let mut has_home = false;
    for (key, value) in &spec.env {
        // As with runc, an empty HOME is none.
        if key == "HOME" && value.is_empty() {
            continue;
        }
        has_home |= key == "HOME";
        let pair = [key.as_bytes(), b"=", value.as_bytes()].concat();
        out.push(c_string("environment variable", OsStr::from_bytes(&pair))?);
    }
    if !has_home {
        let home = [b"HOME=", identity.home.as_slice()].concat();
        out.push(c_string("environment variable", OsStr::from_bytes(&home))?);
    }
    Ok(CStrings::new(out))
}

pub(crate) fn c_string(what: &'static str, text: &OsStr) -> Result<CString, SandboxError> {
    CString::new(text.to_owned().into_vec()).map_err(|_| invalid_nul(what, text))
}

pub(crate) fn invalid_nul(what: &'static str, text: &OsStr) -> SandboxError {
    invalid(what, text, "it contains a zero byte")
}

pub(crate) fn invalid(what: &'static str, value: &OsStr, reason: &'static str) -> SandboxError {
    SandboxError::Invalid { what, value: value.to_string_lossy().into_owned(), reason }
}

fn start(spec: &Spec, prepared: Prepared) -> Result<Child, SandboxError> {
    let Prepared { mut program, ours, root, mut clean_up, supervision } = prepared;
    let limits = &mut clean_up.limit_groups;
    let (group, mut join) = match (limits.start_in.take(), &mut clean_up.device_group) {
        (Some(group), _) => {
            limits.start_in = group.try_clone().ok();
            (Some(group), limits.join_file())
        }
        (None, Some(group)) => (group.start_in.take(), group.join.take()),
        (None, None) => (None, None),
    };
    if group.is_none() {
        program.groups_to_join.extend(join.take());
    }
    let failed = |errno: Errno| SandboxError::setup("start the set-up process", errno);
    let sockets = || {
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        rustix::net::socketpair(family, kind, SocketFlags::CLOEXEC, None).map_err(failed)
    };
    let (reports, report) = sockets()?;
    let (control, control_of_init) = sockets()?;
    let namespaces = if spec.init { program.namespaces } else { namespace::PID };

    let fork = move || {
        // No handler of ours may run in the copy.
        let mask = sys::block_signals();
        let mut forked = sys::fork_into(namespaces, group.as_ref().map(|it| it.as_fd()));
        if group.is_some() && forked.is_err() {
            // Starting in a group needs Linux 5.7 and a call that filters of containers refuse.
            program.groups_to_join.extend(join);
            forked = sys::fork_into(namespaces, None);
        }
        if let Ok(Fork::Child) = forked {
            init::run(&mut program, &report, &control_of_init);
        }
        sys::restore_signals(mask);
        (forked, program)
    };
    let (forked, program) = match &clean_up.limit_groups.launcher {
        Some(launcher) => launcher.run(fork).ok_or(SandboxError::SetupDied)?,
        None => fork(),
    };
    let Fork::Parent { pid, pidfd } = forked.map_err(failed)? else {
        return Err(SandboxError::SetupDied);
    };

    let mut record = [0_u8; 16];
    let mut received = receive(reports.as_fd(), &mut record);
    if let Ok((1, handle)) = &mut received
        && record[0] == init::LISTENER
        && let (Some(listener), Some(setup)) = (handle.take(), supervision)
    {
        match Supervisor::start(listener, setup, pid) {
            Ok(supervisor) => clean_up.supervisor = Some(supervisor),
            Err(errno) => {
                drop(Child::new(pid, pidfd, control, ours, clean_up));
                return Err(SandboxError::setup("start to answer system calls", errno));
            }
        }
        received = receive(reports.as_fd(), &mut record);
    }
    let n_read = received.map(|(n_bytes, _)| n_bytes);
    let child = Child::new(pid, pidfd, control, ours, clean_up);
    if n_read != Ok(0) {
        let failure = Failure::decode(&record[..n_read.unwrap_or(0)]);
        let error = failure.map_or(SandboxError::SetupDied, |it| {
            explain(it, spec, Some(&program), &program.process, &root)
        });
        drop(program);
        drop(child);
        return Err(error);
    }
    drop(program);
    let mut child = child.with_root(root);
    if matches!(spec.stdio, Stdio::Pty { .. }) {
        child.receive_terminal()?;
    }
    Ok(child)
}

/// The namespaces of the command.
fn namespaces(spec: &Spec) -> i32 {
    let always = namespace::MOUNT | namespace::PID | namespace::IPC | namespace::UTS;
    match spec.network {
        Network::None => always | namespace::NET,
        Network::Host | Network::Isolated => always,
    }
}

/// Turns a failed step into an error that names what it was about.
pub(crate) fn explain(
    failure: Failure,
    spec: &Spec,
    program: Option<&Program>,
    process: &Process,
    root: &OwnedFd,
) -> SandboxError {
    let source = std::io::Error::from_raw_os_error(failure.errno);
    let index = usize::from(failure.index);
    let setup = |action| SandboxError::Setup { action, source: copy(&source) };
    let path = |action, path: &str| SandboxError::path(action, path, copy(&source));
    let target = |mounts: Option<&[crate::program::Attach]>| {
        let mount = mounts.unwrap_or_default().get(index);
        let target = mount.map(|it| it.target.to_string_lossy().into_owned());
        path("mount", &format!("/{}", target.unwrap_or_default()))
    };
    match failure.step {
        Step::JoinCgroup => setup("join a control group"),
        Step::CgroupView => setup("make a cgroup namespace"),
        Step::Hostname => setup("set the host name"),
        Step::Network => setup("enter the network"),
        Step::Loopback => setup("bring up the loopback interface"),
        Step::PrivateMounts => setup("make the mounts private"),
        Step::AttachRoot => setup("attach the root"),
        Step::PivotRoot => setup("change the root"),
        Step::DetachOldRoot => setup("detach the old root"),
        Step::Stage => setup("prepare files in memory"),
        Step::Mount => match program.and_then(|it| it.mounts.get(index)) {
            Some(it) if it.inside.is_some() && failure.errno == Errno::XDEV.raw_os_error() => {
                let target = [b"/", it.target.as_bytes()].concat();
                let reason = "a link leads it out of the mount that it is in";
                invalid("mount target", OsStr::from_bytes(&target), reason)
            }
            _ => target(program.map(|it| &*it.mounts)),
        },
        Step::Dev => path("mount", "/dev"),
        Step::Pts => path("mount", "/dev/pts"),
        Step::Shm => path("mount", "/dev/shm"),
        Step::Mqueue => path("mount", "/dev/mqueue"),
        Step::Proc => path("mount", "/proc"),
        Step::Sys => path("mount", "/sys"),
        Step::Mask => setup("mask paths of /proc and /sys"),
        Step::MountInDev => target(program.map(|it| &*it.mounts_in_dev)),
        Step::ReadOnlyRoot => setup("make the root read-only"),
        Step::Terminal => setup("open a terminal"),
        Step::Events | Step::Start => setup("start the command's process"),
        Step::Streams => setup("set up the standard streams"),
        Step::Limit => match spec.ulimits.get(index) {
            Some((name, soft, hard)) => {
                SandboxError::Limit { name: name.clone(), soft: *soft, hard: *hard, source }
            }
            None => setup("set a limit"),
        },
        Step::Cwd => SandboxError::path("change to the working directory", &spec.cwd, source),
        Step::CwdOutside => {
            invalid("working directory", spec.cwd.as_os_str(), "it leads out of the sandbox")
        }
        Step::Seccomp => setup("install the system call filter"),
        Step::Capabilities => setup("drop capabilities"),
        Step::User => setup("change the user"),
        Step::Chroot => setup("enter the root"),
        Step::Landlock => setup("restrict the command to its root"),
        Step::Exec => exec_error(source, spec, process, root),
    }
}

fn copy(error: &std::io::Error) -> std::io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), std::io::Error::from_raw_os_error)
}

fn exec_error(
    source: std::io::Error,
    spec: &Spec,
    process: &Process,
    root: &OwnedFd,
) -> SandboxError {
    let command = spec.args[0].to_string_lossy().into_owned();
    match source.raw_os_error() {
        Some(error @ (libc::ENOENT | libc::ENOTDIR | libc::ENOEXEC)) => {
            let find = |path: &CString| crate::elf::foreign(root.as_fd(), &spec.cwd, path);
            let host = crate::elf::host();
            match process.commands.iter().find_map(find) {
                // Also where the kernel looked for an emulator that is not in the root.
                Some((found, header)) => {
                    let remedy = crate::binfmt::remedy(&found, &header);
                    SandboxError::ExecFormat { command, found: Some(found), host, remedy }
                }
                None if error == libc::ENOEXEC => {
                    let remedy = "a script needs a first line such as `#!/bin/sh`".to_owned();
                    SandboxError::ExecFormat { command, found: None, host, remedy }
                }
                None => SandboxError::CommandNotFound { command },
            }
        }
        _ => SandboxError::NotExecutable { command, source },
    }
}
