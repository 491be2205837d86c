//! What is done with a Dockerfile besides building it.

use clap::{Args, ValueEnum};

use super::build::BuildArgs;
use crate::values::Format;

/// The arguments of `kiln plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// How it is written: `text`, `json`, `svg` for a drawing, or `dot` for Graphviz
    #[arg(
        long,
        value_enum,
        default_value = "text",
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub format: PlanFormat,
    /// Those of `kiln build`.
    #[command(flatten)]
    pub build: BuildArgs,
}

/// How a plan is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PlanFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// For Graphviz.
    Dot,
    /// As a drawing.
    Svg,
}

/// The arguments of `kiln explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// An image that was built here; `last` is the last build, whatever became of it
    #[arg(value_name = "IMAGE|last", default_value = "last", hide_default_value = true)]
    pub image: String,
    /// How to write it
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
}

/// The arguments of `kiln fmt`.
#[derive(Debug, Args)]
pub struct FmtArgs {
    /// Dockerfiles; `-` is standard input
    #[arg(value_name = "FILE", default_value = "Dockerfile")]
    pub files: Vec<String>,
    /// Write the files instead of printing them
    #[arg(short, long)]
    pub write: bool,
    /// Write nothing, print the names of files that would change; the status is 1 if there are any
    #[arg(long, conflicts_with = "write")]
    pub check: bool,
}
