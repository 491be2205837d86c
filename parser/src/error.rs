//! Every way a Dockerfile can be wrong.
//!
//! Messages follow one form: a lower-case fragment, no final period, user text in backticks. They say what is wrong; what
//! to do about it is a separate [`hint`](Diagnostic::hint).

use alloc::string::String;
use core::fmt;

use crate::{
    mount::MountKind,
    span::{Lines, Span},
};

/// One mistake, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong.
    pub kind: Mistake,
    /// The bytes to underline.
    pub span: Span,
    /// The physical lines of the instruction that holds it.
    pub lines: Lines,
    /// What to do about it, a sentence without its full stop.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// Returns a name for this kind of mistake that never changes, for tests, scripts and documentation.
    pub fn code(&self) -> &'static str {
        self.kind.code()
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl core::error::Error for Diagnostic {}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Mistake {
    /// Nothing but comments and blank lines.
    #[error("file is empty: it holds no instructions")]
    NoInstructions,
    /// A physical line longer than BuildKit reads.
    #[error("line of {found} bytes is longer than the limit of {limit}")]
    LineTooLong {
        /// The length of the line in bytes.
        found: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A parser directive is there twice.
    #[error("parser directive `{name}` is given twice")]
    DuplicateDirective {
        /// The directive.
        name: String,
    },
    /// `# escape=` with another character than the two that are allowed.
    #[error("escape character `{value}` is neither a backslash nor a backtick")]
    InvalidEscape {
        /// What is written.
        value: String,
    },
    /// `# kiln=` with an option that there is not.
    #[error("unknown option `{option}` of `# kiln=`")]
    UnknownKilnOption {
        /// What is written.
        option: String,
    },
    /// The file ends before the terminator of a heredoc.
    #[error("heredoc `{name}` is not terminated")]
    UnterminatedHeredoc {
        /// The terminator it waits for.
        name: String,
    },
    /// The first word is no instruction.
    #[error("unknown instruction `{keyword}`")]
    UnknownInstruction {
        /// The word as written.
        keyword: String,
    },
    /// A continuation joins to nothing.
    #[error("expected an instruction, found a continuation of nothing")]
    EmptyInstruction,
    /// An instruction stands before the first `FROM`.
    #[error("`{keyword}` stands before the first `FROM`")]
    NoStage {
        /// The instruction as written.
        keyword: String,
    },
    /// A JSON array holds something that is no string.
    #[error("JSON array of `{keyword}` holds something that is not a string")]
    JsonNotStrings {
        /// The instruction as written.
        keyword: String,
    },
    /// `ENV NAME` or `LABEL NAME`.
    #[error("`{keyword}` needs a value for `{name}`")]
    MissingValue {
        /// The instruction as written.
        keyword: String,
        /// The name without a value.
        name: String,
    },
    /// A word between pairs is no pair.
    #[error("expected `NAME=VALUE`, found `{word}`")]
    MissingEquals {
        /// The word.
        word: String,
    },
    /// `=VALUE`.
    #[error("`{keyword}` needs a name before `=`")]
    BlankName {
        /// The instruction as written.
        keyword: String,
    },
    /// A flag that the instruction does not have.
    #[error("unknown flag `--{flag}` of `{keyword}`")]
    UnknownFlag {
        /// The instruction as written.
        keyword: String,
        /// The flag without dashes and value.
        flag: String,
    },
    /// A flag that may be given once is there twice.
    #[error("flag `--{flag}` is given twice")]
    DuplicateFlag {
        /// The flag.
        flag: String,
    },
    /// A flag has no value.
    #[error("flag `--{flag}` needs a value")]
    MissingFlagValue {
        /// The flag.
        flag: String,
    },
    /// A switch has a value that is neither `true` nor `false`.
    #[error("flag `--{flag}` takes `true` or `false`, found `{value}`")]
    InvalidSwitch {
        /// The flag.
        flag: String,
        /// Its value.
        value: String,
    },
    /// An instruction that needs arguments has none.
    #[error("`{keyword}` needs at least one argument")]
    MissingArgument {
        /// The instruction as written.
        keyword: String,
    },
    /// An instruction that takes one argument has none.
    #[error("`{keyword}` needs exactly one argument, found {found}")]
    ArgumentCount {
        /// The instruction as written.
        keyword: String,
        /// How many there are.
        found: usize,
    },
    /// `COPY` or `ADD` with less than two paths.
    #[error("`{keyword}` needs a source and a destination, found {found} of them")]
    MissingDestination {
        /// The instruction as written.
        keyword: String,
        /// How many paths there are.
        found: usize,
    },
    /// A heredoc as the destination.
    #[error("`{keyword}` cannot write to a heredoc")]
    HeredocDestination {
        /// The instruction as written.
        keyword: String,
    },
    /// `FROM` with another number of words than one or three.
    #[error("expected `FROM IMAGE` or `FROM IMAGE AS NAME`, found {found} arguments")]
    FromArguments {
        /// How many there are.
        found: usize,
    },
    /// `FROM` with three words of which the second is not `AS`.
    #[error("expected `AS` between image and stage name, found `{word}`")]
    ExpectedAs {
        /// The second word.
        word: String,
    },
    /// A stage name that nothing could refer to.
    #[error(
        "stage name `{name}` does not start with a letter or holds other than letters, digits and `-_.`"
    )]
    InvalidStageName {
        /// The name as written.
        name: String,
    },
    /// `VOLUME [""]`.
    #[error("volume path is empty")]
    EmptyVolume,
    /// `SHELL` in shell form.
    #[error("`{keyword}` needs its arguments as a JSON array")]
    ShellNotJson {
        /// The instruction as written.
        keyword: String,
    },
    /// `HEALTHCHECK` with another word than `NONE` or `CMD`.
    #[error("expected `NONE` or `CMD` after `HEALTHCHECK`, found `{word}`")]
    HealthcheckKind {
        /// The word as written.
        word: String,
    },
    /// `HEALTHCHECK NONE` followed by something.
    #[error("`HEALTHCHECK NONE` takes no arguments, found `{found}`")]
    HealthcheckNone {
        /// What follows.
        found: String,
    },
    /// `HEALTHCHECK CMD` followed by nothing.
    #[error("`HEALTHCHECK CMD` needs a command")]
    HealthcheckCommand,
    /// A duration that is none.
    #[error("flag `--{flag}` takes a duration, found `{value}`")]
    InvalidDuration {
        /// The flag.
        flag: String,
        /// Its value.
        value: String,
    },
    /// A duration below the least that is allowed.
    #[error("flag `--{flag}` takes a duration of 1ms or more, found `{value}`")]
    ShortDuration {
        /// The flag.
        flag: String,
        /// Its value.
        value: String,
    },
    /// `--retries` that is no number from 0 up.
    #[error("flag `--retries` takes a number from 0 to 2147483647, found `{value}`")]
    InvalidRetries {
        /// Its value.
        value: String,
    },
    /// An instruction that must not be a trigger.
    #[error("`{keyword}` cannot be an `ONBUILD` trigger")]
    InvalidTrigger {
        /// The instruction as written.
        keyword: String,
    },
    /// A stored trigger that holds another number of instructions than one.
    #[error("`ONBUILD` trigger holds {found} instructions instead of one")]
    TriggerCount {
        /// How many there are.
        found: usize,
    },
    /// `RUN --network` with an unknown value.
    #[error("network mode `{value}` is not one of `default`, `none`, `host`")]
    InvalidNetwork {
        /// Its value.
        value: String,
    },
    /// `RUN --security` with an unknown value.
    #[error("security mode `{value}` is not one of `sandbox`, `insecure`")]
    InvalidSecurity {
        /// Its value.
        value: String,
    },
    /// `RUN --device` that cannot be read.
    #[error("device `{value}` is not `NAME[,required]`: {reason}")]
    InvalidDevice {
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// `RUN --mount` that cannot be right.
    #[error(transparent)]
    Mount(#[from] MountError),
}

/// What is wrong with a `RUN --mount`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// The value is not comma-separated fields.
    #[error("mount `{value}` is not a list of comma-separated fields: {reason}")]
    Fields {
        /// The value.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A key that no mount has.
    #[error("unknown mount option `{key}`")]
    UnknownKey {
        /// The key, in lower case.
        key: String,
    },
    /// A key that needs a value stands alone.
    #[error("mount option `{key}` needs a value")]
    MissingValue {
        /// The key.
        key: String,
    },
    /// `type=` with an unknown value.
    #[error("unknown mount type `{value}`")]
    UnknownKind {
        /// The value.
        value: String,
    },
    /// `sharing=` with an unknown value.
    #[error("sharing mode `{value}` is not one of `shared`, `private`, `locked`")]
    UnknownSharing {
        /// The value.
        value: String,
    },
    /// A value that the key does not take.
    #[error("mount option `{key}` takes {expected}, found `{value}`")]
    InvalidValue {
        /// The key.
        key: String,
        /// What it takes.
        expected: &'static str,
        /// The value.
        value: String,
    },
    /// A key that this kind of mount does not have, or that stands before the `type=` that has it.
    #[error("mount option `{key}` does not go with type `{kind}`")]
    NotForKind {
        /// The key.
        key: String,
        /// The kind.
        kind: MountKind,
    },
    /// A variable in `from=`.
    #[error("mount option `from` cannot hold a variable, found `{value}`")]
    VariableInFrom {
        /// The value.
        value: String,
    },
    /// A secret without id, source and target.
    #[error("secret mount needs an `id` or a `target`")]
    UnnamedSecret,
    /// A secret with both names for its id.
    #[error("secret mount has both `id` and `source`")]
    SecretSourceAndId,
}

impl Mistake {
    /// Returns a name for this kind of mistake that never changes.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoInstructions => "no-instructions",
            Self::LineTooLong { .. } => "line-too-long",
            Self::DuplicateDirective { .. } => "duplicate-directive",
            Self::InvalidEscape { .. } => "invalid-escape",
            Self::UnknownKilnOption { .. } => "unknown-kiln-option",
            Self::UnterminatedHeredoc { .. } => "unterminated-heredoc",
            Self::UnknownInstruction { .. } => "unknown-instruction",
            Self::EmptyInstruction => "empty-instruction",
            Self::NoStage { .. } => "no-stage",
            Self::JsonNotStrings { .. } => "json-not-strings",
            Self::MissingValue { .. } => "missing-value",
            Self::MissingEquals { .. } => "missing-equals",
            Self::BlankName { .. } => "blank-name",
            Self::UnknownFlag { .. } => "unknown-flag",
            Self::DuplicateFlag { .. } => "duplicate-flag",
            Self::MissingFlagValue { .. } => "missing-flag-value",
            Self::InvalidSwitch { .. } => "invalid-switch",
            Self::MissingArgument { .. } => "missing-argument",
            Self::ArgumentCount { .. } => "argument-count",
            Self::MissingDestination { .. } => "missing-destination",
            Self::HeredocDestination { .. } => "heredoc-destination",
            Self::FromArguments { .. } => "from-arguments",
            Self::ExpectedAs { .. } => "expected-as",
            Self::InvalidStageName { .. } => "invalid-stage-name",
            Self::EmptyVolume => "empty-volume",
            Self::ShellNotJson { .. } => "shell-not-json",
            Self::HealthcheckKind { .. } => "healthcheck-kind",
            Self::HealthcheckNone { .. } => "healthcheck-none",
            Self::HealthcheckCommand => "healthcheck-command",
            Self::InvalidDuration { .. } => "invalid-duration",
            Self::ShortDuration { .. } => "short-duration",
            Self::InvalidRetries { .. } => "invalid-retries",
            Self::InvalidTrigger { .. } => "invalid-trigger",
            Self::TriggerCount { .. } => "trigger-count",
            Self::InvalidNetwork { .. } => "invalid-network",
            Self::InvalidSecurity { .. } => "invalid-security",
            Self::InvalidDevice { .. } => "invalid-device",
            Self::Mount(error) => error.code(),
        }
    }
}

impl MountError {
    /// Returns a name for this kind of mistake that never changes.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Fields { .. } => "mount-fields",
            Self::UnknownKey { .. } => "mount-unknown-option",
            Self::MissingValue { .. } => "mount-missing-value",
            Self::UnknownKind { .. } => "mount-unknown-type",
            Self::UnknownSharing { .. } => "mount-unknown-sharing",
            Self::InvalidValue { .. } => "mount-invalid-value",
            Self::NotForKind { .. } => "mount-wrong-option",
            Self::VariableInFrom { .. } => "mount-variable-in-from",
            Self::UnnamedSecret => "mount-unnamed-secret",
            Self::SecretSourceAndId => "mount-source-and-id",
        }
    }
}

/// The code of every mistake, in the order of [`Mistake`] and [`MountError`].
pub const CODES: &[&str] = &[
    "no-instructions",
    "line-too-long",
    "duplicate-directive",
    "invalid-escape",
    "unknown-kiln-option",
    "unterminated-heredoc",
    "unknown-instruction",
    "empty-instruction",
    "no-stage",
    "json-not-strings",
    "missing-value",
    "missing-equals",
    "blank-name",
    "unknown-flag",
    "duplicate-flag",
    "missing-flag-value",
    "invalid-switch",
    "missing-argument",
    "argument-count",
    "missing-destination",
    "heredoc-destination",
    "from-arguments",
    "expected-as",
    "invalid-stage-name",
    "empty-volume",
    "shell-not-json",
    "healthcheck-kind",
    "healthcheck-none",
    "healthcheck-command",
    "invalid-duration",
    "short-duration",
    "invalid-retries",
    "invalid-trigger",
    "trigger-count",
    "invalid-network",
    "invalid-security",
    "invalid-device",
    "mount-fields",
    "mount-unknown-option",
    "mount-missing-value",
    "mount-unknown-type",
    "mount-unknown-sharing",
    "mount-invalid-value",
    "mount-wrong-option",
    "mount-variable-in-from",
    "mount-unnamed-secret",
    "mount-source-and-id",
];
