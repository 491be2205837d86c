//! Images of the store: list, show, name, remove, save, load.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Command, build, registry, system};

/// The arguments of `kiln images`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only images of this name
    #[arg(value_name = "NAME[:TAG]")]
    pub name: Option<String>,
    /// Images without a name as well
    #[arg(short, long)]
    pub all: bool,
    /// Show ids only
    #[arg(short, long)]
    pub quiet: bool,
    /// Show whole ids
    #[arg(long)]
    pub no_trunc: bool,
    /// Show digests
    #[arg(long)]
    pub digests: bool,
    /// Only some: `reference=PATTERN`, `label=NAME[=VALUE]`, `dangling=true|false`, `before=IMAGE`, `since=IMAGE`, `until=24h`
    #[arg(short, long = "filter", value_name = "FILTER")]
    pub filters: Vec<String>,
    /// `table`, `json`, or a template such as `{{.Repository}}:{{.Tag}}`
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
}

/// The arguments of `kiln inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Images, by name, id or start of an id
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
    /// `json`, or a template such as `{{.Config.User}}`
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Only `image` is known
    #[arg(long = "type", value_name = "TYPE", hide = true, value_parser = ["image"])]
    pub kind: Option<String>,
}

/// The arguments of `kiln history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// The image
    pub image: String,
    /// Show ids only
    #[arg(short, long)]
    pub quiet: bool,
    /// Show instructions in full
    #[arg(long)]
    pub no_trunc: bool,
    /// Sizes and times for people
    #[arg(short = 'H', long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_missing_value = "true", value_parser = crate::values::boolean)]
    pub human: bool,
    /// `table`, `json`, or a template such as `{{.CreatedBy}}`
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
}

/// The arguments of `kiln tag`.
#[derive(Debug, Args)]
pub struct TagArgs {
    /// The image
    #[arg(value_name = "IMAGE")]
    pub source: String,
    /// The new name
    #[arg(value_name = "NAME[:TAG]")]
    pub target: String,
}

/// The arguments of `kiln rmi`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// The images, by name, id or start of an id
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
    /// Remove all names of an id, and do not complain of what is not there
    #[arg(short, long)]
    pub force: bool,
    /// Layers without an image are removed by `kiln system prune`.
    #[arg(long, hide = true)]
    pub no_prune: bool,
}

/// The arguments of `kiln save`.
#[derive(Debug, Args)]
pub struct SaveArgs {
    /// The images
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
    /// The file to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Which archive to write: `docker` (readable as OCI too), or `oci` without docker's manifest.json
    #[arg(long, value_enum, hide_possible_values = true, default_value = "docker")]
    pub format: ArchiveFormat,
    /// Which platform of the image
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
}

/// Which archive to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ArchiveFormat {
    /// For `docker load` and for tools that read OCI archives.
    Docker,
    /// For tools that read OCI archives.
    Oci,
}

/// The arguments of `kiln load`.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// The archive, or a directory with an OCI layout [default: standard input]
    #[arg(short, long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Print names only
    #[arg(short, long)]
    pub quiet: bool,
    /// Which platform of the image
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
}

/// The arguments of `kiln image prune`.
#[derive(Debug, Args)]
pub struct ImagePruneArgs {
    /// Images with a name as well
    #[arg(short, long)]
    pub all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// Only some: `until=24h`, `label=NAME[=VALUE]`, `label!=NAME[=VALUE]`, `dangling=true|false`
    #[arg(long = "filter", value_name = "FILTER")]
    pub filters: Vec<String>,
}

/// `kiln image …`.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// List images
    #[command(alias = "list")]
    Ls(ListArgs),
    /// Build an image from a Dockerfile
    Build(Box<build::BuildArgs>),
    /// Show all that is known of an image, as JSON
    Inspect(InspectArgs),
    /// Show how an image came to be
    History(HistoryArgs),
    /// Give an image another name
    Tag(TagArgs),
    /// Remove images
    #[command(alias = "remove")]
    Rm(RemoveArgs),
    /// Write images to an archive
    Save(SaveArgs),
    /// Read images from an archive
    Load(LoadArgs),
    /// Download an image from a registry
    Pull(registry::PullArgs),
    /// Upload an image to a registry
    Push(registry::PushArgs),
    /// Remove images without a name
    Prune(ImagePruneArgs),
}

impl ImageCommand {
    /// Returns the command under its short name.
    pub fn flat(self) -> Command {
        match self {
            Self::Ls(args) => Command::Images(args),
            Self::Build(args) => Command::Build(args),
            Self::Inspect(args) => Command::Inspect(args),
            Self::History(args) => Command::History(args),
            Self::Tag(args) => Command::Tag(args),
            Self::Rm(args) => Command::Rmi(args),
            Self::Save(args) => Command::Save(args),
            Self::Load(args) => Command::Load(args),
            Self::Pull(args) => Command::Pull(args),
            Self::Push(args) => Command::Push(args),
            Self::Prune(args) => Command::System(system::SystemCommand::Prune(system::PruneArgs {
                all: args.all,
                force: args.force,
                filters: args.filters,
                what: system::PruneWhat::Images,
                ..system::PruneArgs::default()
            })),
        }
    }
}
