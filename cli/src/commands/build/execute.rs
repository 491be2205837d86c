//! The call into the executor: Dockerfile and contexts in, image and outputs out.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::anyhow;
use executor::{
    Built, Context, DefaultNetwork, ExecutorError, Secret, Session, SshAgent, SshKeys, StepError,
    attest::Invocation,
    event::{Event, Listener},
    explain::About,
    time::Timestamp,
};
use parser::ast::Kind;
use planner::{
    facts::Facts,
    git_url::GitRef,
    lint::{Images, Subject, Warning},
    plan::{GitSource, HttpSource, Plan, Source as PlanSource},
    request::Request,
};
use registry::{Client, Credentials};

use super::{
    frontend,
    ignore::IgnoreFile,
    input::{self, Dockerfile},
    job::Job,
    lint, missing, outputs, parameters,
    report::Finished,
};
use crate::{
    commands::{Globals, explain::Explanation},
    config::NetworkConfig,
    exit::Exit,
    failure::{Failure, Result},
    progress::Mode,
    render::{self, Diagnostic, Severity, Source},
    values::{SecretSource, Ssh},
};

/// What a file that a URL gives is called in the context that it is.
const HTTP_FILE: &str = "context";

/// Dockerfiles and ignore files are never longer.
const LARGEST_FILE: u64 = 16 << 20;

/// Builds. What the lint finds is added to `warnings`, and why steps ran is told if that was asked for, also where the
/// build fails.
///
/// # Errors
///
/// Fails where the Dockerfile is wrong or a step failed.
pub fn execute(
    job: &mut Job,
    globals: &Globals,
    listener: Listener,
    warnings: &mut Vec<Warning>,
    explanation: &mut Option<Explanation>,
) -> Result<Finished> {
    with_session(job, globals, listener, |job, session| {
        let built = build(job, session, warnings);
        if job.explain {
            *explanation = Explanation::of_session(session)?;
        }
        built
    })
}

/// Works with a session that Ctrl-C stops.
///
/// # Errors
///
/// Fails where the work does, or there can be no session.
pub fn with_session<T>(
    job: &mut Job,
    globals: &Globals,
    listener: Listener,
    work: impl FnOnce(&mut Job, &mut Session) -> Result<T>,
) -> Result<T> {
    let mut session = session(job, globals, listener)?;
    let cancel = session.cancel.clone();
    crate::signals::on_interrupt(move || cancel.cancel());
    let done = work(job, &mut session);
    if crate::signals::was_interrupted() {
        return Err(done
            .err()
            .unwrap_or_else(|| Failure::failed(anyhow!("canceled")))
            .exit(Exit::Interrupted));
    }
    done
}

fn build(job: &mut Job, session: &mut Session, warnings: &mut Vec<Warning>) -> Result<Finished> {
    let started = Timestamp::now();
    let remote_context = remote_source(&job.input.context);
    let locals = locals(job);
    let Planned { name, text, ignore, facts, plans } = planned(job, session, warnings)?;
    let source = Source { name: &name, text: &text };
    let not_there = session.missing_sources(&plans);
    if !not_there.is_empty() {
        let diagnostics: Vec<Diagnostic> = not_there
            .iter()
            .map(|it| missing::with_reason(of_step(&ignore, it), it, &text, session))
            .collect();
        return Err(shown(source, &diagnostics, Exit::Failed));
    }
    let mut images = session
        .build(&plans, &facts)
        .map_err(|error| shown(source, &[of_step(&ignore, &error)], Exit::Failed))?;
    if let Some(asked) = &job.provenance {
        let (path, dockerfile) = (name.clone(), parser::encode(&text));
        let mut invocation =
            Invocation { args: BTreeMap::new(), path, dockerfile, remote_context, locals, started };
        for ((image, plan), request) in images.iter_mut().zip(&plans).zip(&job.requests) {
            invocation.args = parameters::of(request);
            image.attestations.push(session.provenance(plan, &facts, asked, &invocation));
        }
    }
    let image = outputs::write(job, session, &images)?;
    if let Err(error) = session.store.collect() {
        let message = format!("cannot remove what became old: {error}");
        (session.listener)(Event::Warning { task: None, message });
    }
    Ok(Finished {
        image,
        build: Some(session.build_id.clone()),
        dockerfile: Some((name, text)),
        provenance: provenances(&images),
    })
}

/// The provenance of each image, with the platform where there are several.
fn provenances(images: &[Built]) -> Vec<(Option<String>, serde_json::Value)> {
    let mut found = Vec::new();
    for image in images {
        let platform = (images.len() > 1).then(|| image.platform.to_string());
        let predicates = image.attestations.iter().map(|it| it.predicate.clone());
        found.extend(predicates.map(|it| (platform.clone(), it)));
    }
    found
}

/// The folders of the machine that a build reads, by name.
fn locals(job: &Job) -> Vec<String> {
    let mut locals = Vec::new();
    if matches!(job.input.context, input::Context::Directory(_)) {
        locals.push("context".to_owned());
    }
    if matches!(job.input.dockerfile, Dockerfile::Read { .. }) {
        locals.push("dockerfile".to_owned());
    }
    locals
}

/// The source that a context from the network is.
fn remote_source(context: &input::Context) -> Option<PlanSource> {
    let input::Context::Remote(url) = context else { return None };
    Some(match GitRef::parse(url) {
        Ok(Some(git)) => PlanSource::Git(git_source(git)),
        _ => PlanSource::Http(http_source(url)),
    })
}

fn git_source(git: GitRef) -> GitSource {
    let keep_git_dir = git.keep_git_dir.unwrap_or(false);
    let checksum = Some(git.checksum.clone()).filter(|it| !it.is_empty());
    GitSource { url: git, keep_git_dir, checksum }
}

fn http_source(url: &str) -> HttpSource {
    HttpSource { url: url.to_owned(), filename: HTTP_FILE.to_owned(), checksum: None }
}

/// What is to be done, and how it is known.
#[derive(Debug)]
pub struct Planned {
    /// What to call the Dockerfile.
    pub name: String,
    /// The Dockerfile.
    pub text: String,
    /// The ignore file.
    pub ignore: IgnoreFile,
    /// What was looked up.
    pub facts: Facts,
    /// A plan for each request.
    pub plans: Vec<Plan>,
}

/// Plans. What the lint finds is added to `warnings`, also where there is no plan.
///
/// # Errors
///
/// Fails where the Dockerfile is wrong, or a base image cannot be had.
pub fn planned(
    job: &mut Job,
    session: &mut Session,
    warnings: &mut Vec<Warning>,
) -> Result<Planned> {
    let Opened { name, text, ignore } = contexts(job, session)?;
    let source = Source { name: &name, text: &text };
    frontend::check(source, &job.requests[0])?;
    let (dockerfile, mistakes) = parser::parse(&text);
    let declared = names_of_args(&dockerfile);
    for message in misspelt_args(&job.requests[0], &declared) {
        (session.listener)(Event::Warning { task: None, message });
    }
    session.about = Some(About { args: declared, ignored: ignore.texts(), ..job.about.clone() });
    let mut facts = Facts { ignored: ignore.texts(), ..Facts::default() };
    let plans: Result<Vec<Plan>> = match mistakes.is_empty() {
        true => {
            let plan = |it| plan(source, &dockerfile, it, &mut facts, session);
            job.requests.iter().map(plan).collect()
        }
        false => {
            let diagnostics: Vec<Diagnostic> = mistakes.iter().map(Diagnostic::from).collect();
            Err(shown(source, &diagnostics, Exit::Input))
        }
    };
    let subject = Subject {
        dockerfile: &dockerfile,
        diagnostics: &mistakes,
        text: &text,
        request: &job.requests[0],
        ignored: &facts.ignored,
        images: &Images::new(),
    };
    warnings.extend(lint::of_build(&subject, &job.requests, &facts, plans.is_err()));
    if job.progress.resolved() == Mode::Rawjson {
        for warning in warnings.iter() {
            (session.listener)(Event::Warning { task: None, message: lint::line(warning) });
        }
    }
    let plans = plans?;
    lint::refuse(&subject, warnings)?;
    for message in lint::unused_args(&job.requests[0], &names_of_args(&dockerfile), &facts) {
        (session.listener)(Event::Warning { task: None, message });
    }
    Ok(Planned { name, text, ignore, facts, plans })
}

/// The variables that come from ARG.
fn names_of_args(dockerfile: &parser::ast::Dockerfile) -> Vec<String> {
    let pairs = dockerfile.instructions.iter().filter_map(|it| match &it.kind {
        Kind::Arg(arg) => Some(&arg.args),
        _ => None,
    });
    let mut names: Vec<String> = pairs.flatten().map(|it| it.key.value.clone()).collect();
    names.sort();
    names.dedup();
    names
}

/// Says of build arguments that no ARG declares which one may have been meant. Others are let pass, as docker does: one
/// command line may serve many Dockerfiles.
fn misspelt_args(request: &Request, declared: &[String]) -> Vec<String> {
    // Shorter names are near to each other by chance.
    const SHORTEST: usize = 4;
    let args = &request.build_args;
    let free = || declared.iter().map(String::as_str).filter(|it| !args.contains_key(*it));
    let meant = |name: &str| match free().find(|it| it.eq_ignore_ascii_case(name)) {
        Some(same) => Some(same),
        None if name.len() < SHORTEST => None,
        None => parser::suggest::suggest(name, free(), true),
    };
    args.keys()
        .filter(|it| !declared.contains(it))
        .filter_map(|name| {
            let meant = meant(name)?;
            Some(format!("no ARG declares the build argument `{name}`: did you mean `{meant}`?"))
        })
        .collect()
}

fn session(job: &Job, globals: &Globals, listener: Listener) -> Result<Session> {
    let config = globals.config()?;
    let store = globals.store_of(&config)?;
    let mut registries = config.registries();
    for name in outputs::insecure(job) {
        let registry = registries.registries.entry(name).or_default();
        (registry.http, registry.insecure) = (Some(true), Some(true));
    }
    let client =
        Client::new(registries, Credentials::from_environment(|name| std::env::var_os(name)));
    let mut session = Session::new(store, client);
    session.listener = listener;
    session.pull = job.pull;
    session.compression = outputs::compression(job)?;
    session.clamp_times =
        job.reproducible || job.outputs.iter().any(|it| it.rewrite_timestamp == Some(true));
    session.default_network = match (job.is_isolated, config.build.network) {
        (true, _) | (_, Some(NetworkConfig::Isolated)) => DefaultNetwork::Isolated,
        (_, Some(NetworkConfig::Host)) => DefaultNetwork::Host,
        (_, None) => DefaultNetwork::IsolatedOrHost,
    };
    session.limits = job.limits.clone();
    session.log_limit = job.log_limit;
    if let Some(n_jobs) = job.jobs {
        session.n_jobs = n_jobs.get();
    }
    for secret in &job.secrets {
        let value = match &secret.source {
            SecretSource::File(path) => Secret::File(path.clone()),
            SecretSource::Env(name) => match std::env::var_os(name) {
                Some(value) => Secret::Value(std::os::unix::ffi::OsStringExt::into_vec(value)),
                None => continue,
            },
            SecretSource::ById => continue,
        };
        session.secrets.insert(secret.id.clone(), value);
    }
    for ssh in &job.ssh {
        session.ssh.insert(ssh.id.clone(), ssh_agent(ssh)?);
    }
    Ok(session)
}

/// The agent that one `--ssh` names: a socket, or keys in files.
fn ssh_agent(ssh: &Ssh) -> Result<SshAgent> {
    use std::os::unix::fs::FileTypeExt;
    let is_socket = |path: &PathBuf| fs::metadata(path).is_ok_and(|it| it.file_type().is_socket());
    match ssh.paths.as_slice() {
        [] => match std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from) {
            Some(path) if is_socket(&path) => Ok(SshAgent::Socket(path)),
            _ => Err(Failure::input(anyhow!(
                "`--ssh {}` needs an agent, and SSH_AUTH_SOCK names none",
                ssh.id
            ))
            .hint("start one with `eval $(ssh-agent); ssh-add`, or name a key: `--ssh ID=FILE`")),
        },
        [path] if is_socket(path) => Ok(SshAgent::Socket(path.clone())),
        paths if paths.iter().any(is_socket) => {
            let message = anyhow!("`--ssh {}` names a socket beside other files", ssh.id);
            Err(Failure::input(message).hint("an agent or keys, each under an id of its own"))
        }
        paths => match SshKeys::read(paths) {
            Ok(keys) => Ok(SshAgent::Keys(keys.into())),
            Err(error) => {
                let hint = error.hint();
                Err(Failure::input(error).hint(hint))
            }
        },
    }
}

/// What was read of the main context.
#[derive(Debug)]
pub struct Opened {
    /// What to call the Dockerfile.
    pub name: String,
    /// The Dockerfile.
    pub text: String,
    /// The ignore file.
    pub ignore: IgnoreFile,
}

/// Opens the main context and reads the Dockerfile.
///
/// # Errors
///
/// Fails where one of them cannot be read.
pub fn contexts(job: &mut Job, session: &mut Session) -> Result<Opened> {
    let mut ignore = IgnoreFile::default();
    let context = match std::mem::replace(&mut job.input.context, input::Context::Empty) {
        input::Context::Empty => Context::empty(),
        input::Context::Directory(path) => {
            ignore = IgnoreFile::of(&job.input.dockerfile, &path)?;
            Context::folder(session, &path, ignore.texts()).map_err(failed)?
        }
        input::Context::Archive(input) => Context::archive(session, input).map_err(failed)?,
        input::Context::Remote(url) => remote_context(session, &url)?,
    };
    let (name, bytes) = match &job.input.dockerfile {
        Dockerfile::Read { name, bytes, .. } => (name.clone(), bytes.clone()),
        Dockerfile::Remote { url } => {
            let shown = input::without_password(url);
            match http_context(session, url)?.read_file(HTTP_FILE, LARGEST_FILE).map_err(failed)? {
                Some(bytes) => (shown, bytes),
                None => {
                    return Err(Failure::input(anyhow!(
                        "`{shown}` is no Dockerfile, but an archive"
                    ))
                    .hint("use it as the context, and name the Dockerfile in it with -f"));
                }
            }
        }
        Dockerfile::InContext { path } => match context
            .read_file(path, LARGEST_FILE)
            .map_err(failed)?
        {
            Some(bytes) => (path.clone(), bytes),
            None => match context.read_file(&path.to_lowercase(), LARGEST_FILE).map_err(failed)? {
                Some(bytes) if path == "Dockerfile" => (path.to_lowercase(), bytes),
                // A single file from the network is the Dockerfile itself.
                _ => match context.read_file(HTTP_FILE, LARGEST_FILE).map_err(failed)? {
                    Some(bytes) => (path.clone(), bytes),
                    None => {
                        let message = anyhow!("Dockerfile `{path}` not found in the context");
                        return Err(Failure::input(message)
                            .hint("name another file of the context with -f"));
                    }
                },
            },
        },
    };
    session.contexts.insert("context".to_owned(), context);
    Ok(Opened { name, text: parser::decode(&bytes), ignore })
}

fn remote_context(session: &Session, url: &str) -> Result<Context> {
    match GitRef::parse(url) {
        Ok(Some(git)) => Context::git(session, &git_source(git)).map_err(failed),
        Err(error) => Err(Failure::input(anyhow!(
            "`{}` is no context: {error}",
            input::without_password(url)
        ))),
        Ok(None) => http_context(session, url),
    }
}

/// What a URL gives: the files of an archive, or one file.
fn http_context(session: &Session, url: &str) -> Result<Context> {
    Context::http(session, &http_source(url)).map_err(failed)
}

fn plan(
    source: Source<'_>,
    dockerfile: &parser::ast::Dockerfile,
    request: &Request,
    facts: &mut Facts,
    session: &mut Session,
) -> Result<Plan> {
    let refused = |errors: Vec<planner::PlanError>| {
        let diagnostics: Vec<Diagnostic> = errors.iter().map(of_plan).collect();
        shown(source, &diagnostics, Exit::Input)
    };
    let mut request = request.clone();
    if let Some(epoch) =
        planner::epoch_source(dockerfile, &request).map_err(|it| refused(vec![it]))?
    {
        let time = session.source_time(&epoch).map_err(failed)?;
        let text = time.map(|it| it.to_string()).unwrap_or_default();
        request.build_args.insert(planner::epoch::VARIABLE.to_owned(), text);
    }
    let graph = planner::stages(dockerfile, &request).map_err(refused)?;
    for (name, value) in graph.local_contexts() {
        if session.contexts.contains_key(&name) {
            continue;
        }
        let path = PathBuf::from(&value);
        let ignore = IgnoreFile::of(&Dockerfile::InContext { path: String::new() }, &path)?;
        let context = Context::folder(session, &path, ignore.texts()).map_err(failed)?;
        session.contexts.insert(name, context);
    }
    loop {
        let needs = planner::needs(&graph, facts).map_err(refused)?;
        if needs.is_empty() {
            return planner::plan(&graph, facts).map_err(refused);
        }
        session.look_up(&needs, facts).map_err(|(query, error)| {
            let mut diagnostic = Diagnostic { span: graph.span_of(&query), ..of_executor(&error) };
            if let Some(stage) = graph.meant_stage(&query) {
                diagnostic.hint = Some(format!("no stage has this name: did you mean `{stage}`?"));
            }
            shown(source, &[diagnostic], Exit::Failed)
        })?;
    }
}

fn of_plan(error: &planner::PlanError) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        code: error.code().to_owned(),
        message: error.to_string(),
        span: (error.span != parser::span::Span::default()).then_some(error.span),
        hint: error.hint.clone(),
    }
}

fn of_executor(error: &ExecutorError) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        code: error.code().to_owned(),
        message: executor::message(error),
        span: None,
        hint: error.hint(),
    }
}

fn of_step(ignore: &IgnoreFile, error: &StepError) -> Diagnostic {
    let mut diagnostic = Diagnostic { span: error.span, ..of_executor(&error.source) };
    if let ExecutorError::Ignored { path, pattern } = &*error.source
        && let Some(place) = ignore.place_of(pattern)
    {
        diagnostic.message = format!(
            "failed to calculate checksum: `{path}`: not found, excluded by `{pattern}` at {place}"
        );
    }
    diagnostic
}

/// A failure that shows the place in the Dockerfile.
pub fn shown(source: Source<'_>, diagnostics: &[Diagnostic], exit: Exit) -> Failure {
    Failure::rendered(render::render(source, diagnostics, crate::print::colour()), exit)
}

/// A failure without a place, with what to do about it.
pub fn failed(error: ExecutorError) -> Failure {
    let hint = error.hint();
    let failure = Failure::failed(anyhow!("{}", executor::message(&error)));
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
