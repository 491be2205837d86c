//! `kiln completions SHELL`.

use clap::CommandFactory;

use crate::{
    args::{Cli, system::CompletionsArgs},
    exit::Exit,
    failure::Result,
    print,
};

/// Writes the completion script of a shell.
///
/// # Errors
///
/// Fails where it cannot be written.
pub fn run(args: &CompletionsArgs) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "kiln", &mut script);
    print::out(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
