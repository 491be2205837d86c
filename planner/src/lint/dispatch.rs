//! Goes through the instructions of a stage.

use alloc::{
    borrow::ToOwned,
    collections::BTreeSet,
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::mem;

use image::Platform;
use parser::{
    ast::{Add, Arg, Command as Shell, Copy, CopySource, Instruction, Kind, Pairs, Run, Text},
    mount::{self, MountKind},
    span::Lines,
    suggest::suggest,
};

use super::{
    findings::Failure,
    rule::Rule,
    stage::{ArgInfo, Command, description},
    survey::{Walk, fail},
    text, wording,
};
use crate::{
    expand::{Environment, Lexer},
    expose,
    git_url::GitRef,
    mode::{Mode, ModeError},
    path::clean,
    signal,
};

/// Where programs are looked for when a base image does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Arguments that never become variables.
const NOT_VARIABLES: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

type Outcome<T = ()> = Result<T, Failure>;

impl Walk<'_> {
    pub(super) fn dispatch_stage(&mut self, stage_idx: usize) -> Outcome {
        if let Some(base) = self.stages[stage_idx].base {
            let base = &self.stages[base];
            let (config, args) = (base.config.clone(), base.build_args.clone());
            let platform = base.platform.clone();
            let stage = &mut self.stages[stage_idx];
            (stage.config, stage.build_args, stage.platform) = (config, args, platform);
        }
        let target_platform = self.subject.request.platform.clone();
        let stage = &mut self.stages[stage_idx];
        stage.is_dispatched = true;
        stage.platform.get_or_insert(target_platform);
        if stage.config.env.value("PATH").is_none() {
            stage.config.env.set("PATH", DEFAULT_PATH);
        }
        let commands = mem::take(&mut stage.commands);
        let outcome = commands.iter().try_for_each(|it| self.dispatch(stage_idx, it));
        self.stages[stage_idx].commands = commands;
        outcome
    }

    fn dispatch(&mut self, stage_idx: usize, command: &Command<'_>) -> Outcome {
        let instruction = command.instruction.as_ref();
        let lines = instruction.lines;
        match &instruction.kind {
            Kind::Env(pairs) => {
                for (key, value) in self.pairs(stage_idx, instruction, pairs)? {
                    text::secret("ENV", &key, instruction, &mut self.findings);
                    self.stages[stage_idx].config.env.set(&key, &value);
                }
            }
            Kind::Label(pairs) => {
                self.pairs(stage_idx, instruction, pairs)?;
            }
            Kind::Arg(arg) => self.arg(stage_idx, instruction, arg)?,
            Kind::Run(run) => self.mounts(stage_idx, instruction, run)?,
            Kind::Copy(copy) => {
                if let Some(&source) = command.sources.first()
                    && !self.stages[source].is_dispatched
                {
                    let from = copy.from.as_ref().map_or("", |it| &it.value);
                    let stage = &self.stages[stage_idx].display;
                    return fail(
                        format!(
                            "cannot copy from stage {from:?}, it needs to be defined before current stage {stage:?}"
                        ),
                        lines,
                    );
                }
                self.copy(stage_idx, instruction, copy, None)?;
            }
            Kind::Add(add) => self.copy(stage_idx, instruction, &add.copy, Some(add))?,
            Kind::Workdir(path) => self.workdir(stage_idx, instruction, path)?,
            Kind::User(user) => {
                self.word(stage_idx, instruction, &user.value)?;
            }
            Kind::Volume(paths) => {
                for path in paths {
                    if self.word(stage_idx, instruction, &path.value)?.is_empty() {
                        return fail("VOLUME specified can not be an empty string", lines);
                    }
                }
            }
            Kind::Stopsignal(text) => {
                let text = self.word(stage_idx, instruction, &text.value)?;
                signal::parse(&text).or_else(|error| fail(error.to_string(), lines))?;
            }
            Kind::Expose(words) => self.expose(stage_idx, instruction, words)?,
            Kind::Cmd(command) => {
                let used = self.stages[stage_idx].used.cmd.replace(lines);
                self.only_once(instruction, used);
                self.json_recommended(stage_idx, instruction, command);
            }
            Kind::Entrypoint(command) => {
                let used = self.stages[stage_idx].used.entrypoint.replace(lines);
                self.only_once(instruction, used);
                self.json_recommended(stage_idx, instruction, command);
            }
            Kind::Healthcheck(_) => {
                let used = self.stages[stage_idx].used.healthcheck.replace(lines);
                self.only_once(instruction, used);
            }
            Kind::Shell(words) => self.stages[stage_idx].config.has_shell = !words.is_empty(),
            Kind::From(_) | Kind::Onbuild(_) | Kind::Maintainer(_) | Kind::Invalid => {}
        }
        Ok(())
    }

    fn add(&mut self, rule: Rule, instruction: &Instruction, detail: String) {
        self.findings.add(rule, &instruction.comments, instruction.lines, detail);
    }

    /// Expands a word with the variables of the stage.
    fn word(&mut self, stage_idx: usize, instruction: &Instruction, text: &str) -> Outcome<String> {
        self.word_with(self.lexer, stage_idx, instruction, text)
    }

    fn word_with(
        &mut self,
        lexer: Lexer,
        stage_idx: usize,
        instruction: &Instruction,
        text: &str,
    ) -> Outcome<String> {
        match lexer.word(text, &self.stages[stage_idx].config.env) {
            Ok(expanded) => {
                self.report_undefined(stage_idx, instruction, &expanded.unmatched);
                Ok(expanded.text)
            }
            Err(error) => fail(error.to_string(), instruction.lines),
        }
    }

    fn report_undefined(
        &mut self,
        stage_idx: usize,
        instruction: &Instruction,
        unmatched: &BTreeSet<String>,
    ) {
        let stage = &self.stages[stage_idx];
        let is_unknown =
            |it: &&String| !stage.build_args.contains(*it) && !NOT_VARIABLES.contains(&it.as_str());
        let n_suggestible = &mut self.n_suggestible;
        let details: Vec<String> = unmatched
            .iter()
            .filter(is_unknown)
            .map(|name| {
                let hint = match *n_suggestible {
                    0 => None,
                    _ => {
                        let names = stage.config.env.names();
                        *n_suggestible = n_suggestible.saturating_sub(names.len());
                        suggest(name, names.into_iter(), true)
                    }
                };
                let hint = hint.map_or(String::new(), |it| format!(" (did you mean ${it}?)"));
                format!("Usage of undefined variable '${name}'{hint}")
            })
            .collect();
        for detail in details {
            self.add(Rule::UndefinedVar, instruction, detail);
        }
    }

    /// Expands the pairs of ENV and LABEL: all of them with the variables from before the instruction.
    fn pairs(
        &mut self,
        stage_idx: usize,
        instruction: &Instruction,
        pairs: &Pairs,
    ) -> Outcome<Vec<(String, String)>> {
        let mut expanded = Vec::new();
        for (key, value) in &pairs.pairs {
            let key = self.word(stage_idx, instruction, &key.value)?;
            expanded.push((key, self.word(stage_idx, instruction, &value.value)?));
        }
        if pairs.legacy {
            let keyword = &instruction.keyword.value;
            let detail = format!(
                "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"
            );
            self.add(Rule::LegacyKeyValueFormat, instruction, detail);
        }
        Ok(expanded)
    }

    fn arg(&mut self, stage_idx: usize, instruction: &Instruction, arg: &Arg) -> Outcome {
        for pair in &arg.args {
            let name = &pair.key.value;
            text::secret("ARG", name, instruction, &mut self.findings);
            let given = self.subject.request.build_args.get(name);
            let mut is_inherited = false;
            let value = match (given, &pair.value) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(self.word(stage_idx, instruction, &default.value)?),
                (None, None) => {
                    let global = self.globals.value(name).map(ToOwned::to_owned);
                    is_inherited = global.is_some();
                    global
                }
            };
            let stage = &mut self.stages[stage_idx];
            if let Some(value) = &value
                && !NOT_VARIABLES.contains(&name.as_str())
            {
                stage.config.env.set(name, value);
            }
            if !is_inherited {
                let info = ArgInfo {
                    value: value.unwrap_or_default(),
                    description: description(&instruction.comments, name),
                    deps: BTreeSet::new(),
                    lines: instruction.lines,
                };
                stage.capture.args.insert(name.clone(), info);
            }
            stage.capture.used_args.insert(name.clone());
            stage.build_args.insert(name.clone());
        }
        Ok(())
    }

    fn mounts(&mut self, stage_idx: usize, instruction: &Instruction, run: &Run) -> Outcome {
        for mount in &run.mounts {
            let mut fields = Vec::new();
            for (key, value) in &mount.fields {
                let value = match value {
                    Some(value) => Some(self.word(stage_idx, instruction, value)?),
                    None => None,
                };
                fields.push((key.clone(), value));
            }
            let spec = mount::resolve(&fields)
                .or_else(|error| fail(wording::mount(&error, &fields), instruction.lines))?;
            let capture = &mut self.stages[stage_idx].capture;
            let found = (spec.required, instruction.lines);
            match spec.kind {
                MountKind::Secret => {
                    let base = |it: String| it.rsplit('/').next().unwrap_or_default().to_owned();
                    let id = spec.source.or(spec.id).or_else(|| spec.target.map(base));
                    capture.secrets.entry(id.unwrap_or_default()).or_insert(found);
                }
                MountKind::Ssh => {
                    let id = spec.id.unwrap_or_else(|| "default".to_owned());
                    capture.ssh.entry(id).or_insert(found);
                }
                MountKind::Bind | MountKind::Cache | MountKind::Tmpfs => {}
            }
        }
        Ok(())
    }

    fn copy(
        &mut self,
        stage_idx: usize,
        instruction: &Instruction,
        copy: &Copy,
        add: Option<&Add>,
    ) -> Outcome {
        let lines = instruction.lines;
        let mut expand = |text: &Text| self.word(stage_idx, instruction, &text.value);
        let mut paths = Vec::new();
        for source in &copy.sources {
            if let CopySource::Path(path) = source {
                paths.push(expand(path)?);
            }
        }
        expand(&copy.dest)?;
        if let Some(owner) = &copy.chown {
            expand(owner)?;
        }
        let mode = copy.chmod.as_ref().map(&mut expand).transpose()?;
        let checksum = add.and_then(|it| it.checksum.as_ref()).map(&mut expand).transpose()?;
        for exclude in &copy.excludes {
            expand(exclude)?;
        }
        for source in &copy.sources {
            if let CopySource::Heredoc(heredoc, _) = source
                && heredoc.expand
            {
                let lexer = Lexer { skip_quotes: true, ..Lexer::new('\\') };
                self.word_with(lexer, stage_idx, instruction, &heredoc.content)?;
            }
        }

        if let Some(mode) = mode.filter(|it| !it.is_empty()) {
            match Mode::parse(&mode) {
                Ok(_) => {}
                Err(ModeError::Symbolic { .. }) => return fail("invalid syntax", lines),
                Err(error) => return fail(error.to_string(), lines),
            }
        }
        if checksum.is_some_and(|it| !it.is_empty()) {
            match paths.as_slice() {
                [path] if is_http(path) || is_git(path) => {}
                [_] => return fail("checksum requires HTTP(S) or Git sources", lines),
                _ => return fail("checksum can't be specified for multiple sources", lines),
            }
        }
        for path in &paths {
            if add.is_none() && is_git(path) {
                return fail("source can't be a git ref for COPY", lines);
            }
            if add.is_none() && is_http(path) {
                return fail("source can't be a URL for COPY", lines);
            }
            if copy.from.is_none() && !is_git(path) && !is_http(path) {
                self.report_ignored(instruction, path, add.is_some());
            }
        }
        Ok(())
    }

    fn report_ignored(&mut self, instruction: &Instruction, path: &str, is_add: bool) {
        let cleaned = clean(path);
        let relative = cleaned.trim_start_matches('/');
        let Some(ignored) = &self.ignored else { return };
        if ignored.matches(relative.as_bytes()) {
            let verb = if is_add { "Add" } else { "Copy" };
            let detail =
                format!("Attempting to {verb} file {path:?} that is excluded by .dockerignore");
            self.add(Rule::CopyIgnoredFile, instruction, detail);
        }
    }

    fn workdir(&mut self, stage_idx: usize, instruction: &Instruction, path: &Text) -> Outcome {
        let path = self.word(stage_idx, instruction, &path.value)?;
        let stage = &mut self.stages[stage_idx];
        let is_first = !mem::replace(&mut stage.config.has_workdir, true);
        if is_first && !is_absolute(&path, stage.platform.as_ref()) {
            let detail = format!(
                "Relative workdir {path:?} can have unexpected results if the base image changes"
            );
            self.add(Rule::WorkdirRelativePath, instruction, detail);
        }
        Ok(())
    }

    fn expose(&mut self, stage_idx: usize, instruction: &Instruction, words: &[Text]) -> Outcome {
        let lines = instruction.lines;
        // The reference sorts them when it reads them.
        let mut words: Vec<&Text> = words.iter().collect();
        words.sort_by_key(|it| &it.value);
        let mut ports = Vec::new();
        for word in words {
            let expanded = self.lexer.words(&word.value, &self.stages[stage_idx].config.env);
            ports.extend(expanded.or_else(|error| fail(error.to_string(), lines))?);
        }
        for port in &ports {
            if let Some((_, protocol)) = port.split_once('/')
                && protocol.to_lowercase() != protocol
            {
                let detail =
                    format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
                self.add(Rule::ExposeProtoCasing, instruction, detail);
            }
            if port.contains(':') {
                let detail = format!(
                    "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
                );
                self.add(Rule::ExposeInvalidFormat, instruction, detail);
            }
        }
        expose::parse(&ports).map(|_| ()).or_else(|error| fail(error.to_string(), lines))
    }

    fn only_once(&mut self, instruction: &Instruction, before: Option<Lines>) {
        if let Some(lines) = before {
            let detail = format!(
                "Multiple {} instructions should not be used in the same stage because only the last one will be used",
                instruction.keyword.value
            );
            let rule = Rule::MultipleInstructionsDisallowed;
            self.findings.add(rule, &instruction.comments, lines, detail);
        }
    }

    fn json_recommended(&mut self, stage_idx: usize, instruction: &Instruction, command: &Shell) {
        let is_shell = matches!(command, Shell::Shell(_));
        if is_shell && !self.stages[stage_idx].config.has_shell {
            let detail = format!(
                "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
                instruction.keyword.value
            );
            self.add(Rule::JSONArgsRecommended, instruction, detail);
        }
    }
}

fn is_absolute(path: &str, platform: Option<&Platform>) -> bool {
    if platform.is_none_or(|it| it.os != "windows") {
        return path.starts_with('/');
    }
    let without_drive = match path.as_bytes() {
        [drive, b':', ..] if drive.is_ascii_alphabetic() => &path[2..],
        _ => path,
    };
    without_drive.starts_with(['/', '\\'])
}

fn is_git(path: &str) -> bool {
    match GitRef::parse(path) {
        Ok(Some(git)) => !git.like_local,
        Ok(None) => false,
        Err(_) => true,
    }
}

fn is_http(path: &str) -> bool {
    path.starts_with("http://") || path.starts_with("https://")
}
