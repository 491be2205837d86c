//! Instructions that only change the config, WORKDIR, and the walk over all of them.

use alloc::{
    borrow::ToOwned,
    format,
    string::{String, ToString},
    vec,
    vec::Vec,
};

use image::document;
use parser::{
    ast::{self, Command, Instruction, Kind, Text},
    span::Span,
};
use serde_json::Map;

use super::{Builder, stage::StageState};
use crate::{
    error::{PlanError, PlanErrorKind},
    expand::Lexer,
    expose,
    plan::{MkdirOp, Op, Step, StepId},
    signal, workdir,
};

/// Arguments that never become environment variables.
const NON_ENV_ARGS: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

impl Builder<'_> {
    pub(super) fn instruction(
        &mut self,
        state: &mut StageState,
        instruction: &Instruction,
    ) -> Result<(), PlanError> {
        match &instruction.kind {
            Kind::Arg(arg) => self.arg(state, arg),
            Kind::Env(pairs) => self.env(state, pairs),
            Kind::Label(pairs) => self.label(state, pairs),
            Kind::Run(run) => self.run(state, run, instruction),
            Kind::Copy(copy) => self.copy(state, copy, None, instruction),
            Kind::Add(add) => self.copy(state, &add.copy, Some(add), instruction),
            Kind::Workdir(path) => self.workdir(state, path, instruction),
            Kind::User(user) => {
                let user = self.expand(state, user)?;
                state.remember(format!("USER {user}"), None);
                state.config.config.user = user;
                Ok(())
            }
            Kind::Cmd(command) => {
                let args = with_shell(state, command);
                state.remember(format!("CMD {}", quoted_list(&args)), None);
                state.config.config.cmd = Some(args);
                state.config.config.args_escaped = true;
                state.is_cmd_set = true;
                Ok(())
            }
            Kind::Entrypoint(command) => {
                let args = with_shell(state, command);
                state.remember(format!("ENTRYPOINT {}", quoted_list(&args)), None);
                state.config.config.entrypoint = Some(args);
                state.config.config.args_escaped = true;
                if !state.is_cmd_set {
                    state.config.config.cmd = None;
                }
                Ok(())
            }
            Kind::Shell(words) => {
                let words: Vec<String> = words.iter().map(|it| it.value.clone()).collect();
                state.remember(format!("SHELL [{}]", words.join(" ")), None);
                state.config.config.shell = Some(words);
                Ok(())
            }
            Kind::Expose(words) => self.expose(state, words),
            Kind::Volume(words) => {
                let mut volumes = Vec::new();
                for word in words {
                    let volume = self.expand(state, word)?;
                    if volume.is_empty() {
                        let kind = PlanErrorKind::EmptyVolume { written: word.value.clone() };
                        return Err(PlanError::new(kind, word.span)
                            .with_hint("its variables have no value here"));
                    }
                    volumes.push(volume);
                }
                for volume in &volumes {
                    state.config.config.volumes.insert(volume.clone(), Map::new());
                }
                state.remember(format!("VOLUME [{}]", volumes.join(" ")), None);
                Ok(())
            }
            Kind::Stopsignal(text) => {
                let name = self.expand(state, text)?;
                if let Err(error) = signal::parse(&name) {
                    return Err(PlanError::new(
                        PlanErrorKind::InvalidSignal { message: error.to_string() },
                        text.span,
                    ));
                }
                state.remember(format!("STOPSIGNAL {name}"), None);
                state.config.config.stop_signal = name;
                Ok(())
            }
            Kind::Healthcheck(healthcheck) => {
                healthcheck_config(state, healthcheck);
                Ok(())
            }
            Kind::Onbuild(onbuild) => {
                state.config.config.on_build.push(onbuild.expression.clone());
                Ok(())
            }
            Kind::Maintainer(name) => {
                state.config.author = name.value.clone();
                state.remember(format!("MAINTAINER {}", name.value), None);
                Ok(())
            }
            Kind::From(_) | Kind::Invalid => {
                Err(PlanError::new(PlanErrorKind::Invalid, instruction.span))
            }
        }
    }

    /// Expands the variables of one word.
    pub(super) fn expand(&self, state: &StageState, text: &Text) -> Result<String, PlanError> {
        self.expand_with(&Lexer::new(self.graph.escape), state, &text.value, text.span)
    }

    pub(super) fn expand_with(
        &self,
        lexer: &Lexer,
        state: &StageState,
        word: &str,
        span: Span,
    ) -> Result<String, PlanError> {
        match lexer.word(word, &state.env) {
            Ok(expanded) => Ok(expanded.text),
            Err(source) => {
                Err(PlanError::new(PlanErrorKind::Expand { word: word.to_owned(), source }, span))
            }
        }
    }

    /// The name of the next step: `[build 2/5] RUN make`, variables expanded where they are set.
    pub(super) fn step_name(&self, state: &mut StageState, instruction: &Instruction) -> String {
        let prefix = state.next_prefix();
        let trigger = if self.in_trigger { "ONBUILD " } else { "" };
        format!("{prefix}{trigger}{}", self.step_text(state, instruction))
    }

    fn step_text(&self, state: &StageState, instruction: &Instruction) -> String {
        let lexer = Lexer { raw_quotes: true, keep_unset: true, ..Lexer::new(self.graph.escape) };
        // A variable that a secret stands in is none that the Dockerfile knows.
        let secrets = secret_variables(instruction);
        let hidden = (!secrets.is_empty()).then(|| {
            let mut env = state.env.clone();
            secrets.iter().for_each(|name| env.set(name, "****"));
            env
        });
        let text = lexer.word(&instruction.original, hidden.as_ref().unwrap_or(&state.env));
        let text = text.map_or_else(|_| instruction.original.clone(), |it| it.text);
        let text = without_passwords(&text);
        match text.split_once([' ', '\t']) {
            Some((keyword, rest)) => format!("{} {}", keyword.to_uppercase(), rest.trim_start()),
            None => text.to_uppercase(),
        }
    }

    fn arg(&mut self, state: &mut StageState, arg: &ast::Arg) -> Result<(), PlanError> {
        let mut texts = Vec::new();
        for pair in &arg.args {
            let name = &pair.key.value;
            let request = &self.graph.request;
            let value = if let Some(given) = request.build_args.get(name) {
                Some(given.clone())
            } else if let Some(written) = &pair.value {
                Some(self.expand(state, written)?)
            } else {
                self.graph.global_args.value(name).map(ToOwned::to_owned)
            };
            if let Some(value) = &value
                && !NON_ENV_ARGS.contains(&name.as_str())
            {
                state.env.set(name, value);
                state.is_settled = false;
            }
            texts.push(match &value {
                Some(value) => format!("{name}={value}"),
                None => name.clone(),
            });
            state.args.push((name.clone(), value));
        }
        state.remember(format!("ARG {}", texts.join(" ")), None);
        Ok(())
    }

    fn env(&mut self, state: &mut StageState, pairs: &ast::Pairs) -> Result<(), PlanError> {
        let pairs = self.expand_pairs(state, pairs)?;
        for (key, value) in &pairs {
            state.set_variable(key, value);
        }
        state.remember(format!("ENV {}", pairs_text(&pairs)), None);
        Ok(())
    }

    fn label(&mut self, state: &mut StageState, pairs: &ast::Pairs) -> Result<(), PlanError> {
        let pairs = self.expand_pairs(state, pairs)?;
        state.remember(format!("LABEL {}", pairs_text(&pairs)), None);
        state.config.config.labels.extend(pairs);
        Ok(())
    }

    /// All pairs of a line see the values from before it.
    fn expand_pairs(
        &self,
        state: &StageState,
        pairs: &ast::Pairs,
    ) -> Result<Vec<(String, String)>, PlanError> {
        pairs
            .pairs
            .iter()
            .map(|(key, value)| Ok((self.expand(state, key)?, self.expand(state, value)?)))
            .collect()
    }

    fn expose(&mut self, state: &mut StageState, words: &[Text]) -> Result<(), PlanError> {
        let lexer = Lexer::new(self.graph.escape);
        let mut ports: Vec<String> = Vec::new();
        for word in words {
            let expanded = lexer.words(&word.value, &state.env).map_err(|source| {
                PlanError::new(
                    PlanErrorKind::Expand { word: word.value.clone(), source },
                    word.span,
                )
            })?;
            let parsed = expose::parse(&expanded).map_err(|error| {
                PlanError::new(PlanErrorKind::InvalidPort { message: error.to_string() }, word.span)
            })?;
            ports.extend(parsed);
        }
        ports.sort();
        ports.dedup();
        for port in &ports {
            state.config.config.exposed_ports.insert(port.clone(), Map::new());
        }
        state.remember(format!("EXPOSE [{}]", ports.join(" ")), None);
        Ok(())
    }

    fn workdir(
        &mut self,
        state: &mut StageState,
        path: &Text,
        instruction: &Instruction,
    ) -> Result<(), PlanError> {
        let written = self.expand(state, path)?;
        let path = workdir::join(&state.config.config.working_dir, &written);
        state.config.config.working_dir = path.clone();
        let name = self.step_name(state, instruction);
        let line = format!("WORKDIR {path}");
        if path == "/" {
            state.remember(line, None);
            return Ok(());
        }
        let op = Op::Mkdir(MkdirOp { path, user: state.config.config.user.clone() });
        self.add_step(state, name, instruction, op, line);
        Ok(())
    }

    /// Adds a step on top of the stage's tree and its line of history.
    pub(super) fn add_step(
        &mut self,
        state: &mut StageState,
        name: String,
        instruction: &Instruction,
        op: Op,
        line: String,
    ) {
        let step = Step {
            name,
            span: instruction.span,
            text: without_passwords(&instruction.original),
            stage: state.display.clone(),
            parent: state.tree.clone(),
            op,
            no_cache: state.no_cache,
            platform: state.platform.clone(),
        };
        state.tree = self.push(step);
        state.remember(line, Some(StepId(self.steps.len() - 1)));
    }
}

/// The variables that a RUN gets secrets in.
fn secret_variables(instruction: &Instruction) -> Vec<&str> {
    let Kind::Run(run) = &instruction.kind else { return Vec::new() };
    let fields = run.mounts.iter().flat_map(|it| &it.fields);
    fields.filter(|(key, _)| key == "env").filter_map(|(_, name)| name.as_deref()).collect()
}

/// A text without the names and passwords of its URLs, for progress and logs.
fn without_passwords(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let n_authority = after.find(['/', '?', '#', ' ', '\t', '"', '\'']).unwrap_or(after.len());
        let n_hidden = after[..n_authority].rfind('@').map_or(0, |it| it + 1);
        rest = &after[n_hidden..];
    }
    out.push_str(rest);
    out
}

/// The words to run: shell form gets the stage's shell in front.
pub(super) fn with_shell(state: &StageState, command: &Command) -> Vec<String> {
    match command {
        Command::Exec(words) => words.iter().map(|it| it.value.clone()).collect(),
        Command::Shell(text) => shell_line(state, text.value.clone()),
    }
}

pub(super) fn shell_line(state: &StageState, line: String) -> Vec<String> {
    let mut args = match &state.config.config.shell {
        Some(shell) if !shell.is_empty() => shell.clone(),
        _ if state.platform.os == "windows" => ["cmd", "/S", "/C"].map(ToOwned::to_owned).to_vec(),
        _ => vec!["/bin/sh".to_owned(), "-c".to_owned()],
    };
    args.push(line);
    args
}

fn healthcheck_config(state: &mut StageState, healthcheck: &ast::Healthcheck) {
    let config = match healthcheck {
        ast::Healthcheck::None => {
            document::Healthcheck { test: vec!["NONE".to_owned()], ..Default::default() }
        }
        ast::Healthcheck::Cmd {
            command,
            interval,
            timeout,
            start_period,
            start_interval,
            retries,
        } => {
            let mut test = vec![match command {
                Command::Shell(_) => "CMD-SHELL".to_owned(),
                Command::Exec(_) => "CMD".to_owned(),
            }];
            match command {
                Command::Shell(text) => test.push(text.value.clone()),
                Command::Exec(words) => test.extend(words.iter().map(|it| it.value.clone())),
            }
            document::Healthcheck {
                test,
                interval: *interval,
                timeout: *timeout,
                start_period: *start_period,
                start_interval: *start_interval,
                retries: i64::from(*retries),
            }
        }
    };
    let [interval, timeout, start_period, start_interval] =
        [config.interval, config.timeout, config.start_period, config.start_interval]
            .map(duration_text);
    // What Go prints of the struct.
    state.remember(
        format!(
            "HEALTHCHECK {{Test:[{}] Interval:{interval} Timeout:{timeout} StartPeriod:{start_period} \
             StartInterval:{start_interval} Retries:{}}}",
            config.test.join(" "),
            config.retries
        ),
        None,
    );
    state.config.config.healthcheck = Some(config);
}

/// A time as Go prints it: `1m30s`, `1.5s`, `500ms`.
fn duration_text(nanos: i64) -> String {
    let trimmed = |value: i64, unit: i64, digits: usize| {
        let (whole, rest) = (value / unit, value % unit);
        if rest == 0 {
            return whole.to_string();
        }
        format!("{whole}.{}", format!("{rest:0digits$}").trim_end_matches('0'))
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", trimmed(nanos, 1_000, 3)),
        1_000_000..1_000_000_000 => format!("{}ms", trimmed(nanos, 1_000_000, 6)),
        _ => {
            let (hours, rest) = (nanos / 3_600_000_000_000, nanos % 3_600_000_000_000);
            let (minutes, rest) = (rest / 60_000_000_000, rest % 60_000_000_000);
            let mut out = String::new();
            if hours > 0 {
                out.push_str(&format!("{hours}h"));
            }
            if hours > 0 || minutes > 0 {
                out.push_str(&format!("{minutes}m"));
            }
            out.push_str(&trimmed(rest, 1_000_000_000, 9));
            out.push('s');
            out
        }
    }
}

fn pairs_text(pairs: &[(String, String)]) -> String {
    pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}

/// Words as Go's `%q` prints a list: `["a" "b"]`.
fn quoted_list(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|it| format!("{it:?}")).collect();
    format!("[{}]", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_shown_without_passwords() {
        for (text, shown) in [
            ("ADD https://me:pw@host/x /y", "ADD https://host/x /y"),
            ("RUN curl 'http://t@h?a=b@c' http://h/p@q", "RUN curl 'http://h?a=b@c' http://h/p@q"),
            ("RUN echo :// @", "RUN echo :// @"),
        ] {
            assert_eq!(without_passwords(text), shown);
        }
    }
}
