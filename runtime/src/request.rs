//! What is asked for: plain data, as `docker run` takes it.

use std::{collections::BTreeMap, ffi::OsString, net::IpAddr, path::PathBuf};

use sandbox::{Capabilities, CgroupLimits, Network, Seccomp};

/// A container to run. The default is what an image without any option gets.
#[derive(Debug, Clone)]
pub struct RunRequest {
    /// Its name, unique among all containers of the store.
    pub name: Option<String>,
    /// Remove it when it has ended (`--rm`).
    pub remove: bool,
    /// Write its output to the container's log instead of our own, and give it no input (`-d`).
    pub detached: bool,
    /// Give it our standard input (`-i`); without it reads nothing.
    pub interactive: bool,
    /// Give it a terminal (`-t`).
    pub tty: bool,
    /// What to run instead of the image's command; empty for that one.
    pub command: Vec<OsString>,
    /// What to run instead of the image's entry point and command; empty text for neither.
    pub entrypoint: Option<OsString>,
    /// Variables above those of the image; one without a value is taken away.
    pub env: Vec<(OsString, Option<OsString>)>,
    /// The working directory instead of the image's.
    pub workdir: Option<String>,
    /// The user instead of the image's.
    pub user: Option<String>,
    /// The host name; the first digits of the id if there is none.
    pub hostname: Option<String>,
    /// What is shown of the host.
    pub binds: Vec<Bind>,
    /// Folders besides those of the image that outlive nothing but restarts (`-v /path`).
    pub volumes: Vec<PathBuf>,
    /// File systems in memory.
    pub tmpfs: Vec<Tmpfs>,
    /// Forbid writes to the root (`--read-only`).
    pub read_only: bool,
    /// What network it sees.
    pub network: Network,
    /// What of it is reached from outside; it takes an isolated network.
    pub ports: Vec<Port>,
    /// Lines for `/etc/hosts`: name and address; the address `host-gateway` is this machine.
    pub add_hosts: Vec<(String, String)>,
    /// Size of `/dev/shm` in bytes.
    pub shm_size: Option<u64>,
    /// Resource limits: name, soft, hard; -1 is unlimited.
    pub ulimits: Vec<(String, i64, i64)>,
    /// Limits of memory, processors, and processes.
    pub limits: CgroupLimits,
    /// What it may do as root.
    pub capabilities: Capabilities,
    /// Which system calls it may make.
    pub seccomp: Seccomp,
    /// Run the command below an init (`--init`), and not as process 1.
    pub init: bool,
    /// Set-user-id programs gain nothing.
    pub no_new_privs: bool,
    /// No limits of any kind.
    pub privileged: bool,
    /// What asks the command to end, instead of the image's signal.
    pub stop_signal: Option<String>,
    /// So many seconds it has to end by itself then; -1 is for ever.
    pub stop_timeout: Option<i64>,
    /// Labels, which mean nothing to kiln.
    pub labels: BTreeMap<String, String>,
}

impl Default for RunRequest {
    fn default() -> Self {
        Self {
            name: None,
            remove: false,
            detached: false,
            interactive: false,
            tty: false,
            command: Vec::new(),
            entrypoint: None,
            env: Vec::new(),
            workdir: None,
            user: None,
            hostname: None,
            binds: Vec::new(),
            volumes: Vec::new(),
            tmpfs: Vec::new(),
            read_only: false,
            network: Network::Host,
            ports: Vec::new(),
            add_hosts: Vec::new(),
            shm_size: None,
            ulimits: Vec::new(),
            limits: CgroupLimits::default(),
            capabilities: Capabilities::Default,
            seccomp: Seccomp::Default,
            init: false,
            no_new_privs: false,
            privileged: false,
            stop_signal: None,
            stop_timeout: None,
            labels: BTreeMap::new(),
        }
    }
}

/// A TCP port of the container that is reached from outside (`-p`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// The address of the machine; all if there is none.
    pub address: Option<IpAddr>,
    /// The port of the machine; any that is free if it is 0.
    pub host: u16,
    /// The port in the container.
    pub container: u16,
}

/// A path of the host that is shown in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// The path on the host; a relative one counts from the working directory.
    pub source: PathBuf,
    /// The absolute path in the container.
    pub target: PathBuf,
    /// Writing fails.
    pub read_only: bool,
    /// A source that does not exist becomes a folder (`-v`); else it is an error (`--mount`).
    pub create: bool,
}

/// A file system in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tmpfs {
    /// The absolute path in the container.
    pub target: PathBuf,
    /// Its size in bytes; half of the memory if not given.
    pub size: Option<u64>,
    /// The mode of its root.
    pub mode: u32,
}
