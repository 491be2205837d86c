//! Every way a request and a Dockerfile can fail to become a plan.

use alloc::{boxed::Box, string::String};

use parser::span::Span;

use crate::{expand::ExpandError, mode::ModeError};

/// One mistake, and where it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct PlanError {
    /// What is wrong; boxed, since results are far more often good than bad.
    pub kind: Box<PlanErrorKind>,
    /// The bytes to underline.
    pub span: Span,
    /// What to do about it.
    pub hint: Option<String>,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(
    missing_docs,
    reason = "fields hold what their names say; the messages explain the variants"
)]
pub enum PlanErrorKind {
    #[error("the Dockerfile has no stage: nothing to build")]
    NoStages,
    #[error("{source}")]
    Expand { word: String, source: ExpandError },
    #[error("base name (`{written}`) should not be blank")]
    BlankBaseName { written: String },
    #[error("empty platform value from expression `{written}`")]
    EmptyPlatform { written: String },
    #[error("failed to parse platform `{written}`: {message}")]
    InvalidPlatform { written: String, message: String },
    #[error("target stage `{target}` could not be found")]
    UnknownTarget { target: String },
    #[error("failed to parse stage name `{name}`: {message}")]
    InvalidReference { name: String, message: String },
    #[error("circular dependency detected on stage: `{stage}`")]
    CircularDependency { stage: String },
    #[error(
        "cannot copy from stage `{from}`, it needs to be defined before current stage `{stage}`"
    )]
    StageDefinedLater { from: String, stage: String },
    #[error("invalid stage index `{index}`: there is no such stage")]
    InvalidStageIndex { index: String },
    #[error("trigger `{trigger}` of the base image is wrong: {message}")]
    WrongTrigger { trigger: String, message: String },
    #[error("invalid named context `{name}={value}`: {message}")]
    InvalidNamedContext { name: String, value: String, message: String },
    #[error(transparent)]
    Mode(ModeError),
    #[error(
        "checksum can't be specified for `{instruction}`: it needs a single HTTP(S) or git source"
    )]
    ChecksumSource { instruction: &'static str },
    #[error("source can't be a {what} for COPY: `{source_text}`")]
    RemoteCopy { what: &'static str, source_text: String },
    #[error("invalid checksum `{text}`: {message}")]
    InvalidChecksum { text: String, message: String },
    #[error("invalid git source `{url}`: {message}")]
    InvalidGitUrl { url: String, message: String },
    #[error("flag `{flag}` only works with a git source")]
    GitOnly { flag: &'static str },
    #[error("flag `{flag}` of the instruction conflicts with the query of `{url}`")]
    GitConflict { flag: &'static str, url: String },
    #[error("invalid mount: {message}")]
    InvalidMount { message: String },
    #[error("unsupported network mode `{mode}`")]
    UnknownNetwork { mode: String },
    #[error("unsupported security mode `{mode}`")]
    UnknownSecurity { mode: String },
    #[error("`{what}` is not allowed: entitlement `{entitlement}` was not given")]
    NotAllowed { what: String, entitlement: &'static str },
    #[error("devices are not supported: `--device={device}`")]
    Device { device: String },
    #[error("{message}")]
    InvalidPort { message: String },
    #[error("{message}")]
    InvalidSignal { message: String },
    #[error("a volume has no path: `{written}` is empty")]
    EmptyVolume { written: String },
    #[error("invalid SOURCE_DATE_EPOCH: `{value}`")]
    InvalidEpoch { value: String },
    #[error("SOURCE_DATE_EPOCH stage does not meet source-only requirements: {problem}")]
    EpochStage { problem: String },
    #[error("instruction could not be read")]
    Invalid,
}

impl PlanError {
    /// Makes an error without a hint.
    pub fn new(kind: PlanErrorKind, span: Span) -> Self {
        Self { kind: Box::new(kind), span, hint: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A name for this kind of error that never changes, for tests, scripts, and documentation.
    pub fn code(&self) -> &'static str {
        use PlanErrorKind::*;
        match *self.kind {
            NoStages => "no-stages",
            Expand { .. } => "expansion",
            BlankBaseName { .. } => "blank-base-name",
            EmptyPlatform { .. } => "empty-platform",
            InvalidPlatform { .. } => "invalid-platform",
            UnknownTarget { .. } => "unknown-target",
            InvalidReference { .. } => "invalid-reference",
            CircularDependency { .. } => "circular-dependency",
            StageDefinedLater { .. } => "stage-defined-later",
            InvalidStageIndex { .. } => "invalid-stage-index",
            WrongTrigger { .. } => "wrong-trigger",
            InvalidNamedContext { .. } => "invalid-named-context",
            Mode(_) => "invalid-chmod",
            ChecksumSource { .. } => "checksum-source",
            RemoteCopy { .. } => "remote-copy",
            InvalidChecksum { .. } => "invalid-checksum",
            InvalidGitUrl { .. } => "invalid-git-url",
            GitOnly { .. } => "git-only-flag",
            GitConflict { .. } => "git-conflict",
            InvalidMount { .. } => "invalid-mount",
            UnknownNetwork { .. } => "unknown-network",
            UnknownSecurity { .. } => "unknown-security",
            NotAllowed { .. } => "not-allowed",
            Device { .. } => "device-unsupported",
            InvalidPort { .. } => "invalid-port",
            InvalidSignal { .. } => "invalid-signal",
            EmptyVolume { .. } => "empty-volume-value",
            InvalidEpoch { .. } => "invalid-epoch",
            EpochStage { .. } => "epoch-stage",
            Invalid => "invalid-instruction",
        }
    }
}

/// Every code that [`PlanError::code`] returns.
pub const CODES: &[&str] = &[
    "no-stages",
    "expansion",
    "blank-base-name",
    "empty-platform",
    "invalid-platform",
    "unknown-target",
    "invalid-reference",
    "circular-dependency",
    "stage-defined-later",
    "invalid-stage-index",
    "wrong-trigger",
    "invalid-named-context",
    "invalid-chmod",
    "checksum-source",
    "remote-copy",
    "invalid-checksum",
    "invalid-git-url",
    "git-only-flag",
    "git-conflict",
    "invalid-mount",
    "unknown-network",
    "unknown-security",
    "not-allowed",
    "device-unsupported",
    "invalid-port",
    "invalid-signal",
    "empty-volume-value",
    "invalid-epoch",
    "epoch-stage",
    "invalid-instruction",
];
