//! Every way a plan can fail to be carried out.
//!
//! Messages follow the house form. What to do about it is in [`ExecutorError::hint`]. Where a step failed,
//! [`StepError`] says which, so that the instruction can be shown.

use std::{io, path::PathBuf};

use parser::span::Span;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(
    missing_docs,
    reason = "fields hold what their names say; the messages explain the variants"
)]
pub enum ExecutorError {
    #[error("cannot open the build context `{}`", path.display())]
    OpenContext { path: PathBuf, source: io::Error },
    #[error("failed to read `{path}`")]
    Read { path: String, source: io::Error },
    #[error("`{path}` changed while it was read")]
    Changed { path: String },
    #[error("too many levels of symbolic links in `{path}`")]
    TooManyLinks { path: String },
    #[error("failed to calculate checksum: `{path}`: not found")]
    NotFound { path: String },
    #[error(
        "failed to calculate checksum: `{path}`: not found, excluded by `{pattern}` of the ignore file"
    )]
    Ignored { path: String, pattern: String },
    #[error("invalid pattern `{pattern}`")]
    BadPattern { pattern: String },
    #[error(transparent)]
    Patterns(#[from] planner::ignore::PatternError),
    #[error("cannot copy to non-directory: `{path}`")]
    NotAFolder { path: String },
    #[error("cannot replace to directory `{path}` with file")]
    FolderInTheWay { path: String },
    #[error("cannot unpack archive: {message}")]
    BadArchive { message: String },
    #[error("cannot unpack archive `{name}`")]
    ArchiveLimit { name: String, source: image::OverLimit },
    #[error("cannot look up `{owner}`: there is no file `{file}` to find it in")]
    UnknownOwner { owner: String, file: String },
    #[error("failed to write layer at `{path}`")]
    WriteLayer { path: String, source: image::error::LayerError },
    #[error("the disk of the store `{}` is full", store.display())]
    StoreFull { store: PathBuf, source: Box<ExecutorError> },
    #[error("failed to write `{}`", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("failed to encode a document")]
    Encode { source: serde_json::Error },
    #[error("invalid document `{what}`")]
    Document { what: String, source: serde_json::Error },
    #[error(transparent)]
    Layer(#[from] image::error::LayerError),
    #[error(transparent)]
    Store(#[from] cache::StoreError),
    #[error(transparent)]
    Registry(Box<registry::Error>),
    #[error(transparent)]
    Sandbox(#[from] sandbox::SandboxError),
    #[error("process `{command}` did not complete successfully: exit code: {code}")]
    ExitCode { command: String, code: i32, tail: Vec<String>, out_of_memory: bool },
    #[error("process `{command}` was killed by signal {signal}")]
    Signal { command: String, signal: i32, tail: Vec<String>, out_of_memory: bool },
    #[error("secret `{id}`: not found")]
    SecretNotFound { id: String },
    #[error("no SSH agent or key was given for `{id}`")]
    SshNotFound { id: String },
    #[error("layer `{digest}` of `{image}` is not here and cannot be had")]
    MissingLayer { digest: String, image: String },
    #[error("no local context `{name}` was given")]
    NoContext { name: String },
    #[error("failed to fetch `{url}`: {message}")]
    Fetch { url: String, message: String },
    #[error("cannot download `{url}`")]
    DownloadLimit { url: String, source: image::OverLimit },
    #[error("digest mismatch of `{url}`: expected `{expected}`, got `{found}`")]
    ChecksumMismatch { url: String, expected: String, found: String },
    #[error("git failed for `{url}`: {message}")]
    Git { url: String, message: String },
    #[error("{message}")]
    Unsupported { message: String, hint: String },
    #[error("canceled")]
    Canceled,
    #[error("cannot start the network runtime")]
    Runtime { source: io::Error },
}

impl From<registry::Error> for ExecutorError {
    fn from(error: registry::Error) -> Self {
        Self::Registry(Box::new(error))
    }
}

impl ExecutorError {
    /// What to do about it, where there is something to say.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NotFound { .. } => {
                "the path is looked for in the build context, or in the stage that --from names"
            }
            Self::Ignored { .. } => {
                "take the pattern out of the ignore file, or add a line with `!` for this path"
            }
            Self::Changed { .. } => "build again when nobody writes into the context",
            Self::NotAFolder { .. } => "a folder cannot be copied over a file or through a link",
            Self::ArchiveLimit { source, .. } | Self::DownloadLimit { source, .. } => {
                source.hint()?
            }
            Self::StoreFull { .. } => {
                "free some space, for example with `kiln system prune`, or name another store with KILN_ROOT"
            }
            Self::UnknownOwner { .. } => "use numbers, for example `--chown=1000:1000`",
            Self::ExitCode { out_of_memory: true, .. }
            | Self::Signal { out_of_memory: true, .. } => "the kernel ended it for want of memory",
            Self::ExitCode { code: 127, command, .. } if command.contains(" -c ['") => {
                "a list of words in brackets takes double quotes: `[\"echo\", \"x\"]`"
            }
            Self::ExitCode { code: 127, .. } => {
                "127 is what a shell returns for a command that it cannot find"
            }
            Self::SecretNotFound { id } => {
                return Some(format!("give it with `--secret id={id},src=FILE`"));
            }
            Self::SshNotFound { id } => return Some(format!("give it with `--ssh {id}`")),
            Self::NoContext { name } => {
                return Some(format!("give it with `--build-context {name}=FOLDER`"));
            }
            Self::Unsupported { hint, .. } => return Some(hint.clone()),
            Self::Registry(error) => return error.hint(),
            Self::Store(error) => return error.hint().map(str::to_owned),
            Self::Sandbox(error) => return error.hint().map(str::to_owned),
            _ => return None,
        };
        Some(text.to_owned())
    }

    /// A name for this kind of error that never changes, for tests, scripts, and documentation.
    pub fn code(&self) -> &'static str {
        match self {
            Self::OpenContext { .. } | Self::NoContext { .. } => "no-context",
            Self::Read { .. } => "read-failed",
            Self::Changed { .. } => "changed-while-read",
            Self::TooManyLinks { .. } => "too-many-links",
            Self::NotFound { .. } => "source-not-found",
            Self::Ignored { .. } => "source-ignored",
            Self::BadPattern { .. } | Self::Patterns(_) => "bad-pattern",
            Self::NotAFolder { .. } => "not-a-folder",
            Self::FolderInTheWay { .. } => "folder-in-the-way",
            Self::BadArchive { .. } => "bad-archive",
            Self::ArchiveLimit { .. } | Self::DownloadLimit { .. } => "over-limit",
            Self::UnknownOwner { .. } => "unknown-owner",
            Self::StoreFull { .. } => "store-full",
            Self::WriteLayer { .. } | Self::Write { .. } => "write-failed",
            Self::Encode { .. } | Self::Document { .. } => "bad-document",
            Self::Layer(_) => "bad-layer",
            Self::Store(_) => "store",
            Self::Registry(_) => "registry",
            Self::Sandbox(_) => "sandbox",
            Self::ExitCode { .. } | Self::Signal { .. } => "run-failed",
            Self::SecretNotFound { .. } => "secret-not-found",
            Self::SshNotFound { .. } => "ssh-not-found",
            Self::MissingLayer { .. } => "missing-layer",
            Self::Fetch { .. } => "fetch-failed",
            Self::ChecksumMismatch { .. } => "checksum-mismatch",
            Self::Git { .. } => "git-failed",
            Self::Unsupported { .. } => "unsupported",
            Self::Canceled => "canceled",
            Self::Runtime { .. } => "runtime",
        }
    }
}

/// A failed step.
#[derive(Debug, thiserror::Error)]
#[error("step `{name}` failed")]
pub struct StepError {
    /// The step's name in progress.
    pub name: String,
    /// The instruction.
    pub span: Option<Span>,
    /// What went wrong.
    pub source: Box<ExecutorError>,
}
