//! Options and commands that docker has and kiln has not yet: refused by name, with what to do instead. For those who come from kaniko its
//! options are here, too.
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
const UNSIGNED: &str = "signatures are not looked at; leave the option away";
const DIGEST: &str =
    "use `--metadata-file FILE`, which has it as `containerimage.digest`; `kiln push -q` prints it";
const HTTP: &str = "set `http = true` in the table `[registry.\"HOST\"]` of kiln's config.toml";
const TLS: &str = "set `insecure = true`, or better `ca`, in the table `[registry.\"HOST\"]` of kiln's config.toml";
const RETRIES: &str = "kiln tries again by itself; leave the option away";
const SNAPSHOTS: &str = "what a step changed is known without a search; leave the option away";
const STORE: &str = "the cache is on, and lies in the store: KILN_ROOT or `--root` say where";
const LOGGING: &str = "use `--progress plain`, `rawjson` or `quiet`";

/// Those of docker before the command.
#[derive(Debug, Clone, Copy)]
pub struct Global;

impl Table for Global {
    const OPTIONS: &'static [RefusedOption] = &[
        RefusedOption { name: "host", short: Some('H'), takes_value: true, hint: DAEMON },
        RefusedOption { name: "context", short: Some('c'), takes_value: true, hint: DAEMON },
        RefusedOption { name: "debug", short: Some('D'), takes_value: false, hint: LOGGING },
        RefusedOption { name: "log-level", short: Some('l'), takes_value: true, hint: LOGGING },
        value(
            "config",
            "set DOCKER_CONFIG to the folder with docker's `config.json`, KILN_CONFIG to kiln's file",
        ),
        flag("tls", DAEMON),
        flag("tlsverify", DAEMON),
        value("tlscacert", DAEMON),
        value("tlscert", DAEMON),
        value("tlskey", DAEMON),
    ];
}

/// `kiln build`.
#[derive(Debug, Clone, Copy)]
pub struct Build;

impl Table for Build {
    const OPTIONS: &'static [RefusedOption] = &[
        value("builder", DAEMON),
        value("cache-from", CACHE),
        value("cache-to", CACHE),
        value("policy", "source policies are not there yet; pin images by digest instead"),
        value("resource", LIMITS),
        value("security-opt", "every RUN has docker's default hardening"),
        flag("squash", "write a multi-stage Dockerfile and COPY the result into the last stage"),
        flag("compress", "there is no daemon to send the context to; leave the option away"),
        flag("disable-content-trust", UNSIGNED),
        RefusedOption { name: "debug", short: Some('D'), takes_value: false, hint: LOGGING },
        // Those of kaniko, for whom docs/ci.md is.
        value("context", "name it as the last word: `kiln build FOLDER`"),
        value("context-sub-path", "name the folder itself, or `URL#BRANCH:FOLDER`"),
        value("git", "name the branch in the URL: `URL#BRANCH`"),
        value("dockerfile", "use `-f FILE`"),
        value(
            "destination",
            "use `-t NAME --push`, or `-t NAME` alone for an image that stays here",
        ),
        flag("no-push", "nothing is pushed without `--push`; leave the option away"),
        value("tar-path", "use `-o type=docker,dest=FILE`"),
        value("tarPath", "use `-o type=docker,dest=FILE`"),
        value("oci-layout-path", "use `-o type=oci,tar=false,dest=FOLDER`"),
        value("digest-file", DIGEST),
        value("image-name-with-digest-file", DIGEST),
        value("image-name-tag-with-digest-file", DIGEST),
        flag("cache", STORE),
        value("cache-dir", STORE),
        flag("cache-copy-layers", STORE),
        flag("cache-run-layers", STORE),
        value("cache-repo", CACHE),
        value("cache-ttl", "set `keep-duration` in the table `[gc]` of kiln's config.toml"),
        value("snapshot-mode", SNAPSHOTS),
        value("snapshotMode", SNAPSHOTS),
        flag("use-new-run", SNAPSHOTS),
        flag(
            "single-snapshot",
            "write a multi-stage Dockerfile and COPY the result into the last stage",
        ),
        value("ignore-path", "mount something over it: `RUN --mount=type=tmpfs,target=PATH`"),
        value("custom-platform", "use `--platform`"),
        flag(
            "skip-unused-stages",
            "stages that are not needed are never built; leave the option away",
        ),
        flag("insecure", HTTP),
        flag("insecure-pull", HTTP),
        value("insecure-registry", HTTP),
        flag("skip-tls-verify", TLS),
        flag("skip-tls-verify-pull", TLS),
        value("skip-tls-verify-registry", TLS),
        value("registry-certificate", TLS),
        value(
            "registry-mirror",
            "set `mirrors` in the table `[registry.\"docker.io\"]` of kiln's config.toml",
        ),
        value("push-retry", RETRIES),
        value("image-fs-extract-retry", RETRIES),
        value("image-download-retry", RETRIES),
        value("compression", "use `-o type=image,compression=gzip|zstd,compression-level=N`"),
        value("compression-level", "use `-o type=image,compression=gzip|zstd,compression-level=N`"),
        value("verbosity", LOGGING),
        value("log-format", LOGGING),
        flag("cleanup", "nothing is left behind in any case; leave the option away"),
        flag(
            "force",
            "the files of the container around a build are never touched; leave the option away",
        ),
    ];
}

const RESTART: &str =
    "nobody is there to start a container again; use a service manager, or a loop of your shell";
const ADDRESSES: &str = "containers have no network with names and addresses of their own so far; publish ports with `-p`";
const STREAMS: &str = "output and signals are passed on in any case, and input with `-i`";
const DEVICES: &str =
    "devices are docker's default set so far; `--privileged` gives all of the machine's";
const NAMESPACES: &str =
    "namespaces are the container's own, but for the network; leave the option away";
const HEALTH: &str = "health checks are not run yet; leave the option away";
const RESOLVER: &str = "mount a file of your own with `-v FILE:/etc/resolv.conf:ro`";

/// `kiln run`.
#[derive(Debug, Clone, Copy)]
pub struct Run;

impl Table for Run {
    const OPTIONS: &'static [RefusedOption] = &[
        RefusedOption { name: "attach", short: Some('a'), takes_value: true, hint: STREAMS },
        value("cidfile", "name the container with `--name`"),
        value("log-driver", "output goes to the standard output and error of kiln; redirect those"),
        value("log-opt", "output goes to the standard output and error of kiln; redirect those"),
        value("restart", RESTART),
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
        value("ip", ADDRESSES),
        value("link", ADDRESSES),
        value("mac-address", ADDRESSES),
        value("network-alias", ADDRESSES),
        value("group-add", "use `--user NAME:GROUP`, or put the user into the groups of the image"),
        value("health-cmd", HEALTH),
        value("sysctl", "the kernel's settings are those of the machine; set it there"),
        value("volumes-from", "name the paths with `-v SOURCE:TARGET`"),
        value(
            "volume-driver",
            "there are no named volumes; show a folder of the machine with `-v FOLDER:PATH`",
        ),
        value("annotation", "use `--label`"),
        value("label-file", "give each label with `--label`"),
        value("runtime", "kiln needs no other program to start a container; see `--isolation`"),
        value("storage-opt", "containers may use what the disk has"),
        value("domainname", "use `--hostname NAME.DOMAIN`"),
        value("device-cgroup-rule", DEVICES),
        value("device-read-bps", DEVICES),
        value("device-read-iops", DEVICES),
        value("device-write-bps", DEVICES),
        value("device-write-iops", DEVICES),
        value("blkio-weight", LIMITS),
        value("blkio-weight-device", LIMITS),
        value("cpu-rt-period", LIMITS),
        value("cpu-rt-runtime", LIMITS),
        value("kernel-memory", LIMITS),
        value("memory-reservation", LIMITS),
        value("memory-swappiness", LIMITS),
        flag("oom-kill-disable", LIMITS),
        value("oom-score-adj", LIMITS),
        value("ip6", ADDRESSES),
        value("link-local-ip", ADDRESSES),
        flag("disable-content-trust", UNSIGNED),
        value("health-interval", HEALTH),
        value("health-retries", HEALTH),
        value("health-start-interval", HEALTH),
        value("health-start-period", HEALTH),
        value("health-timeout", HEALTH),
    ];
}

const CONTAINERS: &str = "a container belongs to the `kiln run` that started it and ends with its process; \
    `kiln run -d` starts one in the background, `kiln ps`, `logs` and `stop` list, show and end them";
const FILES: &str =
    "copy files with `-v` in `kiln run`, or take those of an image with `kiln build -o DIR`";
const CLUSTER: &str = "kiln runs containers on this machine only";

/// The commands of docker that are not there, each with what to do instead.
const COMMANDS: &[(&[&str], &str)] = &[
    (&["attach", "create", "pause", "port", "rename", "restart", "start", "stats"], CONTAINERS),
    (&["top", "unpause", "update", "wait"], CONTAINERS),
    (&["exec"], "start a second container of the image with `kiln run`"),
    (&["commit", "diff"], "write the change into a Dockerfile and use `kiln build`"),
    (&["cp", "export"], FILES),
    (&["import"], "use a Dockerfile with `FROM scratch` and `ADD FILE.tar /`"),
    (&["compose"], "there is no compose yet; start each container with `kiln run`"),
    (
        &["network"],
        "containers have the machine's network, or with `-p` or `--network isolated` one of their own, or none",
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

const BUILDERS: &str = "kiln needs no builder; leave the command away";

/// The commands of `docker buildx` and `docker builder` that are not there.
const OF_BUILDER: &[(&[&str], &str)] = &[
    (&["create", "use", "ls", "rm", "stop", "inspect", "install", "uninstall"], BUILDERS),
    (&["bake"], "start each build with `kiln build`"),
    (
        &["imagetools"],
        "`kiln pull` and `kiln inspect` show an image; `kiln build --platform A,B --push` makes an index",
    ),
    (&["history", "dial-stdio", "dap"], "`kiln logs` and `kiln explain` show what a build did"),
    (&["version"], "use `kiln version`"),
];

/// Refuses what `args` start with, if it is a command of docker that is not there.
///
/// # Errors
///
/// Returns what to say.
pub fn command(args: &[OsString]) -> Result<(), clap::Error> {
    let Some(name) = args.first().and_then(|it| it.to_str()) else { return Ok(()) };
    let (commands, full_name) = match (name, args.get(1).and_then(|it| it.to_str())) {
        ("buildx" | "builder", Some(second)) => (OF_BUILDER, format!("{name} {second}")),
        ("container", Some(second)) => (COMMANDS, format!("{name} {second}")),
        _ => (COMMANDS, name.to_owned()),
    };
    let last = full_name.rsplit(' ').next().unwrap_or_default();
    let Some((_, hint)) = commands.iter().find(|(names, _)| names.contains(&last)) else {
        return Ok(());
    };
    let text = format!("command `{full_name}` is not supported\nhint: {hint}\n");
    Err(clap::Error::raw(ErrorKind::InvalidSubcommand, text))
}

/// Refuses the first option of `args` that is in the table `T`, where clap has found another mistake before it.
///
/// # Errors
///
/// Returns what to say.
pub fn option<T: Table>(args: &[OsString]) -> Result<(), clap::Error> {
    let names = args
        .iter()
        .filter_map(|it| it.to_str()?.strip_prefix("--"))
        .take_while(|it| !it.is_empty());
    for name in names.map(|it| it.split('=').next().unwrap_or_default()) {
        if let Some(option) = T::OPTIONS.iter().find(|it| it.name == name) {
            return Err(refusal(option));
        }
    }
    Ok(())
}

fn refusal(option: &RefusedOption) -> clap::Error {
    let text = format!("option `--{}` is not supported\nhint: {}\n", option.name, option.hint);
    clap::Error::raw(ErrorKind::UnknownArgument, text)
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
                return Err(refusal(option));
            }
        }
        Ok(Self(PhantomData))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        Self::from_arg_matches(matches).map(|_| ())
    }
}
