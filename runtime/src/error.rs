//! Every way a container can fail to run.
//!
//! Messages follow the house form; what to do about it is in [`RuntimeError::hint`].

use std::{io, net::SocketAddr, path::PathBuf};

use cache::StoreError;
use sandbox::SandboxError;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// Neither the image nor the user says what to run.
    #[error("there is no command to run")]
    NoCommand,
    /// The working directory is not absolute.
    #[error("the working directory `{path}` is not an absolute path")]
    RelativeWorkdir {
        /// The path as given.
        path: String,
    },
    /// A name has characters that names do not have.
    #[error("`{name}` is no name for a container, expected `[a-zA-Z0-9][a-zA-Z0-9_.-]+`")]
    BadName {
        /// The name as given.
        name: String,
    },
    /// Another container has the name.
    #[error("the name `{name}` is in use by container `{id}`")]
    NameInUse {
        /// The name.
        name: String,
        /// Who has it.
        id: String,
        /// Whether that one still runs.
        is_running: bool,
    },
    /// The process that runs a container cannot be seen from here.
    #[error("who runs it is not known here")]
    OutOfReach,
    /// Standard input should become the input of a terminal and is none.
    #[error("a terminal was asked for, but standard input is none")]
    NotATerminal,
    /// The terminal of this process cannot be set up.
    #[error("cannot {action} the terminal")]
    Terminal {
        /// What was tried.
        action: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Signals cannot be received.
    #[error("cannot listen for signals")]
    Signals {
        /// The kernel's reason.
        source: io::Error,
    },
    /// A port of the machine cannot be taken for the container.
    #[error("cannot publish at `{address}`")]
    Port {
        /// The address and the port.
        address: SocketAddr,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A file or folder of the container, or one that is mounted, cannot be used.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The image's layers cannot be had.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The process cannot be started.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}

impl RuntimeError {
    /// A name for this kind of error that never changes, for tests, scripts, and documentation.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoCommand => "no-command",
            Self::RelativeWorkdir { .. } => "relative-workdir",
            Self::BadName { .. } => "bad-container-name",
            Self::NameInUse { .. } => "container-name-in-use",
            Self::OutOfReach => "out-of-reach",
            Self::NotATerminal => "not-a-terminal",
            Self::Terminal { .. } => "terminal",
            Self::Signals { .. } => "signals",
            Self::Port { .. } => "port",
            Self::Io { .. } => "container-io",
            Self::Store(_) => "store",
            Self::Sandbox(error) => error.code(),
        }
    }

    /// What to do about it, where there is something to say.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::NoCommand => Some("write the command behind the image, or give the image a CMD"),
            Self::NameInUse { is_running: true, .. } => {
                Some("choose another name, or end that container with `kiln stop`")
            }
            Self::NameInUse { .. } => Some(
                "choose another name; `kiln rm` removes a container that has ended, `--rm` removes it at once",
            ),
            Self::Io { source, .. }
                if matches!(
                    source.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                ) =>
            {
                Some("free some space, for example with `kiln system prune`")
            }
            Self::OutOfReach => Some(
                "end it where it was started: another container of this machine shares this store",
            ),
            Self::NotATerminal => Some("leave `-t` away where input comes from a pipe or a file"),
            Self::Port { source, .. } => match source.kind() {
                io::ErrorKind::AddrInUse => {
                    Some("something listens there; choose another port, or leave it away for any")
                }
                io::ErrorKind::PermissionDenied => {
                    Some("a port below 1024 is root's; choose a higher one")
                }
                io::ErrorKind::AddrNotAvailable => Some("the machine does not have that address"),
                _ => None,
            },
            Self::Sandbox(error) => error.hint(),
            Self::Store(error) => error.hint(),
            _ => None,
        }
    }

    /// The exit status that `docker run` has for this failure: 127 if there is no such command, 126 if it cannot be executed,
    /// else 125.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Sandbox(error) => {
                error.exit_status().and_then(|it| u8::try_from(it).ok()).unwrap_or(125)
            }
            _ => 125,
        }
    }

    /// Makes an error of a path out of the kernel's.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
