//! The description of a process to run: what [`spawn`](crate::spawn) takes.
//!
//! Plain data with public fields; [`Spec::new`] fills in the defaults that Docker and BuildKit have.
//! Paths *inside* the sandbox are absolute and are resolved in the new root, never outside it.

use std::ffi::OsString;
use std::path::PathBuf;

/// One process, its root, and everything it may see and do.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Spec {
    /// The file tree it runs in.
    pub root: Root,
    /// Whether the root is mounted read-only (`--read-only`).
    pub read_only: bool,
    /// The command. A first word without a slash is looked up in the `PATH` of [`env`](Self::env).
    pub args: Vec<OsString>,
    /// The environment, exactly; only `HOME` is added, from the passwd file, if it is missing.
    pub env: Vec<(OsString, OsString)>,
    /// The working directory. It must exist, unless [`create_cwd`](Self::create_cwd) is set.
    pub cwd: PathBuf,
    /// Whether a missing working directory is created, mode 0755 and owned by root.
    pub create_cwd: bool,
    /// The user as in the `USER` instruction: `name`, `uid`, `name:group`, `uid:gid`, ….
    /// Empty means root.
    pub user: String,
    /// The host name.
    pub hostname: String,
    /// The content of `/etc/hosts`, mounted read-only. Never enters a layer.
    pub hosts: Option<Vec<u8>>,
    /// The content of `/etc/resolv.conf`, mounted read-only. Never enters a layer.
    pub resolv_conf: Option<Vec<u8>>,
    /// What network it sees.
    pub network: Network,
    /// What is mounted besides the root and the standard file systems.
    pub mounts: Vec<Mount>,
    /// Size of `/dev/shm` in bytes; 64 MiB if not given.
    pub shm_size: Option<u64>,
    /// Resource limits: name (`nofile`), soft, hard; -1 is unlimited.
    pub ulimits: Vec<(String, i64, i64)>,
    /// Limits that control groups enforce.
    pub cgroup: CgroupLimits,
    /// The capabilities it may have.
    pub capabilities: Capabilities,
    /// Which system calls it may make.
    pub seccomp: Seccomp,
    /// Whether it runs below an init that passes signals on and takes care of orphans (`--init`). Else it is process 1
    /// itself: a signal that it does not handle does nothing to it, but for SIGKILL and SIGSTOP from outside.
    pub init: bool,
    /// Whether it is kept from gaining privileges by executing a set-user-id program. Off as in
    /// Docker and BuildKit, so that `sudo` works.
    pub no_new_privs: bool,
    /// `--security=insecure`: all capabilities and devices, no filter, nothing masked.
    pub privileged: bool,
    /// Where its standard streams go.
    pub stdio: Stdio,
    /// Symbolic links and pipes of the layers below that do not belong to root: path from the root, user, group. Only looked at
    /// where [`keeps_owners`](crate::keeps_owners); files and directories have an attribute there.
    pub link_owners: Vec<(Vec<u8>, u32, u32)>,
}

impl Spec {
    /// Describes `args` as run in `root` by `RUN`: host network, root user, captured output.
    pub fn new(root: Root, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self {
            root,
            read_only: false,
            args: args.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            cwd: PathBuf::from("/"),
            create_cwd: false,
            user: String::new(),
            hostname: "buildkitsandbox".to_owned(),
            hosts: None,
            resolv_conf: None,
            network: Network::Host,
            mounts: Vec::new(),
            shm_size: None,
            ulimits: Vec::new(),
            cgroup: CgroupLimits::usual(),
            capabilities: Capabilities::Default,
            seccomp: Seccomp::Default,
            init: false,
            no_new_privs: false,
            privileged: false,
            stdio: Stdio::Capture,
            link_owners: Vec::new(),
        }
    }
}

/// The file tree a process runs in.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Root {
    /// An overlay: what the process changes lands in `upper`, and nothing else does.
    Overlay {
        /// Unpacked layers, the base first. May be empty.
        lower: Vec<PathBuf>,
        /// Where changes land, in the form overlayfs gives them (whiteouts are devices 0:0, opaque
        /// directories carry `trusted.overlay.opaque`). The mode and owner of this directory are
        /// those of `/`, so the caller sets them.
        upper: PathBuf,
        /// An empty directory for our own use, on the file system of `upper`. It is empty again
        /// when [`Child::wait`](crate::Child::wait) returns. The upper directory is not synced.
        work: PathBuf,
    },
    /// A directory that the process changes in place.
    Directory(PathBuf),
    /// A tree of the process's own, which it changes in place: what it runs in where [nothing can be
    /// mounted](crate::copies_trees).
    Copy {
        /// The tree.
        tree: PathBuf,
        /// An empty directory outside of it, on the same file system. It is empty again when
        /// [`Child::wait`](crate::Child::wait) returns.
        aside: PathBuf,
    },
    /// Layers that nothing can change.
    ReadOnly {
        /// Unpacked layers, the base first.
        lower: Vec<PathBuf>,
        /// As for [`Root::Overlay`].
        work: PathBuf,
    },
}

/// What network a process sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Network {
    /// The one kiln runs in.
    Host,
    /// One of its own with a way out: see [`isolated`](crate::isolated).
    Isolated,
    /// A loopback interface and nothing else.
    None,
}

/// Something mounted besides the root.
///
/// A target is created if it is missing and leaves no trace in the root. `/`, `/proc`, `/sys`,
/// `/dev` and what lies below `/proc` and `/sys` are refused, also where a link leads there. Links
/// are followed in the root; in another mount that the target is in, they must not lead out of it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Mount {
    /// A file, directory or socket from elsewhere.
    Bind {
        /// What to mount.
        source: Source,
        /// Where.
        target: PathBuf,
        /// What writing does.
        access: Access,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Where.
        target: PathBuf,
        /// Size limit in bytes; half of the memory if not given.
        size: Option<u64>,
        /// Mode of its root directory.
        mode: u32,
    },
    /// Something of the caller's that is moved to its place while the process runs, and may be changed: for a
    /// [`Root::Copy`] where nothing can be mounted.
    Moved {
        /// A file or directory outside of the root, on the same file system.
        source: PathBuf,
        /// Where.
        target: PathBuf,
        /// Whether it comes back; else it is removed.
        lent: bool,
    },
    /// A file with this content, kept in memory only, or where nothing can be mounted, in the root until the process has ended.
    File {
        /// Its bytes.
        content: Vec<u8>,
        /// Where.
        target: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
}

impl Mount {
    /// Where it is mounted.
    pub fn target(&self) -> &std::path::Path {
        match self {
            Self::Bind { target, .. }
            | Self::Tmpfs { target, .. }
            | Self::Moved { target, .. }
            | Self::File { target, .. } => target,
        }
    }
}

/// What a bind mount shows.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Source {
    /// A path of the machine, symbolic links followed. For paths the user gave.
    Host(PathBuf),
    /// A path inside a tree, resolved so that no link in the tree leads out of it. For paths in
    /// images, contexts and caches.
    Tree {
        /// The tree's layers, the base first; one directory is one layer.
        lower: Vec<PathBuf>,
        /// The path inside; `/` for all of it.
        path: PathBuf,
    },
}

/// What writing to a bind mount does.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Access {
    /// It fails.
    ReadOnly,
    /// It changes the source. Not possible for a tree of several layers.
    ReadWrite,
    /// It seems to work, and is forgotten (`RUN --mount=type=bind,rw`).
    Discard {
        /// An empty directory that receives what was written.
        upper: PathBuf,
        /// An empty directory on the same file system.
        work: PathBuf,
    },
}

/// The capabilities a process may have.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Capabilities {
    /// The 14 that Docker and BuildKit grant.
    Default,
    /// Every one the kernel knows.
    All,
    /// These, by name without `CAP_`, in any case. See [`Capabilities::parse`](crate::caps::parse).
    List(Vec<String>),
}

/// Which system calls a process may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Seccomp {
    /// Those of Docker's default profile.
    Default,
    /// All.
    Unconfined,
}

/// Limits that control groups enforce. The default is none; [`Spec::new`] limits the number of processes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CgroupLimits {
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Memory and swap together in bytes; [`u64::MAX`] is as much as there is. Twice the memory if not given.
    pub memory_swap: Option<u64>,
    /// Processors, as `--cpus`: 1.5 is one and a half.
    pub cpus: Option<f64>,
    /// Weight against others, as `--cpu-shares`: 2 to 262144, where 1024 is usual.
    pub cpu_shares: Option<u64>,
    /// Microseconds of processor time in each period, instead of [`cpus`](Self::cpus).
    pub cpu_quota: Option<u64>,
    /// The length of a period in microseconds; a tenth of a second if not given.
    pub cpu_period: Option<u64>,
    /// Processors it may use, as `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes it may use.
    pub cpuset_mems: Option<String>,
    /// Number of processes and threads.
    pub pids: Option<u64>,
    /// Whether that number was asked for, so that a machine which cannot enforce it is worth a note.
    pub is_pids_asked: bool,
    /// A group below which the limits are set, from the root of the hierarchy; it is made if it is missing.
    pub parent: Option<std::path::PathBuf>,
}

impl CgroupLimits {
    /// How many processes and threads a sandbox may have if nothing is said. It is Podman's number.
    pub const DEFAULT_PIDS: u64 = 2048;

    /// Those of a sandbox of which nothing is said.
    pub fn usual() -> Self {
        Self { pids: Some(Self::DEFAULT_PIDS), ..Self::default() }
    }
}

/// Where the standard streams of a process go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stdio {
    /// Input is empty; output and errors come through pipes of the [`Child`](crate::Child).
    Capture,
    /// All three go through pipes of the [`Child`](crate::Child).
    Piped,
    /// Output and errors are ours; input is ours too, or empty.
    Inherit {
        /// Whether it reads our standard input.
        stdin: bool,
    },
    /// A new terminal, whose other end the [`Child`](crate::Child) holds.
    Pty {
        /// Its height in lines.
        rows: u16,
        /// Its width in columns.
        cols: u16,
    },
}
