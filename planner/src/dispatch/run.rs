//! RUN: the command line, the environment, the mounts.

use alloc::{
    borrow::ToOwned,
    collections::BTreeMap,
    format,
    string::{String, ToString},
    vec,
    vec::Vec,
};

use parser::{
    ast::{self, Command, Instruction, Text},
    mount::{self, MountKind, MountSpec},
};

use super::{
    Builder,
    meta::{shell_line, with_shell},
    stage::StageState,
};
use crate::{
    error::{PlanError, PlanErrorKind},
    expand::Lexer,
    plan::{MountOp, Network, Op, RunOp, Sharing, Source},
    workdir,
};

/// Where a script given as a heredoc is put.
const SCRIPT_FOLDER: &str = "/dev/pipes/";

/// The host name of a RUN that none was given for.
const HOSTNAME: &str = "buildkitsandbox";

impl Builder<'_> {
    pub(super) fn run(
        &mut self,
        state: &mut StageState,
        run: &ast::Run,
        instruction: &Instruction,
    ) -> Result<(), PlanError> {
        if let Some(device) = run.devices.first() {
            let kind = PlanErrorKind::Device { device: device.value.clone() };
            return Err(PlanError::new(kind, device.span));
        }
        let is_strict = self.graph.strict_heredoc && !self.in_trigger;
        let (args, script) = command_line(state, run, is_strict);
        let request = &self.graph.request;
        let mounts = self.mounts(state, run)?;
        let op = RunOp {
            args: args.clone(),
            env: state.env.clone(),
            proxy_env: self.proxy_env(state),
            cwd: workdir::join("/", &state.config.config.working_dir),
            user: state.config.config.user.clone(),
            script,
            mounts,
            network: self.network(run)?,
            insecure: self.is_insecure(run)?,
            hostname: request
                .build_args
                .get("BUILDKIT_SANDBOX_HOSTNAME")
                .cloned()
                .unwrap_or_else(|| HOSTNAME.to_owned()),
            extra_hosts: request.add_hosts.clone(),
            shm_size: request.shm_size,
            ulimits: request.ulimits.clone(),
            cgroup_parent: request.cgroup_parent.clone(),
        };
        let mut name = self.step_name(state, instruction);
        if let Some(heredoc) = run.script() {
            name.push_str(&format!(" ({})", summary(&heredoc.content)));
        }
        let line = format!("RUN {} # buildkit", history_text(state, &args));
        self.add_step(state, name, instruction, Op::Run(op), line);
        Ok(())
    }

    fn network(&self, run: &ast::Run) -> Result<Network, PlanError> {
        let request = &self.graph.request;
        let parse = |mode: &str| match mode {
            "" | "default" => Some(Network::Default),
            "host" => Some(Network::Host),
            "none" => Some(Network::None),
            _ => None,
        };
        let unknown = |mode: &str, span| {
            PlanError::new(PlanErrorKind::UnknownNetwork { mode: mode.to_owned() }, span)
        };
        match &run.network {
            Some(text) if text.value != "default" => {
                let network = parse(&text.value).ok_or_else(|| unknown(&text.value, text.span))?;
                if network == Network::Host && request.network.as_deref() != Some("host") {
                    self.check_allowed("--network=host", "network.host", text)?;
                }
                Ok(network)
            }
            _ => {
                let mode = request.network.as_deref().unwrap_or_default();
                parse(mode).ok_or_else(|| unknown(mode, parser::span::Span::default()))
            }
        }
    }

    fn is_insecure(&self, run: &ast::Run) -> Result<bool, PlanError> {
        match &run.security {
            None => Ok(false),
            Some(text) if text.value == "sandbox" => Ok(false),
            Some(text) if text.value == "insecure" => {
                self.check_allowed("--security=insecure", "security.insecure", text)?;
                Ok(true)
            }
            Some(text) => Err(PlanError::new(
                PlanErrorKind::UnknownSecurity { mode: text.value.clone() },
                text.span,
            )),
        }
    }

    fn check_allowed(
        &self,
        what: &str,
        entitlement: &'static str,
        text: &Text,
    ) -> Result<(), PlanError> {
        if self.graph.request.entitlements.iter().any(|it| it == entitlement) {
            return Ok(());
        }
        let kind = PlanErrorKind::NotAllowed { what: what.to_owned(), entitlement };
        Err(PlanError::new(kind, text.span)
            .with_hint(format!("allow it with `--allow {entitlement}`")))
    }

    /// Proxy variables of the request, in both cases, unless the Dockerfile declares them itself.
    fn proxy_env(&self, state: &StageState) -> Vec<(String, String)> {
        let args = &self.graph.request.build_args;
        let mut env = Vec::new();
        for name in crate::request::PROXIES {
            let lower = name.to_lowercase();
            let Some(value) = args.get(name).or_else(|| args.get(&lower)) else { continue };
            for name in [name, &lower] {
                if state.env.value(name).is_none() {
                    env.push((name.to_owned(), value.clone()));
                }
            }
        }
        env.sort();
        env
    }

    fn mounts(&mut self, state: &StageState, run: &ast::Run) -> Result<Vec<MountOp>, PlanError> {
        let lexer = Lexer::new(self.graph.escape);
        let mut mounts = Vec::new();
        let mut n_ssh = 0;
        for mount in &run.mounts {
            let invalid = |message: String| {
                PlanError::new(PlanErrorKind::InvalidMount { message }, mount.text.span)
            };
            let mut fields = Vec::with_capacity(mount.fields.len());
            for (key, value) in &mount.fields {
                let value = match value {
                    Some(value) if key != "from" => {
                        Some(self.expand_with(&lexer, state, value, mount.text.span)?)
                    }
                    other => other.clone(),
                };
                fields.push((key.clone(), value));
            }
            let spec = mount::resolve(&fields).map_err(|error| invalid(error.to_string()))?;
            let source = match &spec.from {
                Some(from) if !from.is_empty() => Some(
                    self.source_named(&Text { value: from.clone(), span: mount.text.span }, state)?,
                ),
                _ => None,
            };
            mounts.push(self.mount(state, spec, source, &mut n_ssh).map_err(invalid)?);
        }
        Ok(mounts)
    }

    fn mount(
        &self,
        state: &StageState,
        spec: MountSpec,
        source: Option<Source>,
        n_ssh: &mut usize,
    ) -> Result<MountOp, String> {
        let id_of = |id: Option<u64>| {
            u32::try_from(id.unwrap_or(0)).map_err(|_| "an id is too large".to_owned())
        };
        let absolute = |path: &str| workdir::join(&state.config.config.working_dir, path);
        let (uid, gid) = (id_of(spec.uid)?, id_of(spec.gid)?);
        match spec.kind {
            MountKind::Secret => {
                let id = match (spec.source.or(spec.id), &spec.target) {
                    (Some(id), _) if !id.is_empty() => id,
                    (_, Some(target)) if !target.is_empty() => last_name(target).to_owned(),
                    _ => return Err("one of source, target required".to_owned()),
                };
                let target = match (&spec.target, &spec.env) {
                    (Some(target), _) if !target.is_empty() => Some(absolute(target)),
                    (_, Some(_)) => None,
                    _ => Some(format!("/run/secrets/{}", last_name(&id))),
                };
                let (required, mode) = (spec.required, spec.mode.unwrap_or(0o400));
                return Ok(MountOp::Secret { id, target, env: spec.env, required, mode, uid, gid });
            }
            MountKind::Ssh => {
                if spec.source.is_some() {
                    return Err("ssh does not support source".to_owned());
                }
                let id =
                    spec.id.filter(|it| !it.is_empty()).unwrap_or_else(|| "default".to_owned());
                let target = spec.target.filter(|it| !it.is_empty()).map(|it| absolute(&it));
                let target = target.unwrap_or_else(|| format!("/run/buildkit/ssh_agent.{n_ssh}"));
                *n_ssh += 1;
                let (required, mode) = (spec.required, spec.mode.unwrap_or(0o600));
                return Ok(MountOp::Ssh { id, target, required, mode, uid, gid });
            }
            MountKind::Bind | MountKind::Cache | MountKind::Tmpfs => {}
        }
        let written = spec.target.clone().unwrap_or_default();
        let target = absolute(&written);
        if target == "/" {
            return Err(format!(
                "invalid mount target `{written}`: the root cannot be mounted over"
            ));
        }
        if ["/proc", "/sys"].iter().any(|it| target == *it || target.starts_with(&format!("{it}/")))
        {
            return Err(format!(
                "invalid mount target `{written}`: nothing may be mounted in /proc and /sys"
            ));
        }
        let path = workdir::join("/", spec.source.as_deref().unwrap_or("/"));
        match spec.kind {
            MountKind::Tmpfs => Ok(MountOp::Tmpfs { target, size: spec.size.filter(|it| *it > 0) }),
            MountKind::Cache => {
                let id = match spec.id {
                    Some(id) if !id.is_empty() => id,
                    _ => workdir::join("/", &written),
                };
                let id = match self.graph.request.build_args.get("BUILDKIT_CACHE_MOUNT_NS") {
                    Some(namespace) => format!("{namespace}/{id}"),
                    None => id,
                };
                let sharing = match spec.sharing {
                    mount::Sharing::Shared => Sharing::Shared,
                    mount::Sharing::Private => Sharing::Private,
                    mount::Sharing::Locked => Sharing::Locked,
                };
                let seed = source.filter(|it| *it != Source::Scratch).map(|source| (source, path));
                let (read_only, mode) = (spec.read_only, spec.mode.unwrap_or(0o755));
                Ok(MountOp::Cache { id, target, sharing, seed, read_only, mode, uid, gid })
            }
            _ => {
                let source = source.unwrap_or_else(|| Source::Local("context".to_owned()));
                Ok(MountOp::Bind { source, path, target, writable: !spec.read_only })
            }
        }
    }
}

/// The words to run, and the script that the first of them names. A script for a shell begins with `set -e` if it is strict.
fn command_line(
    state: &StageState,
    run: &ast::Run,
    is_strict: bool,
) -> (Vec<String>, Option<(String, String)>) {
    let text = match &run.command {
        Command::Shell(text) if !run.heredocs.is_empty() => text,
        command => return (with_shell(state, command), None),
    };
    if let Some(heredoc) = run.script() {
        let (name, content) = (&heredoc.name, &heredoc.content);
        if content.starts_with("#!") && state.platform.os != "windows" {
            return (vec![format!("{SCRIPT_FOLDER}{name}")], Some((name.clone(), content.clone())));
        }
        let start = if is_strict && has_posix_shell(state) { "set -e\n" } else { "" };
        return (shell_line(state, [start, content].concat()), None);
    }
    // The shell reads these heredocs itself.
    let mut line = text.value.clone();
    for heredoc in &run.heredocs {
        line.push('\n');
        line.push_str(&heredoc.raw);
        line.push_str(&heredoc.name);
    }
    (shell_line(state, line), None)
}

/// What SHELL names, or stands for without it, is a shell that knows `set -e`.
fn has_posix_shell(state: &StageState) -> bool {
    const SHELLS: [&str; 9] =
        ["ash", "bash", "busybox", "dash", "ksh", "mksh", "sh", "yash", "zsh"];
    match state.config.config.shell.as_deref() {
        Some([program, ..]) => SHELLS.contains(&last_name(program)),
        Some([]) | None => state.platform.os != "windows",
    }
}

/// The first line of a script, for progress.
fn summary(content: &str) -> String {
    let mut lines = content.trim().lines();
    let first = lines.next().unwrap_or_default();
    if lines.next().is_some() { format!("{first}...") } else { first.to_owned() }
}

fn last_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or(path)
}

/// The command with the values of all ARGs in front, as the history keeps it.
fn history_text(state: &StageState, args: &[String]) -> String {
    let mut order: Vec<&str> = Vec::new();
    let mut values: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, value) in &state.args {
        if !values.contains_key(name.as_str()) {
            order.push(name);
        }
        let value = state.env.value(name).or(value.as_deref()).unwrap_or_default();
        values.insert(name, value);
    }
    let mut words: Vec<String> = Vec::new();
    if !order.is_empty() {
        words.push(format!("|{}", order.len()));
        words.extend(order.iter().map(|name| format!("{name}={}", values[name])));
    }
    words.extend(args.iter().cloned());
    words.join(" ")
}
