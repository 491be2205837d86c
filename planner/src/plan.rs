//! The plan: steps with everything resolved, and the image they make.
//!
//! No variable, stage name or ARG is left in here. Steps refer to earlier steps only, so their order is an order to run
//! them in.

use alloc::{string::String, vec::Vec};

use image::{
    Platform,
    document::{History, ImageConfig},
};
use parser::span::Span;

use crate::{env::Variables, facts::ImageQuery, git_url::GitRef, mode::Mode};

/// What is to be done for one platform, and what comes out.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// For which platform.
    pub platform: Platform,
    /// The images it starts from.
    pub images: Vec<PlannedImage>,
    /// The steps, each after those it needs.
    pub steps: Vec<Step>,
    /// Where the file system of the result comes from.
    pub output: Source,
    /// The image config without layers and times.
    pub config: ImageConfig,
    /// The history, which says which steps are its layers.
    pub history: Vec<PlannedHistory>,
    /// `SOURCE_DATE_EPOCH`, if it is set.
    pub epoch: Option<i64>,
}

/// An image the plan starts from or copies from.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedImage {
    /// Which.
    pub query: ImageQuery,
    /// What to call it in progress, for example `[build 1/3] FROM docker.io/library/busybox:latest`.
    pub name: String,
    /// The FROM or the flag that names it.
    pub span: Span,
}

/// One line of history and the step behind it.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedHistory {
    /// The line; its time is filled in when the step's is known.
    pub history: History,
    /// The step whose layer it is; none for lines of the base and for metadata.
    pub step: Option<StepId>,
}

/// The number of a step in [`Plan::steps`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(pub usize);

/// Where a file tree comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// Nothing.
    Scratch,
    /// [`Plan::images`] at this index.
    Image(usize),
    /// The result of a step.
    Step(StepId),
    /// A local folder: the main context is `context`, others are named by `--build-context`.
    Local(String),
    /// A git repository.
    Git(GitSource),
    /// A single file from the network.
    Http(HttpSource),
}

/// A git repository at a commit.
#[derive(Debug, Clone, PartialEq)]
pub struct GitSource {
    /// Where, which ref, which folder.
    pub url: GitRef,
    /// Keep `.git`.
    pub keep_git_dir: bool,
    /// The commit must begin with this.
    pub checksum: Option<String>,
}

/// A file from the network.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpSource {
    /// Where.
    pub url: String,
    /// What to call it.
    pub filename: String,
    /// The digest it must have, `sha256:…`.
    pub checksum: Option<String>,
}

/// One step.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What to call it in progress.
    pub name: String,
    /// The instruction it comes from.
    pub span: Span,
    /// That instruction as written, variables not expanded, without passwords of URLs and bodies of heredocs.
    pub text: String,
    /// The stage it is in.
    pub stage: String,
    /// The tree it starts from.
    pub parent: Source,
    /// What it does.
    pub op: Op,
    /// Run it even if its result is known.
    pub no_cache: bool,
    /// The platform it runs on.
    pub platform: Platform,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Runs a command.
    Run(RunOp),
    /// Copies files.
    Copy(CopyOp),
    /// Makes a folder if it is missing.
    Mkdir(MkdirOp),
}

/// A command to run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunOp {
    /// The command line.
    pub args: Vec<String>,
    /// The environment, in order.
    pub env: Variables,
    /// Proxy variables: given to the command, not part of the key.
    pub proxy_env: Vec<(String, String)>,
    /// The working directory.
    pub cwd: String,
    /// The user as written in USER, empty for root.
    pub user: String,
    /// A script given as a heredoc with `#!`: a file of this name in `/dev/pipes/`.
    pub script: Option<(String, String)>,
    /// Mounts, in order.
    pub mounts: Vec<MountOp>,
    /// The network.
    pub network: Network,
    /// `--security=insecure`.
    pub insecure: bool,
    /// The host name.
    pub hostname: String,
    /// `--add-host`.
    pub extra_hosts: Vec<(String, String)>,
    /// `--shm-size`.
    pub shm_size: Option<u64>,
    /// `--ulimit`.
    pub ulimits: Vec<(String, i64, i64)>,
    /// `--cgroup-parent`.
    pub cgroup_parent: Option<String>,
}

/// The network of a RUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Network {
    /// Whatever the machine offers.
    #[default]
    Default,
    /// The host's.
    Host,
    /// None but loopback.
    None,
}

/// A mount of a RUN.
#[derive(Debug, Clone, PartialEq)]
pub enum MountOp {
    /// Files of another tree.
    Bind {
        /// Whose.
        source: Source,
        /// Where in it.
        path: String,
        /// Where to, absolute.
        target: String,
        /// Writes are discarded where allowed, else refused.
        writable: bool,
    },
    /// A folder that outlives the build.
    Cache {
        /// Its name.
        id: String,
        /// Where to, absolute.
        target: String,
        /// How builds share it.
        sharing: Sharing,
        /// What it starts with.
        seed: Option<(Source, String)>,
        /// Refuse writes.
        read_only: bool,
        /// Mode of a new one.
        mode: u32,
        /// Owner of a new one.
        uid: u32,
        /// Group of a new one.
        gid: u32,
    },
    /// An empty folder in memory.
    Tmpfs {
        /// Where to, absolute.
        target: String,
        /// Bytes.
        size: Option<u64>,
    },
    /// A secret.
    Secret {
        /// Its name.
        id: String,
        /// Where to, absolute; none for a variable only.
        target: Option<String>,
        /// The variable.
        env: Option<String>,
        /// Fail without it.
        required: bool,
        /// Mode of the file.
        mode: u32,
        /// Owner of the file.
        uid: u32,
        /// Group of the file.
        gid: u32,
    },
    /// A socket of an SSH agent.
    Ssh {
        /// Its name.
        id: String,
        /// Where to, absolute.
        target: String,
        /// Fail without it.
        required: bool,
        /// Mode of the socket.
        mode: u32,
        /// Owner of the socket.
        uid: u32,
        /// Group of the socket.
        gid: u32,
    },
}

/// How builds share a cache mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Sharing {
    /// All at once.
    #[default]
    Shared,
    /// Each its own.
    Private,
    /// One after the other.
    Locked,
}

/// Files to copy.
#[derive(Debug, Clone, PartialEq)]
pub struct CopyOp {
    /// From where, in order.
    pub items: Vec<CopyItem>,
    /// Where to: absolute, a trailing slash says that it is a folder.
    pub dest: String,
    /// `--chown`.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<Mode>,
    /// A layer of its own, whatever is below.
    pub link: bool,
    /// Patterns to leave out.
    pub excludes: Vec<String>,
}

/// One source of a copy.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there are few of them, and nearly all are `Paths`")]
pub enum CopyItem {
    /// Paths in a tree.
    Paths {
        /// Whose.
        source: Source,
        /// The path or pattern below its root, cleaned, absolute.
        path: String,
        /// The path as written, for messages.
        written: String,
        /// `--parents`: the pattern below `path` whose folders are kept, and whether it must match.
        parents: Option<ParentsPattern>,
        /// Unpack archives.
        unpack: bool,
        /// Where the source was written.
        span: Span,
    },
    /// A file given in the Dockerfile.
    Inline {
        /// Its name.
        name: String,
        /// Its content.
        data: String,
    },
}

/// What `--parents` copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentsPattern {
    /// The pattern, relative.
    pub pattern: String,
    /// It has no wildcard, so that it must match.
    pub required: bool,
}

/// A folder to make.
#[derive(Debug, Clone, PartialEq)]
pub struct MkdirOp {
    /// Absolute.
    pub path: String,
    /// Its owner as written in USER, empty for root.
    pub user: String,
}
