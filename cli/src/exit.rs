//! How the process ends.
//!
//! | status | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | the build (or pull, push, …) failed |
//! | 2 | what the user wrote is wrong: command line, Dockerfile, configuration |
//! | 70 | a bug of kiln |
//! | 130 | stopped by Ctrl-C or a request to end |
//! | any | `kiln run` passes on that of the process; 125 kiln failed before it ran, 126 it cannot be run, 127 it is not there |

use std::{io::Write, process::ExitCode};

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// The work failed.
    Failed,
    /// What the user wrote is wrong.
    Input,
    /// A bug.
    Bug,
    /// Stopped by the user.
    Interrupted,
    /// The status of a process in a container.
    Process(u8),
}

impl Exit {
    /// Returns the number.
    pub fn status(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Input => 2,
            Self::Bug => 70,
            Self::Interrupted => 130,
            Self::Process(status) => status,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.status())
    }
}

/// Makes panics say that they are our fault and where.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let message = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        let place = info.location().map(|it| format!(" at {it}")).unwrap_or_default();
        let version = env!("CARGO_PKG_VERSION");
        let text = format!(
            "error[bug]: {message}{place}\nthis is a bug in kiln {version}; please report it with the command and this text\n"
        );
        // Standard error may be closed.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }));
}
