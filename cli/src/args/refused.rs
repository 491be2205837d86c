//! Options and commands that docker has and kiln has not yet: refused by name, with what to do instead.
//!
//! They are data, so that a test can walk them. An option that comes to life leaves its table.

use std::{ffi::OsString, marker::PhantomData};

use clap::{
    Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, error::ErrorKind,
    parser::ValueSource,
};

/// An option that is refused.
#[derive(Debug, Clone, Copy)]
pub struct RefusedOption {
    /// Its name without `--`.
    pub name: &'static str,
    /// Its one-letter form.
    pub short: Option<char>,
    /// It is followed by a value.
    pub takes_value: bool,
    /// What to do instead.
    pub hint: &'static str,
}

/// The options of one command that are refused.
pub trait Table {
    /// They.
    const OPTIONS: &'static [RefusedOption];
}

/// Stands in a struct of arguments for the options of table `T`. Never holds anything: an option given is an error.
#[derive(Debug, Clone, Copy)]
pub struct Refused<T>(PhantomData<T>);

const fn value(name: &'static str, hint: &'static str) -> RefusedOption {
    RefusedOption { name, short: None, takes_value: true, hint }
}

const fn flag(name: &'static str, hint: &'static str) -> RefusedOption {
    RefusedOption { name, short: None, takes_value: false, hint }
}

const CACHE: &str =
    "the store keeps its own cache; a cache shared through a registry or folder comes later";
const LIMITS: &str = "use `--memory`, `--cpus` and the like";
const DAEMON: &str = "kiln needs no builder and no daemon; leave the option away";

/// `kiln build`.
#[derive(Debug, Clone, Copy)]
pub struct Build;

impl Table for Build {
    const OPTIONS: &'static [RefusedOption] = &[
        value("attest", "kiln writes no attestations yet; leave the option away"),
        value("builder", DAEMON),
        value("cache-from", CACHE),
        value("cache-to", CACHE),
        value("policy", "source policies are not there yet; pin images by digest instead"),
        value("resource", LIMITS),
        value("security-opt", "every RUN has docker's default hardening"),
        flag("squash", "write a multi-stage Dockerfile and COPY the result into the last stage"),
        flag("compress", "there is no daemon to send the context to; leave the option away"),
    ];
}

const BACKGROUND: &str = "containers run in the foreground so far; use your shell's `&`";
const PORTS: &str = "containers share the host's network so far, so the port is there already; leave the option away";
const STREAMS: &str = "output and signals are passed on in any case, and input with `-i`";
const DEVICES: &str =
    "devices are docker's default set so far; `--privileged` gives all of the machine's";
const NAMESPACES: &str =
    "namespaces are the container's own, but for the network; leave the option away";
const RESOLVER: &str = "mount a file of your own with `-v FILE:/etc/resolv.conf:ro`";

/// `kiln run`.
#[derive(Debug, Clone, Copy)]
pub struct Run;

impl Table for Run {
    const OPTIONS: &'static [RefusedOption] = &[
        RefusedOption { name: "detach", short: Some('d'), takes_value: false, hint: BACKGROUND },
        RefusedOption { name: "publish", short: Some('p'), takes_value: true, hint: PORTS },
        RefusedOption { name: "publish-all", short: Some('P'), takes_value: false, hint: PORTS },
        RefusedOption { name: "attach", short: Some('a'), takes_value: true, hint: STREAMS },
        value("cidfile", "name the container with `--name`"),
        value("log-driver", "output goes to the standard output and error of kiln; redirect those"),
        value("log-opt", "output goes to the standard output and error of kiln; redirect those"),
        value("restart", BACKGROUND),
        value("sig-proxy", STREAMS),
        value("detach-keys", STREAMS),
        value("device", DEVICES),
        value("gpus", DEVICES),
        value("cgroupns", NAMESPACES),
        value("ipc", NAMESPACES),
        value("pid", NAMESPACES),
        value("userns", NAMESPACES),
        value("uts", NAMESPACES),
        value("dns", RESOLVER),
        value("dns-option", RESOLVER),
        value("dns-search", RESOLVER),
        value("ip", PORTS),
        value("link", PORTS),
        value("mac-address", PORTS),
        value("network-alias", PORTS),
        value("group-add", "use `--user NAME:GROUP`, or put the user into the groups of the image"),
        value("health-cmd", "health checks are not run yet; leave the option away"),
        value("stop-signal", "a signal that kiln gets is passed on; send the one you want"),
        value("sysctl", "the kernel's settings are those of the machine; set it there"),
        value("volumes-from", "name the paths with `-v SOURCE:TARGET`"),
    ];
}

const CONTAINERS: &str = "containers run in the foreground so far and end with their process; \
    `kiln run` starts one, Ctrl-C ends it, and the shell's `&` puts it into the background";
const FILES: &str =
    "copy files with `-v` in `kiln run`, or take those of an image with `kiln build -o DIR`";
const CLUSTER: &str = "kiln runs containers on this machine only";

/// The commands of docker that are not there, each with what to do instead.
const COMMANDS: &[(&[&str], &str)] = &[
    (
        &[
            "ps", "attach", "create", "kill", "pause", "port", "rename", "restart", "rm", "start",
            "stats",
        ],
        CONTAINERS,
    ),
    (&["stop", "top", "unpause", "update", "wait"], CONTAINERS),
    (&["exec"], "start a second container of the image with `kiln run`"),
    (
        &["container"],
        "containers run in the foreground so far; start one with `kiln run`, clean up with `kiln system prune`",
    ),
    (&["commit", "diff"], "write the change into a Dockerfile and use `kiln build`"),
    (&["cp", "export"], FILES),
    (&["import"], "use a Dockerfile with `FROM scratch` and `ADD FILE.tar /`"),
    (&["compose"], "there is no compose yet; start each container with `kiln run`"),
    (
        &["network"],
        "containers have the machine's network so far, or none with `kiln run --network none`",
    ),
    (
        &["volume"],
        "there are no named volumes; show a folder of the machine with `kiln run -v FOLDER:PATH`",
    ),
    (&["bake"], "start each build with `kiln build`"),
    (&["search"], "search on the registry's own site"),
    (&["events", "context", "daemon"], "there is no daemon"),
    (
        &["manifest", "trust", "plugin", "scout"],
        "build and push images with `kiln build --platform … --push`",
    ),
    (&["swarm", "service", "stack", "node", "config", "secret", "checkpoint"], CLUSTER),
];

/// Refuses what `args` start with, if it is a command of docker that is not there.
///
/// # Errors
///
/// Returns what to say.
pub fn command(args: &[OsString]) -> Result<(), clap::Error> {
    let Some(name) = args.first().and_then(|it| it.to_str()) else { return Ok(()) };
    let Some((_, hint)) = COMMANDS.iter().find(|(names, _)| names.contains(&name)) else {
        return Ok(());
    };
    let text = format!("command `{name}` is not supported\nhint: {hint}\n");
    Err(clap::Error::raw(ErrorKind::InvalidSubcommand, text))
}

impl<T: Table> Args for Refused<T> {
    fn augment_args(command: Command) -> Command {
        T::OPTIONS.iter().fold(command, |command, option| {
            let arg = Arg::new(option.name).long(option.name).hide(true);
            let arg = match option.short {
                Some(short) => arg.short(short),
                None => arg,
            };
            command.arg(if option.takes_value {
                arg.action(ArgAction::Append)
            } else {
                arg.action(ArgAction::SetTrue)
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<T: Table> FromArgMatches for Refused<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        for option in T::OPTIONS {
            if matches.value_source(option.name) == Some(ValueSource::CommandLine) {
                let text =
                    format!("option `--{}` is not supported\nhint: {}\n", option.name, option.hint);
                return Err(clap::Error::raw(ErrorKind::UnknownArgument, text));
            }
        }
        Ok(Self(PhantomData))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        Self::from_arg_matches(matches).map(|_| ())
    }
}
