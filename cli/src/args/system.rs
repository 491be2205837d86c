//! The store and the machine.

use clap::{Args, Subcommand};

use super::{Command, build};
use crate::values::{Format, size::size};

/// `kiln system …`.
#[derive(Debug, Subcommand)]
pub enum SystemCommand {
    /// Show what takes space in the store
    Df(DiskArgs),
    /// Remove what no image needs
    Prune(PruneArgs),
    /// Look through the store for what is damaged
    Check(CheckArgs),
    /// Remove the whole store
    Reset(ResetArgs),
    /// Docker's other name for `kiln info`
    #[command(hide = true)]
    Info(InfoArgs),
}

/// `kiln builder …`.
#[derive(Debug, Subcommand)]
pub enum BuilderCommand {
    /// Build an image from a Dockerfile
    Build(Box<build::BuildArgs>),
    /// Remove what no image needs
    Prune(PruneArgs),
    /// Show what takes space in the store
    Du(DiskArgs),
}

impl BuilderCommand {
    /// Returns the command under its short name.
    pub fn flat(self) -> Command {
        match self {
            Self::Build(args) => Command::Build(args),
            Self::Prune(args) => {
                Command::System(SystemCommand::Prune(PruneArgs { what: PruneWhat::Cache, ..args }))
            }
            Self::Du(args) => Command::System(SystemCommand::Df(args)),
        }
    }
}

/// The arguments of `kiln system df`.
#[derive(Debug, Args)]
pub struct DiskArgs {
    /// Every image and record by itself
    #[arg(short, long)]
    pub verbose: bool,
    /// How to write it
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
}

/// The arguments of `kiln system prune`.
#[derive(Debug, Args, Default)]
pub struct PruneArgs {
    /// The whole cache, and images no container uses
    #[arg(short, long)]
    pub all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// Only some: `until=24h`, and for images `label=NAME[=VALUE]`, `label!=NAME[=VALUE]`, for the cache `id=START`, `description=TEXT`
    #[arg(long = "filter", value_name = "FILTER")]
    pub filters: Vec<String>,
    /// Keep no more than so much of the cache; what was not used for the longest time goes first
    #[arg(long, value_name = "BYTES", value_parser = size)]
    pub max_used_space: Option<u64>,
    /// Remove until so much of the disk is free
    #[arg(long, value_name = "BYTES", value_parser = size)]
    pub min_free_space: Option<u64>,
    /// Keep so much of the cache in any case
    #[arg(long, alias = "keep-storage", value_name = "BYTES", value_parser = size)]
    pub reserved_space: Option<u64>,
    /// What to look at.
    #[arg(skip)]
    pub what: PruneWhat,
}

/// What a prune looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PruneWhat {
    /// Everything.
    #[default]
    Everything,
    /// Images without a name.
    Images,
    /// Results of steps.
    Cache,
}

/// The arguments of `kiln system check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Take away what is damaged, so that the next build makes it again
    #[arg(long)]
    pub repair: bool,
    /// How to write it
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
}

/// The arguments of `kiln system reset`.
#[derive(Debug, Args)]
pub struct ResetArgs {
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
}

/// The arguments of `kiln logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The build, as the list of them names it [default: the last one]; or a container in the background
    #[arg(value_name = "BUILD|CONTAINER")]
    pub of: Option<String>,
    /// Go on with what a container writes, until it ends
    #[arg(short, long)]
    pub follow: bool,
    /// Only so many lines of a container, the last ones
    #[arg(short = 'n', long, value_name = "LINES")]
    pub tail: Option<String>,
    /// List the builds whose logs are kept
    #[arg(short, long)]
    pub list: bool,
    /// Only steps whose name has this text in it
    #[arg(long, value_name = "TEXT")]
    pub step: Option<String>,
    /// It was asked as `kiln container logs`.
    #[arg(skip)]
    pub is_container: bool,
}

/// The arguments of `kiln info`.
#[derive(Debug, Args)]
pub struct InfoArgs {
    /// How to write it
    #[arg(short, long, value_enum, default_value = "text")]
    pub format: Format,
}

/// The arguments of `kiln version`.
#[derive(Debug, Args)]
pub struct VersionArgs {
    /// How to write it
    #[arg(short, long, value_enum, default_value = "text")]
    pub format: Format,
}

/// The arguments of `kiln completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}
