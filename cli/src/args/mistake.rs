//! What clap has against a command line, said the way kiln says things: what is wrong, and a hint what to do.
//!
//! Clap would suggest options and commands that are only there to be refused.

use std::ffi::OsString;

use clap::{
    Command,
    error::{ContextKind, ContextValue, ErrorKind},
};
use parser::suggest::suggest;

use super::tail;

/// Says in other words what is unknown on a command line; other mistakes stay as they are.
///
/// `command` is to be built, see [`Command::build`]; `args` start with the name of the program.
pub(super) fn reworded(error: clap::Error, command: &Command, args: &[OsString]) -> clap::Error {
    let (path, command) = named(command, args);
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let (message, near, what) = match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let Some(word) = text(ContextKind::InvalidSubcommand) else { return error };
            let visible = command.get_subcommands().filter(|it| !it.is_hide_set());
            let near = suggest(word, visible.map(Command::get_name), true);
            let near = near.map(|it| format!("{path} {it}"));
            (format!("there is no command `{path} {word}`"), near, "commands")
        }
        ErrorKind::UnknownArgument => {
            let Some(word) = text(ContextKind::InvalidArg) else { return error };
            let Some(name) = word.strip_prefix("--") else {
                let message = match word.starts_with('-') && word.len() > 1 {
                    true => format!("`{path}` has no option `{word}`"),
                    false => format!("`{word}` is one argument too many for `{path}`"),
                };
                return said(error.kind(), &message, None, &path, "arguments");
            };
            let visible = command.get_arguments().filter(|it| !it.is_hide_set());
            let near = suggest(name, visible.filter_map(clap::Arg::get_long), true);
            let near = near.map(|it| format!("--{it}"));
            (format!("`{path}` has no option `{word}`"), near, "options")
        }
        _ => return error,
    };
    said(error.kind(), &message, near, &path, what)
}

fn said(
    kind: ErrorKind,
    message: &str,
    near: Option<String>,
    path: &str,
    what: &str,
) -> clap::Error {
    let hint = match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("`{path} --help` lists the {what}"),
    };
    clap::Error::raw(kind, format!("{message}\nhint: {hint}\n"))
}

/// The command that a line names, as far as there is one, and how it is written.
fn named<'a>(command: &'a Command, args: &[OsString]) -> (String, &'a Command) {
    let mut path = command.get_name().to_owned();
    let mut found = command;
    let first = tail::subcommand(command, args).unwrap_or(args.len());
    for word in args.iter().skip(first) {
        let Some(next) = found.find_subcommand(word) else { break };
        path = format!("{path} {}", next.get_name());
        found = next;
    }
    (path, found)
}
