//! Registries: pull, push, log in and out.

use clap::Args;

/// The arguments of `kiln pull`.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// The image
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    pub image: String,
    /// Which platform of the image
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// Print the name only
    #[arg(short, long)]
    pub quiet: bool,
    /// Every tag of the repository
    #[arg(short, long)]
    pub all_tags: bool,
}

/// The arguments of `kiln push`.
#[derive(Debug, Args)]
pub struct PushArgs {
    /// The image
    #[arg(value_name = "NAME[:TAG]")]
    pub image: String,
    /// Push under this name instead
    #[arg(value_name = "DESTINATION")]
    pub destination: Option<String>,
    /// Which platform of the image
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// Print the digest only
    #[arg(short, long)]
    pub quiet: bool,
    /// Every tag of the repository
    #[arg(short, long)]
    pub all_tags: bool,
}

/// The arguments of `kiln login`.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// The registry [default: docker.io]
    #[arg(value_name = "REGISTRY")]
    pub registry: Option<String>,
    /// User name
    #[arg(short, long, value_name = "NAME")]
    pub username: Option<String>,
    /// Password; other users of this machine can see it, so better use --password-stdin
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    pub password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    pub password_stdin: bool,
}

/// The arguments of `kiln logout`.
#[derive(Debug, Args)]
pub struct LogoutArgs {
    /// The registry [default: docker.io]
    #[arg(value_name = "REGISTRY")]
    pub registry: Option<String>,
}
