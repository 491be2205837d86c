//! Mistakes of the parser in the words of the reference, which tools that read `buildError` look for.

use alloc::{
    format,
    string::{String, ToString},
};

use parser::{Diagnostic, Mistake, MountError};

/// When the reference finds a mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// When it splits the file: before anything else.
    File,
    /// When it reads the instruction, all those before it being read.
    Instruction,
    /// When it comes to building the stage.
    Stage,
}

/// Returns when the reference finds a mistake.
pub(super) fn phase(mistake: &Mistake) -> Phase {
    match mistake {
        Mistake::NoInstructions
        | Mistake::LineTooLong { .. }
        | Mistake::DuplicateDirective { .. }
        | Mistake::InvalidEscape { .. }
        | Mistake::UnknownKilnOption { .. }
        | Mistake::UnterminatedHeredoc { .. }
        | Mistake::JsonNotStrings { .. }
        | Mistake::MissingValue { .. }
        | Mistake::MissingEquals { .. } => Phase::File,
        Mistake::Mount(MountError::VariableInFrom { .. } | MountError::Fields { .. }) => {
            Phase::Instruction
        }
        Mistake::Mount(_) => Phase::Stage,
        _ => Phase::Instruction,
    }
}

/// Says a mistake as the reference does.
pub(super) fn message(diagnostic: &Diagnostic) -> String {
    let line = diagnostic.lines.first;
    let words = words(diagnostic);
    match &diagnostic.kind {
        Mistake::NoStage { .. } => words,
        Mistake::LineTooLong { .. } => format!("dockerfile parse error on line {line}: {words}"),
        kind if phase(kind) == Phase::Instruction => {
            format!("dockerfile parse error on line {line}: {words}")
        }
        _ => words,
    }
}

fn words(diagnostic: &Diagnostic) -> String {
    let upper = |keyword: &str| keyword.to_uppercase();
    match &diagnostic.kind {
        Mistake::NoInstructions => "file with no instructions".into(),
        Mistake::LineTooLong { limit, .. } => {
            format!("dockerfile line greater than maximum allowed size of {limit}")
        }
        Mistake::DuplicateDirective { name } => {
            format!("only one {name} parser directive can be used")
        }
        Mistake::InvalidEscape { value } => {
            format!("invalid escape token '{value}' does not match ` or \\")
        }
        Mistake::UnterminatedHeredoc { .. } => "unterminated heredoc".into(),
        Mistake::UnknownInstruction { keyword } => {
            format!("unknown instruction: {keyword}{}", suggestion(diagnostic))
        }
        Mistake::NoStage { .. } => "no build stage in current context".into(),
        Mistake::JsonNotStrings { .. } => {
            "only string type is allowed in JSON format arrays".into()
        }
        Mistake::MissingValue { keyword, .. } => {
            format!("{} must have two arguments", upper(keyword))
        }
        Mistake::MissingEquals { word } => {
            format!("Syntax error - can't find = in {word:?}. Must be of the form: name=value")
        }
        Mistake::BlankName { keyword } => format!("{} names can not be blank", upper(keyword)),
        Mistake::UnknownFlag { flag, .. } => {
            format!("unknown flag: --{flag}{}", suggestion(diagnostic))
        }
        Mistake::DuplicateFlag { flag } => format!("duplicate flag specified: --{flag}"),
        Mistake::MissingFlagValue { flag } => format!("missing a value on flag: --{flag}"),
        Mistake::InvalidSwitch { flag, value } => {
            format!("expecting boolean value for flag --{flag}, not: {value}")
        }
        Mistake::MissingArgument { keyword } => {
            format!("{} requires at least one argument", upper(keyword))
        }
        Mistake::ArgumentCount { keyword, .. } => {
            format!("{} requires exactly one argument", upper(keyword))
        }
        Mistake::MissingDestination { keyword, .. } => format!(
            "{} requires at least two arguments, but only one was provided. Destination could not be determined",
            upper(keyword)
        ),
        Mistake::HeredocDestination { keyword } => {
            format!("{} cannot accept a heredoc as a destination", upper(keyword))
        }
        Mistake::FromArguments { .. } | Mistake::ExpectedAs { .. } => {
            "FROM requires either one or three arguments".into()
        }
        Mistake::InvalidStageName { name } => format!(
            "invalid name for build stage: {name:?}, name can't start with a number or contain symbols"
        ),
        Mistake::EmptyVolume => "VOLUME specified can not be an empty string".into(),
        Mistake::ShellNotJson { .. } => "SHELL requires the arguments to be in JSON form".into(),
        Mistake::HealthcheckKind { word } => {
            format!("Unknown type {:?} in HEALTHCHECK (try CMD)", upper(word))
        }
        Mistake::HealthcheckNone { .. } => "HEALTHCHECK NONE takes no arguments".into(),
        Mistake::HealthcheckCommand => "Missing command after HEALTHCHECK CMD".into(),
        Mistake::InvalidDuration { value, .. } => format!("time: invalid duration {value:?}"),
        Mistake::ShortDuration { flag, .. } => {
            format!("Interval {flag:?} cannot be less than 1ms")
        }
        Mistake::InvalidRetries { value } => {
            format!("strconv.ParseInt: parsing {value:?}: invalid syntax")
        }
        Mistake::InvalidTrigger { keyword } if keyword.eq_ignore_ascii_case("ONBUILD") => {
            "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".into()
        }
        Mistake::InvalidTrigger { keyword } => {
            format!("{} isn't allowed as an ONBUILD trigger", upper(keyword))
        }
        Mistake::TriggerCount { .. } => "onbuild trigger should be a single expression".into(),
        Mistake::InvalidNetwork { value } => format!("invalid network mode {value:?}"),
        Mistake::InvalidSecurity { value } => format!("security {value:?} is not valid"),
        Mistake::Mount(error) => mount(error, &[]),
        other => other.to_string(),
    }
}

/// Says what is wrong with a mount as the reference does. `fields` is the mount.
pub(super) fn mount(error: &MountError, fields: &[(String, Option<String>)]) -> String {
    let suggestion = || {
        let hint = parser::mount::hint(error).unwrap_or_default();
        quoted(&hint).map_or(String::new(), |it| format!(" (did you mean {it}?)"))
    };
    match error {
        MountError::UnknownKey { key } => {
            let value =
                fields.iter().find(|(it, _)| it == key).and_then(|(_, value)| value.clone());
            let field = value.map_or(key.clone(), |value| format!("{key}={value}"));
            format!("unexpected key '{key}' in '{field}'{}", suggestion())
        }
        MountError::MissingValue { key } => {
            format!("invalid field '{key}' must be a key=value pair")
        }
        MountError::UnknownKind { value } => {
            format!("unsupported mount type {value:?}{}", suggestion())
        }
        MountError::UnknownSharing { value } => {
            format!("unsupported sharing value {value:?}{}", suggestion())
        }
        MountError::InvalidValue { key, value, .. } => format!("invalid value for {key}: {value}"),
        MountError::VariableInFrom { .. } => {
            "'from' doesn't support variable expansion, define alias stage instead".into()
        }
        MountError::Fields { reason, .. } => format!("failed to parse csv mounts: {reason}"),
        MountError::UnnamedSecret => "invalid secret mount. one of source, target required".into(),
        MountError::SecretSourceAndId => "both source and id can't be set".into(),
        MountError::NotForKind { key, kind } if matches!(key.as_str(), "required" | "size") => {
            format!("unexpected key '{key}' for mount type '{kind}'")
        }
        MountError::NotForKind { key, kind } => {
            format!("{key} not allowed for {:?} type mounts", kind.as_str())
        }
        other => other.to_string(),
    }
}

fn suggestion(diagnostic: &Diagnostic) -> String {
    let word = diagnostic.hint.as_deref().and_then(quoted);
    word.map_or(String::new(), |it| format!(" (did you mean {}?)", it.trim_start_matches('-')))
}

/// Takes the word out of a hint such as "did you mean `FROM`?".
fn quoted(hint: &str) -> Option<&str> {
    hint.strip_prefix("did you mean `")?.split('`').next()
}
