//! Every way a sandbox can fail to start.
//!
//! Messages follow one form: a lower-case fragment, no final full stop, user text in backticks. They
//! say what is wrong; what to do about it is a separate [`hint`](SandboxError::hint).

use std::io;
use std::path::PathBuf;

/// Why a process was not started, or could not be waited for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// The program does not exist in the root.
    #[error("exec `{command}`: no such file or directory")]
    CommandNotFound {
        /// The first argument as given.
        command: String,
    },
    /// The program exists and cannot be executed.
    #[error("exec `{command}`: not executable")]
    NotExecutable {
        /// The first argument as given.
        command: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The program is in no format that this kernel runs.
    #[error("exec `{command}`: exec format error{}", format_suffix(found, host))]
    ExecFormat {
        /// The first argument as given.
        command: String,
        /// The architecture the file was made for, if it says.
        found: Option<String>,
        /// The architecture of this machine.
        host: &'static str,
        /// What the user can do about it.
        remedy: String,
    },
    /// The user is not in the root's `/etc/passwd`.
    #[error("unable to find user `{name}`: no matching entry in the passwd file of the image")]
    UnknownUser {
        /// The name as given.
        name: String,
    },
    /// The group is not in the root's `/etc/group`.
    #[error("unable to find group `{name}`: no matching entry in the group file of the image")]
    UnknownGroup {
        /// The name as given.
        name: String,
    },
    /// A user or group id is no number the kernel accepts.
    #[error("id `{text}` is out of range, expected 0 to 4294967294")]
    IdOutOfRange {
        /// The id as given.
        text: String,
    },
    /// The root's passwd or group file cannot be trusted or read.
    #[error("cannot read `{path}` of the image: {reason}")]
    UserFile {
        /// The path inside the root.
        path: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The description of the process contradicts itself or asks for what is never granted.
    #[error("{what} `{value}` is not allowed: {reason}")]
    Invalid {
        /// Which part of the description.
        what: &'static str,
        /// Its value.
        value: String,
        /// Why it is refused.
        reason: &'static str,
    },
    /// Setting up failed at a file or directory.
    #[error("cannot {action} `{}`", path.display())]
    Path {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Setting up failed at something that has no path.
    #[error("cannot {action}")]
    Setup {
        /// What was tried.
        action: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A resource limit was refused.
    #[error("cannot set the limit `{name}` to {soft}:{hard}")]
    Limit {
        /// The limit's name.
        name: String,
        /// The soft limit asked for.
        soft: i64,
        /// The hard limit asked for.
        hard: i64,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The machine permits no sandbox that is built so far.
    #[error("commands cannot be run here: {reason}")]
    Unsupported {
        /// What is missing.
        reason: String,
        /// What to do about it.
        remedy: Option<String>,
    },
    /// There is no isolated network here.
    #[error("an isolated network cannot be had: {reason}")]
    NoNetwork {
        /// Why.
        reason: String,
    },
    /// A user or group id has no place in the user namespace that kiln is in.
    #[error("{kind} id {id} is not available here: this user has {available}")]
    IdNotMapped {
        /// `user` or `group`.
        kind: &'static str,
        /// The id.
        id: u32,
        /// The ids there are.
        available: String,
    },
    /// The set-up process ended without saying why.
    #[error("the set-up of the sandbox ended without a report")]
    SetupDied,
}

fn format_suffix(found: &Option<String>, host: &str) -> String {
    match found {
        Some(found) => format!(": the file is for {found}, this machine is {host}"),
        None => String::new(),
    }
}

impl SandboxError {
    /// A name for this kind of error that never changes, for tests, scripts, and documentation.
    pub fn code(&self) -> &'static str {
        match self {
            Self::CommandNotFound { .. } => "command-not-found",
            Self::NotExecutable { .. } => "not-executable",
            Self::ExecFormat { .. } => "exec-format",
            Self::UnknownUser { .. } => "unknown-user",
            Self::UnknownGroup { .. } => "unknown-group",
            Self::IdOutOfRange { .. } => "id-out-of-range",
            Self::UserFile { .. } => "user-file",
            Self::Invalid { .. } => "invalid-sandbox",
            Self::Path { .. } | Self::Setup { .. } | Self::SetupDied => "sandbox-setup",
            Self::Limit { .. } => "limit-refused",
            Self::Unsupported { .. } => "no-sandbox",
            Self::IdNotMapped { .. } => "id-not-mapped",
            Self::NoNetwork { .. } => "no-network",
        }
    }

    /// What the user can do about it, where something general can be said.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::ExecFormat { remedy, .. } => Some(remedy),
            Self::CommandNotFound { command } if !command.contains('/') => {
                Some("it is in none of the folders of PATH")
            }
            Self::CommandNotFound { .. } => {
                Some("if the file exists, the interpreter it names may be missing")
            }
            Self::Limit { .. } => Some("a hard limit can only be raised with CAP_SYS_RESOURCE"),
            Self::Unsupported { remedy: Some(remedy), .. } => Some(remedy),
            Self::Unsupported { .. } => Some("`kiln info` shows what each kind of sandbox needs"),
            Self::NoNetwork { reason } if reason.contains(crate::net::TUN) => Some(
                "let this user open it (on a machine without systemd or udev: `chmod 666 /dev/net/tun`), or use the network of the machine: `--network=host`",
            ),
            Self::NoNetwork { .. } => Some(
                "install `pasta` (Debian: the package `passt`) or `slirp4netns`, or use the network of the machine: `--network=host`",
            ),
            Self::IdNotMapped { .. } => Some(
                "give this user a larger range in `/etc/subuid` and `/etc/subgid`, or run kiln as root",
            ),
            _ => None,
        }
    }

    /// The exit status that a shell and `docker run` give this failure: 127 if there is no such
    /// command, 126 if it cannot be executed.
    pub fn exit_status(&self) -> Option<i32> {
        match self {
            Self::CommandNotFound { .. } => Some(127),
            Self::NotExecutable { .. } | Self::ExecFormat { .. } => Some(126),
            _ => None,
        }
    }

    pub(crate) fn path(
        action: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Path { action, path: path.into(), source: source.into() }
    }

    pub(crate) fn setup(action: &'static str, source: impl Into<io::Error>) -> Self {
        Self::Setup { action, source: source.into() }
    }
}
