//! Everything a build needs, looked up and checked before anything runs.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal},
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use executor::{attest::Provenance, explain::About};
use image::{ImageRef, Platform};
use planner::request::Request;

use super::input::{self, Input};
use crate::{
    args::build::BuildArgs,
    failure::{Failure, OrFail, Result},
    progress::Mode,
    values::{
        Annotation, Attest, Call, Dest, Output, OutputKind, Pair, Question, Secret, SecretSource,
        Ssh, pair,
    },
};

/// A build that can start.
#[derive(Debug)]
pub struct Job {
    /// Where Dockerfile and context are.
    pub input: Input,
    /// What is asked of the Dockerfile; not to be built if it is a question.
    pub call: Call,
    /// What to build, a request for each platform, at least one.
    pub requests: Vec<Request>,
    /// The result is an index though it has one platform only.
    pub index_of_one: bool,
    /// Names of the image, of `-t`.
    pub names: Vec<ImageRef>,
    /// What to make of the result, at least one.
    pub outputs: Vec<Output>,
    /// `--annotation`.
    pub annotations: Vec<Annotation>,
    /// What to say of how the image was made.
    pub provenance: Option<Provenance>,
    /// Secrets; none of them by id only.
    pub secrets: Vec<Secret>,
    /// SSH agents and keys.
    pub ssh: Vec<Ssh>,
    /// How many bytes of the output of a RUN are logged and shown.
    pub log_limit: u64,
    /// What a RUN may use.
    pub limits: sandbox::CgroupLimits,
    /// RUN must have a network of its own.
    pub is_isolated: bool,
    /// `--pull`: ask the registry for base images that are in the store.
    pub pull: bool,
    /// `--reproducible`, or an epoch in the environment: no time in layers made here is later than the source date epoch.
    pub reproducible: bool,
    /// How many steps run at once.
    pub jobs: Option<NonZeroUsize>,
    /// How progress is shown.
    pub progress: Mode,
    /// Print the id of the image.
    pub quiet: bool,
    /// Say why steps ran.
    pub explain: bool,
    /// What is built, for the journal.
    pub about: About,
    /// File for the id.
    pub iidfile: Option<PathBuf>,
    /// File for the metadata.
    pub metadata_file: Option<PathBuf>,
    /// What the lint finds is part of the metadata, as `BUILDX_METADATA_WARNINGS` says.
    pub metadata_warnings: bool,
}

/// Looks up what the arguments name.
///
/// # Errors
///
/// Fails with the first thing that is wrong or not there.
pub fn prepare(args: BuildArgs, env: impl Fn(&str) -> Option<String>) -> Result<Job> {
    let call = match args.check {
        true => Call { question: Question::Check, ..Call::default() },
        false => args.call.unwrap_or_default(),
    };
    let names = args.tags.iter().map(|it| name(it)).collect::<Result<Vec<_>>>()?;
    let epoch = epoch_of_outputs(&args.outputs, epoch(&env, args.reproducible)?)?;
    let build_args = build_args(args.build_args, &args.build_arg_files, &env)?;
    let is_implicit = args.platforms.is_empty() && default_platform(&env).is_none();
    let platforms = platforms(&args.platforms, &env)?;
    let index_of_one = build_args
        .get("BUILDKIT_MULTI_PLATFORM")
        .is_some_and(|it| crate::values::boolean(it) == Ok(true))
        || args.platforms.len() > 1;
    let entitlements = args
        .allow
        .iter()
        .filter_map(|it| entitlement(it).transpose())
        .collect::<Result<Vec<_>>>()?;
    let limits = args.limits.limits()?;
    if let Some(mode) = args.network.as_deref()
        && !["default", "isolated", "bridge", "host", "none"].contains(&mode)
    {
        return Err(Failure::input(anyhow!("there is no network `{mode}`"))
            .hint("known are `default`, `isolated`, `host` and `none`"));
    }
    let is_isolated = matches!(args.network.as_deref(), Some("isolated" | "bridge"));
    let request = Request {
        target: args.target,
        build_args,
        labels: args.labels.into_iter().map(|it| (it.key, it.value.unwrap_or_default())).collect(),
        platform: Platform::default(),
        implicit_platform: is_implicit,
        build_platform: Platform::host(),
        multi_platform: platforms.len() > 1,
        no_cache: args.no_cache,
        no_cache_filter: args.no_cache_filter,
        network: args.network.filter(|_| !is_isolated),
        add_hosts: args.add_hosts.into_iter().map(|it| (it.name, it.address)).collect(),
        shm_size: args.shm_size,
        ulimits: args.ulimits.into_iter().map(|it| (it.name, it.soft, it.hard)).collect(),
        cgroup_parent: args.limits.cgroup_parent.clone(),
        entitlements,
        named_contexts: args.build_contexts.into_iter().collect(),
        source_date_epoch: epoch,
    };
    let outputs = outputs(args.outputs, args.load, args.push, io::stdout().is_terminal())?;
    // The epoch of the environment is enough, unless an output wants the times as they are.
    let keeps_times = outputs.iter().any(|it| it.rewrite_timestamp == Some(false));
    let reproducible = args.reproducible || (epoch.is_some() && !keeps_times);
    if outputs.iter().any(|it| it.push)
        && names.is_empty()
        && outputs.iter().all(|it| it.names.is_empty())
    {
        return Err(Failure::input(anyhow!("there is no name to push the image under"))
            .hint("add `-t REGISTRY/NAME:TAG`"));
    }
    let input = input::find(&args.context, args.file.as_deref(), io::stdin())?;
    let about = About {
        dockerfile: input.dockerfile.place(),
        context: input.context.place(),
        names: names.iter().map(ToString::to_string).collect(),
        target: request.target.clone(),
        no_cache: args.no_cache,
        ..About::default()
    };
    let secrets =
        args.secrets.into_iter().map(|it| secret(it, &env)).collect::<Result<Vec<_>>>()?;
    let progress = progress(args.progress, args.quiet, &env)?;
    Ok(Job {
        input,
        call,
        requests: platforms
            .into_iter()
            .map(|platform| Request { platform, ..request.clone() })
            .collect(),
        index_of_one,
        names,
        outputs,
        annotations: args.annotations,
        provenance: provenance_of(
            args.attests.into_iter().chain(args.provenance).chain(args.sbom),
        )?,
        secrets,
        ssh: args.ssh,
        limits,
        log_limit: log_limit(&env)?,
        is_isolated,
        pull: args.pull,
        reproducible,
        jobs: args.jobs,
        progress,
        quiet: progress == Mode::Quiet,
        explain: args.explain,
        about,
        iidfile: args.iidfile,
        metadata_file: args.metadata_file,
        metadata_warnings: env("BUILDX_METADATA_WARNINGS")
            .is_some_and(|it| crate::values::boolean(&it) == Ok(true)),
    })
}

fn name(text: &str) -> Result<ImageRef> {
    let name = ImageRef::parse(text)
        .with_context(|| format!("`{text}` cannot be the name of an image"))
        .or_input()?;
    if name.digest.is_some() {
        return Err(Failure::input(anyhow!(
            "`{text}` cannot be the name of an image: it has a digest"
        ))
        .hint("use a tag"));
    }
    Ok(name.with_default_tag())
}

fn epoch(env: impl Fn(&str) -> Option<String>, reproducible: bool) -> Result<Option<i64>> {
    match env("SOURCE_DATE_EPOCH").filter(|it| !it.is_empty()) {
        Some(text) => match text.parse() {
            Ok(seconds) => Ok(Some(seconds)),
            Err(_) => Err(Failure::input(anyhow!(
                "SOURCE_DATE_EPOCH `{text}` is not a number of seconds"
            ))),
        },
        None => Ok(reproducible.then_some(0)),
    }
}

/// Returns the provenance that is asked for, which may be done once.
fn provenance_of(attests: impl Iterator<Item = Attest>) -> Result<Option<Provenance>> {
    let mut found = None;
    for attest in attests {
        let Attest::Provenance(provenance) = attest else { continue };
        if found.replace(provenance).is_some() {
            return Err(Failure::input(anyhow!("provenance is asked for twice"))
                .hint("join `--provenance` and `--attest type=provenance` into one"));
        }
    }
    Ok(found.flatten())
}

/// The epoch that outputs ask for, or else the one of the environment. An image is made once, so it can have one only.
fn epoch_of_outputs(outputs: &[Output], of_env: Option<i64>) -> Result<Option<i64>> {
    let mut asked = outputs.iter().filter_map(|it| it.source_date_epoch);
    let Some(first) = asked.next() else { return Ok(of_env) };
    match asked.find(|it| *it != first) {
        None => Ok(Some(first)),
        Some(other) => {
            let message = anyhow!("outputs differ in source-date-epoch: {first} and {other}");
            Err(Failure::input(message).hint("build once for each"))
        }
    }
}

fn build_args(
    given: Vec<Pair>,
    files: &[PathBuf],
    env: impl Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, String>> {
    let mut out = BTreeMap::new();
    for file in files {
        out.extend(pairs_of_file(file)?.into_iter().filter_map(|it| it.resolve(&env)));
    }
    out.extend(given.into_iter().filter_map(|it| it.resolve(&env)));
    Ok(out)
}

/// Reads a file of `NAME=VALUE` lines.
///
/// # Errors
///
/// Fails where it cannot be read, or a line is wrong.
pub fn pairs_of_file(file: &Path) -> Result<Vec<Pair>> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read `{}`", file.display()))
        .or_input()?;
    pair::lines(&text)
        .map_err(|(line, message)| anyhow!("{}:{line}: {message}", file.display()))
        .or_input()
}

fn default_platform(env: impl Fn(&str) -> Option<String>) -> Option<String> {
    env("DOCKER_DEFAULT_PLATFORM").filter(|it| !it.is_empty())
}

fn platforms(given: &[String], env: impl Fn(&str) -> Option<String>) -> Result<Vec<Platform>> {
    let host = Platform::host();
    let default = default_platform(env);
    let given = if given.is_empty() { default.as_slice() } else { given };
    let mut out = Vec::new();
    for text in given.iter().map(|it| it.trim()) {
        let platform = match text {
            "local" => host.clone(),
            _ => Platform::parse(text, &host).or_input()?.normalized(),
        };
        // One that is asked for twice is in the index twice, as with BuildKit.
        out.push(platform);
    }
    if out.is_empty() {
        out.push(host);
    }
    Ok(out)
}

fn entitlement(text: &str) -> Result<Option<String>> {
    match text {
        // The shorter names are those of older clients.
        "network.host" | "network" => Ok(Some("network.host".to_owned())),
        "security.insecure" | "security" => Ok(Some("security.insecure".to_owned())),
        // kiln reads the files that the command line names and no others, so there is nothing to allow.
        other if other == "fs" || other.starts_with("fs.") || other.starts_with("fs=") => Ok(None),
        other => {
            let known = "known are `network.host` and `security.insecure`";
            Err(Failure::input(anyhow!("`--allow={other}` is not supported")).hint(known))
        }
    }
}

fn secret(secret: Secret, env: impl Fn(&str) -> Option<String>) -> Result<Secret> {
    let source = match secret.source {
        SecretSource::ById if env(&secret.id).is_some() => SecretSource::Env(secret.id.clone()),
        SecretSource::ById => SecretSource::File(secret.id.clone().into()),
        source => source,
    };
    match &source {
        SecretSource::File(path) => match std::fs::metadata(path) {
            Ok(metadata) if !metadata.is_dir() => {}
            Ok(_) => {
                let message = anyhow!("secret `{}` is not a file: `{}`", secret.id, path.display());
                return Err(Failure::input(message));
            }
            Err(error) => {
                let error = anyhow::Error::new(error);
                let message =
                    format!("cannot read secret `{}` from `{}`", secret.id, path.display());
                return Err(Failure::input(error.context(message)));
            }
        },
        // A variable that is not set gives a secret that is not there, which RUN may find out of its own.
        SecretSource::Env(_) | SecretSource::ById => {}
    }
    Ok(Secret { id: secret.id, source })
}

/// Returns what to make of the result: what was asked for, or an image in the store.
fn outputs(
    mut given: Vec<Output>,
    load: bool,
    push: bool,
    stdout_is_terminal: bool,
) -> Result<Vec<Output>> {
    if push {
        let images = given.iter_mut().filter(|it| it.kind == OutputKind::Image);
        let mut n_images = 0;
        for output in images {
            output.push = true;
            n_images += 1;
        }
        if n_images == 0 {
            given.push(Output { push: true, ..Output::new(OutputKind::Image, None) });
        }
    }
    let stored = |it: &Output| {
        it.dest.is_none() && matches!(it.kind, OutputKind::Image | OutputKind::Docker)
    };
    if given.is_empty() || load && !given.iter().any(stored) {
        given.push(Output::new(OutputKind::Image, None));
    }
    let to_stdout = given.iter().filter(|it| it.dest == Some(Dest::Stdout)).count();
    if to_stdout > 1 {
        return Err(Failure::input(anyhow!("only one output can go to standard output"))
            .hint("give the others `dest=`"));
    }
    if to_stdout == 1 && stdout_is_terminal {
        let message = anyhow!("standard output is a terminal, and the output is an archive");
        return Err(Failure::input(message).hint("add `dest=FILE`, or redirect standard output"));
    }
    Ok(given)
}

/// The limit of the log of a step, under BuildKit's name too; -1 is none.
fn log_limit(env: impl Fn(&str) -> Option<String>) -> Result<u64> {
    for name in ["KILN_STEP_LOG_MAX_SIZE", "BUILDKIT_STEP_LOG_MAX_SIZE"] {
        if let Some(text) = env(name).filter(|it| !it.is_empty()) {
            let size = crate::values::size::size_or_unlimited(&text);
            return size.map_err(|message| Failure::input(anyhow!("{name}: {message}")));
        }
    }
    Ok(executor::session::LOG_LIMIT)
}

fn progress(flag: Option<Mode>, quiet: bool, env: impl Fn(&str) -> Option<String>) -> Result<Mode> {
    if quiet {
        return Ok(Mode::Quiet);
    }
    if let Some(mode) = flag {
        return Ok(mode);
    }
    for name in ["KILN_PROGRESS", "BUILDKIT_PROGRESS"] {
        if let Some(text) = env(name).filter(|it| !it.is_empty()) {
            let mode = Mode::parse(&text)
                .ok_or_else(|| anyhow!("{name} `{text}` is no mode of progress"))
                .or_input();
            return mode
                .map_err(|it| it.hint("known are auto, none, plain, tty, quiet and rawjson"));
        }
    }
    Ok(Mode::Auto)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unset(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn platforms_are_parsed_in_order() {
        let shown = |given: &[&str]| {
            let given: Vec<String> = given.iter().map(|it| (*it).to_owned()).collect();
            let parsed = platforms(&given, unset).ok()?;
            Some(
                parsed
                    .iter()
                    .map(|it| format!("{}/{}{}", it.os, it.architecture, it.variant))
                    .collect::<Vec<_>>(),
            )
        };
        let expected = ["linux/amd64", "linux/arm64", "linux/amd64"].map(str::to_owned).to_vec();
        assert_eq!(shown(&["linux/amd64", "linux/arm64/v8", "linux/x86_64"]), Some(expected));
        assert_eq!(shown(&["nonsense/a/b/c"]), None);
        assert_eq!(platforms(&[], unset).ok(), Some(vec![Platform::host()]));
        let default = platforms(&[], |_| Some("linux/s390x".to_owned()));
        assert_eq!(
            default.ok().and_then(|it| it.first().map(|it| it.architecture.clone())).as_deref(),
            Some("s390x")
        );
    }

    #[test]
    fn outputs_and_their_shortcuts() {
        let image = || Output::new(OutputKind::Image, None);
        let pushed = || Output { push: true, ..image() };
        let oci = || Output::new(OutputKind::Oci, Some(Dest::Path("x".into())));
        let tar = || Output::new(OutputKind::Tar, Some(Dest::Stdout));
        let made = |given, load, push| outputs(given, load, push, false).ok();
        assert_eq!(made(vec![], false, false), Some(vec![image()]));
        assert_eq!(made(vec![], true, false), Some(vec![image()]));
        assert_eq!(made(vec![], true, true), Some(vec![pushed()]));
        assert_eq!(made(vec![oci()], false, false), Some(vec![oci()]));
        assert_eq!(made(vec![oci()], true, false), Some(vec![oci(), image()]));
        assert_eq!(made(vec![oci()], false, true), Some(vec![oci(), pushed()]));
        assert_eq!(made(vec![image()], false, true), Some(vec![pushed()]));
        assert_eq!(made(vec![tar(), tar()], false, false), None);
        assert!(outputs(vec![tar()], false, false, true).is_err());
    }

    #[test]
    fn secrets_by_id_are_variables_if_set() {
        let by_id = || Secret { id: "TOKEN".to_owned(), source: SecretSource::ById };
        let found = secret(by_id(), |name| (name == "TOKEN").then(String::new)).map(|it| it.source);
        assert!(matches!(found, Ok(SecretSource::Env(name)) if name == "TOKEN"));
        assert!(secret(by_id(), unset).is_err());
    }

    #[test]
    fn progress_and_time_come_from_the_environment() {
        let env = |key: &'static str, value: &'static str| {
            move |name: &str| (name == key).then(|| value.to_owned())
        };
        assert_eq!(
            progress(None, false, env("BUILDKIT_PROGRESS", "plain")).ok(),
            Some(Mode::Plain)
        );
        assert_eq!(progress(Some(Mode::Tty), true, unset).ok(), Some(Mode::Quiet));
        assert!(progress(None, false, env("KILN_PROGRESS", "fancy")).is_err());
        assert_eq!(log_limit(unset).ok(), Some(2 << 20));
        assert_eq!(log_limit(env("BUILDKIT_STEP_LOG_MAX_SIZE", "-1")).ok(), Some(u64::MAX));
        assert_eq!(log_limit(env("KILN_STEP_LOG_MAX_SIZE", "1m")).ok(), Some(1 << 20));
        assert!(log_limit(env("KILN_STEP_LOG_MAX_SIZE", "much")).is_err());
        assert_eq!(epoch(env("SOURCE_DATE_EPOCH", "7"), true).ok(), Some(Some(7)));
        assert_eq!(epoch(unset, true).ok(), Some(Some(0)));
        assert_eq!(epoch(unset, false).ok(), Some(None));
        assert!(epoch(env("SOURCE_DATE_EPOCH", "now"), false).is_err());
    }
}
