//! The command line: what may be written, as types. Docker's words for docker's things.
//!
//! Only shapes are checked here; names of images and platforms, files and the environment are looked up by the commands.
//!
//! 1. [`build`] — `kiln build`.
//! 2. [`dockerfile`] — `kiln plan`, `kiln explain` and `kiln fmt`.
//! 3. [`run`] — `kiln run`.
//! 4. [`containers`], [`images`], [`registry`], [`system`] — the rest.
//! 5. [`refused`] — options and commands of docker that are known and not there yet.
//! 6. [`tail`] — where the options of `kiln run` end; `mistake`, what is said of a line that is wrong.

pub mod build;
pub mod containers;
pub mod dockerfile;
pub mod images;
pub mod limits;
mod mistake;
pub mod refused;
pub mod registry;
pub mod run;
pub mod system;
pub mod tail;

use std::{ffi::OsString, path::PathBuf};

use clap::{
    ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::values::{LayerLimit, boolean, layer_limit::layer_limit};

/// Builds container images from Dockerfiles, runs them, and ships them. No daemon, no root.
#[derive(Debug, Parser)]
#[command(name = "kiln", version, max_term_width = 110, disable_version_flag = true)]
pub struct Cli {
    /// What goes with every command.
    #[command(flatten)]
    pub globals: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The options of every command.
#[derive(Debug, Args)]
pub struct GlobalArgs {
    /// Directory of the store [default: $KILN_ROOT, else /var/lib/kiln for root and ~/.local/share/kiln]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub root: Option<PathBuf>,
    /// How much a layer or an archive may hold: `entries=NUMBER`, `bytes=SIZE`, `ratio=NUMBER`, `memory=SIZE`
    #[arg(long = "limit", global = true, value_name = "NAME=VALUE", value_parser = layer_limit, help_heading = "Global options")]
    pub limits: Vec<LayerLimit>,
    /// Print the version
    #[arg(short = 'v', short_alias = 'V', long, action = ArgAction::Version)]
    pub version: Option<bool>,
    /// What docker has besides.
    #[command(flatten)]
    pub refused: refused::Refused<refused::Global>,
}

/// A command line of `kiln build` alone: to define all other commands takes longer than many a build.
#[derive(Debug, Parser)]
#[command(name = "kiln", version, disable_version_flag = true)]
struct BuildLine {
    #[command(flatten)]
    globals: GlobalArgs,
    #[command(subcommand)]
    command: BuildCommand,
}

#[derive(Debug, Subcommand)]
enum BuildCommand {
    Build(Box<build::BuildArgs>),
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build an image from a Dockerfile
    Build(Box<build::BuildArgs>),
    /// Show what a build would do
    Plan(Box<dockerfile::PlanArgs>),
    /// Say why the steps of a build ran again
    Explain(dockerfile::ExplainArgs),
    /// Format Dockerfiles
    Fmt(dockerfile::FmtArgs),
    /// Run a command in a new container
    Run(Box<run::RunArgs>),
    /// List containers
    Ps(containers::PsArgs),
    /// Ask containers to end, and end them
    Stop(containers::StopArgs),
    /// Send a signal to containers
    Kill(containers::KillArgs),
    /// Remove containers that have ended
    Rm(containers::RmArgs),
    /// List images
    Images(images::ListArgs),
    /// Show all that is known of an image, as JSON
    Inspect(images::InspectArgs),
    /// Show how an image came to be
    History(images::HistoryArgs),
    /// Give an image another name
    Tag(images::TagArgs),
    /// Remove images
    Rmi(images::RemoveArgs),
    /// Write images to an archive
    Save(images::SaveArgs),
    /// Read images from an archive
    Load(images::LoadArgs),
    /// Download an image from a registry
    Pull(registry::PullArgs),
    /// Upload an image to a registry
    Push(registry::PushArgs),
    /// Log in to a registry
    Login(registry::LoginArgs),
    /// Log out of a registry
    Logout(registry::LogoutArgs),
    /// Show the logs of the steps of a build again, or what a container in the background writes
    Logs(system::LogsArgs),
    /// Show and clean the store
    #[command(subcommand)]
    System(system::SystemCommand),
    /// Show what takes space in the store, and who needs it
    Du(system::DiskArgs),
    /// Show what this machine lets kiln do
    Info(system::InfoArgs),
    /// Show the version
    Version(system::VersionArgs),
    /// Write a completion script for a shell
    Completions(system::CompletionsArgs),
    /// Work with images: the commands above under docker's other names
    #[command(subcommand)]
    Image(images::ImageCommand),
    /// Work with containers: the commands above under docker's other names
    #[command(subcommand)]
    Container(containers::ContainerCommand),
    /// Docker's other name for builds and their cache
    #[command(subcommand, hide = true, alias = "buildx")]
    Builder(system::BuilderCommand),
}

impl Command {
    /// Returns the command that docker's longer form stands for.
    pub fn flat(self) -> Self {
        match self {
            Self::Image(command) => command.flat(),
            Self::Container(command) => command.flat(),
            Self::Builder(command) => command.flat(),
            Self::Du(args) => Self::System(system::SystemCommand::Df(args)),
            other => other,
        }
    }
}

/// Parses a command line, program name first.
///
/// # Errors
///
/// Returns clap's error, which also is how help and version are asked for.
pub fn parse(args: &[OsString]) -> Result<Cli, clap::Error> {
    match build_line(args) {
        Some(cli) => Ok(cli),
        None => parse_any(args),
    }
}

/// Parses the line of a build, if it is one and nothing is wrong with it. About any other there may be more to say.
fn build_line(args: &[OsString]) -> Option<Cli> {
    if !args.iter().any(|it| it == "build") {
        return None;
    }
    let matches = switches(BuildLine::command()).try_get_matches_from(args).ok()?;
    let BuildLine { globals, command: BuildCommand::Build(args) } =
        BuildLine::from_arg_matches(&matches).ok()?;
    Some(Cli { globals, command: Command::Build(args) })
}

fn parse_any(args: &[OsString]) -> Result<Cli, clap::Error> {
    let mut built = definition();
    built.build();
    if let Some(name) = tail::subcommand(&built, args) {
        refused::command(&args[name..])?;
    }
    let all = args;
    let (args, tail) = tail::split(&built, args);
    let parsed = built.clone().try_get_matches_from(args);
    let parsed = parsed.and_then(|it| Cli::from_arg_matches(&it));
    match parsed {
        // The help of the plain command does not show the `=true` that nobody writes.
        Err(error) if error.kind() == ErrorKind::DisplayHelp => {
            match Cli::command().try_get_matches_from(args) {
                Err(plain) if plain.kind() == ErrorKind::DisplayHelp => Err(plain),
                _ => Err(error),
            }
        }
        Ok(mut cli) => {
            if let Some(tail) = tail
                && let Command::Run(args)
                | Command::Container(containers::ContainerCommand::Run(args)) = &mut cli.command
            {
                args.command = tail.to_vec();
            }
            Ok(cli)
        }
        Err(error) if is_without_context(&error) => {
            refused::option::<refused::Build>(args)?;
            let text = "there is no PATH to build from\nhint: add `.` for this folder, as in `kiln build -t app .`\n";
            Err(clap::Error::raw(ErrorKind::MissingRequiredArgument, text))
        }
        Err(error) => Err(mistake::reworded(error, &built, all)),
    }
}

fn is_without_context(error: &clap::Error) -> bool {
    error.kind() == ErrorKind::MissingRequiredArgument
        && matches!(error.get(ContextKind::InvalidArg),
            Some(ContextValue::Strings(names)) if names.iter().any(|it| it == "<PATH|URL|->"))
}

/// Whether a command line, program name first, is one of `kiln run`.
pub fn is_run(args: &[OsString]) -> bool {
    let mut built = definition();
    built.build();
    tail::subcommand(&built, args).is_some_and(|name| {
        let place = if args[name] == "container" { name + 1 } else { name };
        args.get(place).is_some_and(|it| it == "run")
    })
}

fn definition() -> clap::Command {
    switches(Cli::command())
}

/// Lets every switch be written `--name`, `--name=true` and `--name=false`, as docker's may.
fn switches(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|arg| match arg.get_action() {
        ArgAction::SetTrue => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .default_value("false")
            .hide_default_value(true)
            .value_name("BOOL")
            .value_parser(boolean)
            .overrides_with_all(Vec::<clap::Id>::new()),
        _ => arg,
    });
    command.mut_subcommands(switches)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        parse(&args).map(|it| it.command.flat()).map_err(|it| it.to_string())
    }

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
        switches(Cli::command()).debug_assert();
    }

    #[test]
    fn switches_take_a_value_as_in_docker() {
        let build = |line: &str| match parsed(line) {
            Ok(Command::Build(args)) => args,
            other => panic!("{line}: {other:?}"),
        };
        assert!(build("kiln build --no-cache .").no_cache);
        assert!(build("kiln build --no-cache=true .").no_cache);
        assert!(!build("kiln build --no-cache=0 .").no_cache);
        assert!(!build("kiln build .").no_cache);
        assert!(build("kiln build -q .").quiet);
        assert!(build("kiln image build --pull --push .").push);
        assert!(parsed("kiln build --no-cache=maybe .").is_err());
    }

    #[test]
    fn the_line_of_a_build_means_the_same_without_the_other_commands() {
        for (line, is_build) in [
            ("kiln build .", true),
            ("kiln --root x build -t a:1 --no-cache=0 .", true),
            (
                "kiln build --root=x --build-arg A=1 -f F -o type=oci,dest=x --limit bytes=1g -",
                true,
            ),
            ("kiln build -q --progress plain --target t --platform linux/arm64 ctx", true),
            ("kiln --limit entries=5 build --provenance=false --secret id=a,src=b -qt x ..", true),
            // The long way has something to say of these, or they are of another command.
            ("kiln build", false),
            ("kiln build --help", false),
            ("kiln --version build .", false),
            ("kiln build --frob .", false),
            ("kiln build --cache-to x .", false),
            ("kiln --context x build .", false),
            ("kiln build . more", false),
            ("kiln image build .", false),
            ("kiln run build .", false),
            ("kiln run --name build image", false),
            ("kiln help build", false),
        ] {
            let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            let short = build_line(&args);
            assert_eq!(short.is_some(), is_build, "{line}");
            if let Some(short) = short {
                let long = parse_any(&args).expect("it is right");
                assert_eq!(format!("{short:?}"), format!("{long:?}"), "{line}");
            }
        }
    }

    #[test]
    fn what_is_not_there_yet_is_refused_by_name() {
        let message = parsed("kiln build --cache-to type=local,dest=x .").expect_err("refused");
        assert!(message.contains("--cache-to"), "{message}");
        let message = parsed("kiln build --no-cach .").expect_err("unknown");
        assert!(message.contains("--no-cache"), "{message}");
        assert!(parsed("kiln build --provenance=false --sbom=false .").is_ok());
        assert!(parsed("kiln build --provenance=mode=max --attest type=provenance .").is_ok());
        assert!(parsed("kiln build --sbom=true .").is_err());
    }

    fn run(line: &str) -> run::RunArgs {
        match parsed(line) {
            Ok(Command::Run(args)) => *args,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn what_follows_the_image_belongs_to_the_process() {
        let args = run("kiln run -it --rm -e A=1 app sh -c -x --rm=no");
        assert!(args.interactive && args.tty && args.rm);
        assert_eq!(args.command, ["sh", "-c", "-x", "--rm=no"]);
        for tail in [
            "-e A=1 x",
            "--help",
            "-h",
            "--root /x",
            "--",
            "-- x",
            "--privileged",
            "-d",
            "--no-such",
            "",
        ] {
            let args = run(&format!("kiln run --rm app {tail}"));
            assert_eq!(args.image, "app");
            assert!(args.env.is_empty() && !args.privileged);
            assert_eq!(args.command.join(std::ffi::OsStr::new(" ")), tail, "{tail}");
        }
    }

    #[test]
    fn h_is_the_host_name_of_a_container() {
        assert_eq!(run("kiln run -h box app").hostname.as_deref(), Some("box"));
        assert_eq!(run("kiln run --hostname box app -h x").hostname.as_deref(), Some("box"));
        assert!(parsed("kiln run --help").expect_err("help").contains("--hostname"));
        assert!(parsed("kiln build -h").expect_err("help").contains("--build-arg"));
    }

    #[test]
    fn commands_of_docker_that_are_not_there_say_so() {
        for (line, word) in [
            ("kiln attach y", "kiln run -d"),
            ("kiln --root x start y", "kiln run -d"),
            ("kiln exec -it app sh", "kiln run"),
            ("kiln container exec app", "kiln run"),
            ("kiln buildx create --use", "builder"),
            ("kiln volume ls", "-v"),
            ("kiln network create x", "--network"),
            ("kiln compose up", "compose"),
        ] {
            let message = parsed(line).expect_err("refused");
            assert!(message.contains("not supported") && message.contains(word), "{message}");
            assert!(!message.contains("tip:"), "{message}");
        }
        for option in ["cidfile", "log-driver"] {
            let message = parsed(&format!("kiln run --{option} x app")).expect_err("refused");
            assert!(message.contains(&format!("`--{option}`")), "{message}");
        }
    }
}
