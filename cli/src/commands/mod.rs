//! The commands, one file each.
//!
//! A command takes its arguments and [`Globals`], and returns how the process ends. Nothing outside of it is read before it
//! asks: [`Globals`] opens the configuration and the store only when they are wanted.

pub mod build;
pub mod completions;
pub mod version;

use std::path::PathBuf;

use crate::{
    args::{Cli, Command},
    config::{Config, Surroundings},
    exit::Exit,
    failure::Result,
};

/// What all commands share.
#[derive(Debug)]
pub struct Globals {
    /// `--root`.
    pub root: Option<PathBuf>,
    /// Environment and user.
    pub around: Surroundings,
}

impl Globals {
    /// Reads the configuration.
    ///
    /// # Errors
    ///
    /// Fails where a file cannot be read or understood.
    pub fn config(&self) -> Result<Config> {
        self.around.config()
    }

    /// Returns the directory of the store.
    ///
    /// # Errors
    ///
    /// Fails where there is none to be had.
    pub fn store_root(&self, config: &Config) -> Result<PathBuf> {
        self.around.store_root(self.root.as_deref(), config)
    }
}

/// Runs a command.
///
/// # Errors
///
/// Returns why it ended early.
pub fn run(cli: Cli) -> Result<Exit> {
    let globals = Globals { root: cli.root, around: Surroundings::of_process() };
    match cli.command.flat() {
        Command::Build(args) => build::run(*args, &globals),
        Command::Version(args) => version::run(&args),
        Command::Completions(args) => completions::run(&args),
        _ => {
            let _ = globals.config()?;
            Err(crate::failure::Failure::failed(anyhow::anyhow!("this command is not there yet")))
        }
    }
}
