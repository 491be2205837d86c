//! Values of options: text in, typed value out, one form per file.
//!
//! Every parser returns the message for the person who typed it; clap adds the option's name. Nothing here reads a file or
//! the environment: what has to be looked up is returned as "to be looked up".
//!
//! 1. [`csv`] — `key=value,key=value`, as `--output`, `--secret` and `--ssh` take it.
//! 2. [`output`], [`secret`], [`ssh`], [`call`], [`attest`] — the options of `kiln build` made of such fields.
//! 3. [`pair`], [`size`], [`duration`], [`limit`], [`layer_limit`], [`host`], [`annotation`], [`mod@publish`], [`volume`], [`isolation`] — the rest.

pub mod annotation;
pub mod attest;
pub mod call;
pub mod csv;
pub mod duration;
pub mod host;
pub mod isolation;
pub mod layer_limit;
pub mod limit;
pub mod mount;
pub mod output;
pub mod pair;
pub mod publish;
pub mod secret;
pub mod security;
pub mod signal;
pub mod size;
pub mod ssh;

pub use annotation::{Annotation, AnnotationKind};
pub use attest::Attest;
pub use call::{Call, Format, Question};
pub use host::AddHost;
pub use layer_limit::LayerLimit;
pub use limit::Ulimit;
pub use mount::{BindMount, Mount, TmpfsMount};
pub use output::{Compression, Dest, Output, OutputKind};
pub use pair::Pair;
pub use publish::Publish;
pub use secret::{Secret, SecretSource};
pub use security::SecurityOption;
pub use ssh::Ssh;

/// Parses a boolean as docker's command line does: `1`, `t`, `true`, `0`, `f`, `false` in their usual capitals.
///
/// # Errors
///
/// Returns a message that names the text.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("`{text}` is neither `true` nor `false`")),
    }
}

/// Joins names for a message: `a`, `b` or `c`.
pub(crate) fn one_of(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|it| format!("`{it}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}
