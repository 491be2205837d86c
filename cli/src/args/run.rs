//! `kiln run`: a container, in the foreground or the background.

use std::{ffi::OsString, path::PathBuf};

use clap::{ArgAction, Args, ValueEnum};

use super::{limits::LimitArgs, refused};
use crate::values::{
    AddHost, BindMount, Mount, Pair, Publish, SecurityOption, TmpfsMount, Ulimit,
    host::add_host,
    isolation::isolation,
    limit::ulimit,
    mount::{mount, tmpfs, volume},
    pair::pair,
    publish::publish,
    security::security_option,
    size::size,
};

/// The arguments of `kiln run`.
///
/// Docker's `-h` is the host name here, so that help has its long form only.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct RunArgs {
    /// The image
    pub image: String,
    /// The command and its arguments [default: those of the image]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,

    /// Run it in the background, and print its id
    #[arg(short, long)]
    pub detach: bool,
    /// Keep standard input open
    #[arg(short, long)]
    pub interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Remove the container when it ends
    #[arg(long)]
    pub rm: bool,
    /// Set a variable; without a value it is taken from the environment
    #[arg(short, long = "env", value_name = "NAME[=VALUE]", value_parser = pair)]
    pub env: Vec<Pair>,
    /// Read variables from a file of `NAME=VALUE` lines
    #[arg(long = "env-file", value_name = "FILE")]
    pub env_files: Vec<PathBuf>,
    /// The working directory
    #[arg(short, long, value_name = "PATH")]
    pub workdir: Option<String>,
    /// The user: `name|uid[:group|gid]`
    #[arg(short, long, value_name = "USER")]
    pub user: Option<String>,
    /// Show a path of the host in the container; without a source, make a folder that lives as long as the container
    #[arg(short, long = "volume", value_name = "[SOURCE:]TARGET[:ro]", value_parser = volume)]
    pub volumes: Vec<BindMount>,
    /// The same in docker's long form: `type=bind|tmpfs,source=…,target=…[,readonly]`
    #[arg(long = "mount", value_name = "MOUNT", value_parser = mount)]
    pub mounts: Vec<Mount>,
    /// Make a folder in memory
    #[arg(long, value_name = "TARGET[:size=…,mode=…]", value_parser = tmpfs)]
    pub tmpfs: Vec<TmpfsMount>,
    /// Run this instead of the image's entry point
    #[arg(long, value_name = "COMMAND")]
    pub entrypoint: Option<String>,
    /// Name of the container
    #[arg(long)]
    pub name: Option<String>,
    /// Host name in the container
    #[arg(short = 'h', long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Forbid writes to the container's root
    #[arg(long)]
    pub read_only: bool,
    /// The network: `host` (the default), `isolated` or `none`
    #[arg(long, alias = "net", value_name = "MODE")]
    pub network: Option<String>,
    /// Add a line to /etc/hosts
    #[arg(long = "add-host", value_name = "HOST:ADDRESS", value_parser = add_host)]
    pub add_hosts: Vec<AddHost>,
    /// Size of /dev/shm, for example `64m`
    #[arg(long, value_name = "BYTES", value_parser = size)]
    pub shm_size: Option<u64>,
    /// A limit of processes, for example `nofile=1024:2048`
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]", value_parser = ulimit)]
    pub ulimits: Vec<Ulimit>,
    /// What it may use.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Give it a capability
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_add: Vec<String>,
    /// Take a capability away
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_drop: Vec<String>,
    /// Give it all capabilities and devices
    #[arg(long)]
    pub privileged: bool,
    /// `no-new-privileges`, or `seccomp=unconfined`
    #[arg(long, value_name = "OPTION", value_parser = security_option)]
    pub security_opt: Vec<SecurityOption>,
    /// The sandbox: `auto` (the best the machine permits), `root`, `rootless`, `single-id`, `chroot` or `none`; see `kiln info`
    #[arg(long, value_name = "KIND", value_parser = isolation, default_value = "auto", hide_default_value = true)]
    pub isolation: sandbox::Isolation,
    /// Which platform of the image
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// When to pull the image: always, missing, never
    #[arg(
        long,
        value_enum,
        hide_possible_values = true,
        value_name = "WHEN",
        default_value = "missing"
    )]
    pub pull: PullPolicy,
    /// Label of the container
    #[arg(short, long = "label", value_name = "NAME=VALUE", value_parser = pair)]
    pub labels: Vec<Pair>,
    /// Run the command below an init that passes signals on and takes care of orphans, and not as process 1
    #[arg(long)]
    pub init: bool,
    /// The signal with which `kiln stop` asks the command to end [default: that of the image, else TERM]
    #[arg(long, value_name = "SIGNAL", value_parser = signal)]
    pub stop_signal: Option<String>,
    /// How many seconds `kiln stop` waits for that; -1 is for ever
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    pub stop_timeout: Option<i64>,
    /// Say nothing of the pull.
    #[arg(short, long, hide = true)]
    pub quiet: bool,
    /// Let a TCP port of the container be reached from outside; the container then has an isolated network
    #[arg(short, long, value_name = "[PORT:]PORT", value_parser = publish)]
    pub publish: Vec<Publish>,
    /// Publish all ports that the image exposes, each at a free port of the machine
    #[arg(short = 'P', long)]
    pub publish_all: bool,
    /// There are no health checks.
    #[arg(long, hide = true)]
    pub no_healthcheck: bool,
    /// Ports for `-P` besides those of the image.
    #[arg(long, hide = true, value_name = "PORT")]
    pub expose: Vec<String>,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    pub help: Option<bool>,
    /// What docker has besides.
    #[command(flatten)]
    pub refused: refused::Refused<refused::Run>,
}

/// The name or number of a signal.
fn signal(text: &str) -> Result<String, String> {
    crate::values::signal::signal(text).map(|_| text.to_owned())
}

/// When to pull an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PullPolicy {
    /// Each time.
    Always,
    /// When it is not in the store.
    Missing,
    /// Not at all.
    Never,
}
