//! `--call`: ask something of the Dockerfile instead of building it.

use super::{csv, one_of};

/// One `--call`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Call {
    /// What is asked.
    pub question: Question,
    /// How it is answered.
    pub format: Format,
}

/// What is asked of a Dockerfile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Question {
    /// Nothing: build it.
    #[default]
    Build,
    /// What the lint finds.
    Check,
    /// Arguments, secrets and mounts of the target.
    Outline,
    /// The stages.
    Targets,
    /// The files of the context that the build may see.
    Context,
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Parses `build`, `check`, `outline`, `targets` or `context`, and `,format=text|json` behind it.
///
/// # Errors
///
/// Returns a message that names the word.
pub fn call(text: &str) -> Result<Call, String> {
    let fields = csv::fields(text)?;
    let mut out = Call::default();
    for (n, field) in fields.iter().enumerate() {
        if n == 0 {
            out.question = match field.as_str() {
                "build" => Question::Build,
                "check" | "lint" => Question::Check,
                "outline" => Question::Outline,
                "targets" => Question::Targets,
                "context" => Question::Context,
                other => {
                    let known = one_of(&["build", "check", "outline", "targets", "context"]);
                    return Err(format!("`{other}` is none of {known}"));
                }
            };
            continue;
        }
        out.format = match csv::key_value(field)? {
            (key, "text") if key == "format" => Format::Text,
            (key, "json") if key == "format" => Format::Json,
            _ => return Err(format!("`{field}` is neither `format=text` nor `format=json`")),
        };
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        assert_eq!(call("check"), Ok(Call { question: Question::Check, format: Format::Text }));
        assert_eq!(
            call("targets,format=json"),
            Ok(Call { question: Question::Targets, format: Format::Json })
        );
        assert!(call("frob").is_err() && call("check,format=xml").is_err() && call("").is_err());
    }
}
