//! `kiln build`: the command line of `docker buildx build`.

use std::{num::NonZeroUsize, path::PathBuf};

use clap::{ArgAction, Args};

use super::{limits::LimitArgs, refused};
use crate::{
    progress::Mode,
    values::{
        AddHost, Annotation, Attest, Call, Output, Pair, Secret, Ssh, Ulimit,
        annotation::annotation,
        attest::{attest, provenance, sbom},
        call::call,
        host::add_host,
        isolation::isolation,
        limit::ulimit,
        output::output,
        pair::named,
        pair::pair,
        secret::secret,
        size::size,
        ssh::ssh,
    },
};

/// The arguments of `kiln build`.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// Directory, URL or archive to build from; `-` reads a tar or a Dockerfile from standard input
    #[arg(id = "path", value_name = "PATH|URL|-")]
    pub context: String,

    /// Name the image, and the tag (`name:tag`); may be repeated
    #[arg(short, long = "tag", value_name = "NAME")]
    pub tags: Vec<String>,
    /// The Dockerfile; `-` is standard input [default: PATH/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<String>,
    /// Build this stage [default: the last one]
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// Set a build argument; without a value it is taken from the environment
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]", value_parser = pair)]
    pub build_args: Vec<Pair>,
    /// Read build arguments from a file of `NAME=VALUE` lines
    #[arg(long = "build-arg-file", value_name = "FILE")]
    pub build_arg_files: Vec<PathBuf>,
    /// Another context that COPY --from and FROM may name
    #[arg(long = "build-context", value_name = "NAME=PATH|URL", value_parser = named)]
    pub build_contexts: Vec<(String, String)>,
    /// Platforms to build for, for example `linux/amd64,linux/arm64`
    #[arg(long = "platform", value_name = "PLATFORM", value_delimiter = ',')]
    pub platforms: Vec<String>,
    /// Add a label to the image
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = pair)]
    pub labels: Vec<Pair>,
    /// Add an annotation to the image: `[TYPE[PLATFORM]:]NAME=VALUE`
    #[arg(long = "annotation", value_name = "NAME=VALUE", value_parser = annotation)]
    pub annotations: Vec<Annotation>,

    /// Run every step again
    #[arg(long, help_heading = "Cache")]
    pub no_cache: bool,
    /// Run the steps of these stages again
    #[arg(long, value_name = "STAGE", value_delimiter = ',', help_heading = "Cache")]
    pub no_cache_filter: Vec<String>,
    /// Look for newer base images
    #[arg(long, help_heading = "Cache")]
    pub pull: bool,

    /// Where the result goes: `type=image|oci|docker|local|tar|cacheonly[,dest=PATH]…`, or a directory
    #[arg(short, long = "output", value_name = "OUTPUT", value_parser = output, help_heading = "Result")]
    pub outputs: Vec<Output>,
    /// Keep the image in the store, as `--output=type=docker` does (the default)
    #[arg(long, help_heading = "Result")]
    pub load: bool,
    /// Push the image, as `--output=type=registry` does
    #[arg(long, help_heading = "Result")]
    pub push: bool,
    /// Make equal images from equal inputs, bit by bit, on every machine
    #[arg(long, help_heading = "Result")]
    pub reproducible: bool,
    /// Write the id of the image to a file
    #[arg(long, value_name = "FILE", help_heading = "Result")]
    pub iidfile: Option<PathBuf>,
    /// Write what was made to a file, as JSON
    #[arg(long, value_name = "FILE", help_heading = "Result")]
    pub metadata_file: Option<PathBuf>,
    /// Say beside the image from what and how it was made: `true`, `false`, or `mode=min|max[,version=v1|v0.2]…`
    #[arg(long, value_name = "PROVENANCE", require_equals = true, num_args = 0..=1, default_missing_value = "true",
        value_parser = provenance, help_heading = "Result")]
    pub provenance: Option<Attest>,
    /// A list of what is in the image is not written; only `false` is accepted
    #[arg(long, value_name = "false", require_equals = true, num_args = 0..=1, default_missing_value = "true",
        value_parser = sbom, help_heading = "Result")]
    pub sbom: Option<Attest>,
    /// What to say beside the image: `type=provenance[,mode=min|max]…`, as `--provenance` does
    #[arg(long = "attest", value_name = "ATTESTATION", value_parser = attest, help_heading = "Result")]
    pub attests: Vec<Attest>,

    /// Network of RUN: `isolated`, `host`, `none`, or `default`, which is isolated where that can be had
    #[arg(long, value_name = "MODE", help_heading = "RUN")]
    pub network: Option<String>,
    /// A secret for RUN --mount=type=secret: `id=NAME[,src=FILE|,env=VARIABLE]`
    #[arg(long = "secret", value_name = "SECRET", value_parser = secret, help_heading = "RUN")]
    pub secrets: Vec<Secret>,
    /// An SSH agent or keys for RUN --mount=type=ssh: `default` or `ID=SOCKET|KEY[,KEY]`
    #[arg(long, value_name = "SSH", value_parser = ssh, help_heading = "RUN")]
    pub ssh: Vec<Ssh>,
    /// Allow RUN what is dangerous: `network.host`, `security.insecure`
    #[arg(long, value_name = "RIGHT", value_delimiter = ',', help_heading = "RUN")]
    pub allow: Vec<String>,
    /// Add a line to /etc/hosts
    #[arg(long = "add-host", value_name = "HOST:ADDRESS", value_parser = add_host, help_heading = "RUN")]
    pub add_hosts: Vec<AddHost>,
    /// Size of /dev/shm, for example `64m`
    #[arg(long, value_name = "BYTES", value_parser = size, help_heading = "RUN")]
    pub shm_size: Option<u64>,
    /// A limit of processes, for example `nofile=1024:2048`
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]", value_parser = ulimit, help_heading = "RUN")]
    pub ulimits: Vec<Ulimit>,
    /// What a RUN may use.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// The sandbox: `auto` (the best the machine permits), `root`, `rootless`, `single-id`, `chroot` or `none`; see `kiln info`
    #[arg(long, value_name = "KIND", value_parser = isolation, default_value = "auto", hide_default_value = true, help_heading = "RUN")]
    pub isolation: sandbox::Isolation,
    /// How many steps may run at once [default: the number of CPUs]
    #[arg(long, value_name = "N", help_heading = "RUN")]
    pub jobs: Option<NonZeroUsize>,

    /// How progress is shown: auto, none, plain, tty, quiet, rawjson [default: $KILN_PROGRESS, $BUILDKIT_PROGRESS, or auto]
    #[arg(
        long,
        value_name = "MODE",
        value_enum,
        hide_possible_values = true,
        help_heading = "Display"
    )]
    pub progress: Option<Mode>,
    /// Show errors only, and print the id of the image
    #[arg(short, long, help_heading = "Display")]
    pub quiet: bool,
    /// Say for each step that ran why its result was not known; see `kiln explain`
    #[arg(long, help_heading = "Display")]
    pub explain: bool,
    /// Do not build, answer: `check`, `outline`, `targets` or `context`, `,format=json` behind it for programs
    #[arg(long, value_name = "QUESTION", value_parser = call, help_heading = "Display")]
    pub call: Option<Call>,
    /// Do not build, report what the lint finds, as `--call=check` does
    #[arg(long, conflicts_with = "call", help_heading = "Display")]
    pub check: bool,

    /// Nothing is left behind in any case.
    #[arg(long, hide = true, action = ArgAction::SetTrue)]
    pub rm: bool,
    /// Nothing is left behind in any case.
    #[arg(long, hide = true, action = ArgAction::SetTrue)]
    pub force_rm: bool,
    /// What docker has besides.
    #[command(flatten)]
    pub refused: refused::Refused<refused::Build>,
}
