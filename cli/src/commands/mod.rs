//! The commands, one file each.
//!
//! A command takes its arguments and [`Globals`], and returns how the process ends. Nothing outside of it is read before it
//! asks: [`Globals`] opens the configuration and the store only when they are wanted.

pub mod build;
pub mod completions;
pub mod containers;
pub mod explain;
pub mod fmt;
pub mod images;
pub mod login;
pub mod plan;
pub mod run;
pub mod system;
pub mod transfer;
pub mod version;

use std::{path::PathBuf, sync::OnceLock};

use anyhow::Context;
use cache::Store;

use crate::{
    args::{Cli, Command, containers::ContainerCommand, system::SystemCommand},
    config::{Config, Surroundings},
    exit::Exit,
    failure::{Failure, OrFail, Result},
    values::LayerLimit,
};

/// What all commands share.
#[derive(Debug)]
pub struct Globals {
    /// `--root`.
    pub root: Option<PathBuf>,
    /// `--limit`, over what the configuration says.
    pub limits: Vec<LayerLimit>,
    /// Environment and user.
    pub around: Surroundings,
    /// The configuration, when it has been read.
    read: OnceLock<Config>,
}

impl Globals {
    /// Reads the configuration, once.
    ///
    /// # Errors
    ///
    /// Fails where a file cannot be read or understood.
    pub fn config(&self) -> Result<Config> {
        if let Some(known) = self.read.get() {
            return Ok(known.clone());
        }
        let config = self.around.config()?;
        Ok(self.read.get_or_init(|| config).clone())
    }

    /// Returns the directory of the store.
    ///
    /// # Errors
    ///
    /// Fails where there is none to be had.
    pub fn store_root(&self, config: &Config) -> Result<PathBuf> {
        self.around.store_root(self.root.as_deref(), config)
    }

    /// Tells the sandbox where trees will lie. What is wrong with the configuration is said by who needs it.
    pub fn tell_where_trees_lie(&self) {
        if let Ok(root) = self.config().and_then(|it| self.store_root(&it)) {
            sandbox::trees_in(&root);
        }
    }

    /// Opens the store.
    ///
    /// # Errors
    ///
    /// Fails where it cannot be opened or made.
    pub fn store(&self) -> Result<Store> {
        self.store_of(&self.config()?)
    }

    /// Opens the store that this configuration names, and removes what killed builds and containers left.
    ///
    /// # Errors
    ///
    /// Fails where it cannot be opened or made.
    pub fn store_of(&self, config: &Config) -> Result<Store> {
        let options = config.store_options(&self.limits);
        let store = Store::open_with(&self.store_root(config)?, options).or_failed()?;
        runtime::reap(&store).or_failed()?;
        if store.had_leftovers() {
            sandbox::end_orphans(|it| store.is_abandoned(it));
        }
        sandbox::remove_stale();
        Ok(store)
    }
}

/// Runs a command.
///
/// # Errors
///
/// Returns why it ended early.
pub fn run(cli: Cli) -> Result<Exit> {
    let globals = Globals {
        root: cli.globals.root,
        limits: cli.globals.limits,
        around: Surroundings::of_process(),
        read: OnceLock::new(),
    };
    let command = cli.command.flat();
    if let Command::Run(args) = &command
        && let Some(exit) = run::detach(args)?
    {
        return Ok(exit);
    }
    if let Some(isolation) = isolation(&command) {
        globals.tell_where_trees_lie();
        // Here, where there is one thread yet and nothing was opened.
        sandbox::isolate(isolation).or_input()?;
    }
    match command {
        Command::Build(args) => build::run(*args, &globals),
        Command::Plan(args) => plan::run(*args, &globals),
        Command::Explain(args) => explain::run(&args, &globals),
        Command::Fmt(args) => fmt::run(&args),
        Command::Ps(args) => containers::list(&args, &globals),
        Command::Stop(args) => containers::stop(&args, &globals),
        Command::Kill(args) => containers::kill(&args, &globals),
        Command::Rm(args) => containers::remove(&args, &globals),
        Command::Container(ContainerCommand::Prune(args)) => containers::prune(&args, &globals),
        Command::Images(args) => images::list::run(&args, &globals),
        Command::Inspect(args) => images::inspect::run(&args, &globals),
        Command::History(args) => images::history::run(&args, &globals),
        Command::Tag(args) => images::names::tag(&args, &globals),
        Command::Rmi(args) => images::names::remove(&args, &globals),
        Command::Login(args) => login::login(args, &globals),
        Command::Logout(args) => login::logout(&args),
        Command::Logs(args) => system::logs::run(&args, &globals),
        Command::System(SystemCommand::Df(args)) => system::df::run(&args, &globals),
        Command::System(SystemCommand::Check(args)) => system::check::run(&args, &globals),
        Command::System(SystemCommand::Reset(args)) => system::reset::run(&args, &globals),
        Command::Info(args) | Command::System(SystemCommand::Info(args)) => {
            system::info::run(&args, &globals)
        }
        Command::Version(args) => version::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Run(args) => run::run(*args, &globals),
        Command::Save(args) => transfer::save::run(&args, &globals),
        Command::Load(args) => transfer::load::run(&args, &globals),
        Command::Pull(args) => transfer::pull::run(&args, &globals),
        Command::Push(args) => transfer::push::run(&args, &globals),
        Command::System(SystemCommand::Prune(args)) => system::prune::run(&args, &globals),
        // `flat` leaves none of these.
        Command::Image(_) | Command::Builder(_) | Command::Container(_) | Command::Du(_) => {
            Err(missing("this"))
        }
    }
}

/// The sandbox of a command that runs something, or touches files of trees: those may belong to others than the user.
fn isolation(command: &Command) -> Option<sandbox::Isolation> {
    match command {
        Command::Build(args) => Some(args.isolation),
        Command::Plan(args) => Some(args.build.isolation),
        Command::Run(args) => Some(args.isolation),
        // This one tells what there is to choose from.
        Command::System(SystemCommand::Info(_)) => None,
        Command::Save(_)
        | Command::Load(_)
        | Command::Push(_)
        | Command::Rm(_)
        | Command::Container(_)
        | Command::System(_) => Some(sandbox::Isolation::Auto),
        _ => None,
    }
}

fn missing(command: &str) -> Failure {
    Failure::failed(anyhow::anyhow!("`kiln {command}` is not there yet"))
}

/// Waits for something asynchronous on this thread.
///
/// # Errors
///
/// Fails where the runtime cannot be started.
pub(crate) fn wait<T>(future: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.context("cannot start the network runtime").or_failed()?.block_on(future))
}

/// Says what went wrong with a registry.
pub(crate) fn registry_failure(error: registry::Error) -> Failure {
    Failure::failed(error)
}
