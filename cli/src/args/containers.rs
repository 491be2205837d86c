//! Containers: list, end, remove.

use clap::{Args, Subcommand};

use super::{Command, run, system};

/// The arguments of `kiln ps`.
#[derive(Debug, Args)]
pub struct PsArgs {
    /// Those that have ended as well
    #[arg(short, long)]
    pub all: bool,
    /// Show ids only
    #[arg(short, long)]
    pub quiet: bool,
    /// Show ids and commands in full
    #[arg(long)]
    pub no_trunc: bool,
    /// Only some: `name=TEXT`, `id=START`, `label=NAME[=VALUE]`, `ancestor=IMAGE`, `status=running|exited`
    #[arg(short, long = "filter", value_name = "FILTER")]
    pub filters: Vec<String>,
    /// `table`, `json`, or a template such as `{{.ID}} {{.Names}}`
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
}

/// The arguments of `kiln rm`.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// The containers, by name, id or start of an id
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
    /// End those that run
    #[arg(short, long)]
    pub force: bool,
    /// The volumes of an image go with the container in any case.
    #[arg(short, long, hide = true)]
    pub volumes: bool,
}

/// The arguments of `kiln stop`.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// The containers, by name, id or start of an id
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
    /// The signal to send [default: that of `--stop-signal` or STOPSIGNAL, else TERM]
    #[arg(short, long, value_name = "SIGNAL")]
    pub signal: Option<String>,
    /// So many seconds the command has to end by itself, -1 for ever [default: that of `--stop-timeout`, else 10]
    #[arg(short, long, alias = "time", value_name = "SECONDS", allow_hyphen_values = true)]
    pub timeout: Option<i64>,
}

/// The arguments of `kiln kill`.
#[derive(Debug, Args)]
pub struct KillArgs {
    /// The containers, by name, id or start of an id
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
    /// The signal to send
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    pub signal: String,
}

/// The arguments of `kiln container prune`.
#[derive(Debug, Args)]
pub struct ContainerPruneArgs {
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
}

/// `kiln container …`.
#[derive(Debug, Subcommand)]
pub enum ContainerCommand {
    /// List containers
    #[command(aliases = ["list", "ps"])]
    Ls(PsArgs),
    /// Run a command in a new container
    Run(Box<run::RunArgs>),
    /// Remove containers that have ended
    #[command(alias = "remove")]
    Rm(RmArgs),
    /// Ask containers to end, and end them
    Stop(StopArgs),
    /// Send a signal to containers
    Kill(KillArgs),
    /// Show what a container in the background has written
    Logs(system::LogsArgs),
    /// Remove all containers that have ended
    Prune(ContainerPruneArgs),
}

impl ContainerCommand {
    /// Returns the command under its short name, if it has one.
    pub fn flat(self) -> Command {
        match self {
            Self::Ls(args) => Command::Ps(args),
            Self::Run(args) => Command::Run(args),
            Self::Rm(args) => Command::Rm(args),
            Self::Stop(args) => Command::Stop(args),
            Self::Kill(args) => Command::Kill(args),
            Self::Logs(args) => Command::Logs(system::LogsArgs { is_container: true, ..args }),
            Self::Prune(args) => Command::Container(Self::Prune(args)),
        }
    }
}
