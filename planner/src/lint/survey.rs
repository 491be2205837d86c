//! Walks a file as a build would, with everything resolved that findings and outlines depend on.
//!
//! This is the reference's order of things, not the planner's: the reference stops at the first mistake, and what it has
//! found by then is what it reports.

use alloc::{
    borrow::{Cow, ToOwned},
    collections::{BTreeMap, BTreeSet},
    format,
    string::{String, ToString},
    vec::Vec,
};

use image::{ImageRef, Platform, document::ImageConfig};
use parser::{
    Diagnostic,
    ast::{Dockerfile, From, Instruction, Kind},
    span::Lines,
    suggest::suggest,
};

use super::{
    config::CheckOptions,
    findings::{Failure, Findings, Warning},
    rule::Rule,
    stage::{ArgInfo, Capture, Command, Stage, description},
    text,
};
use crate::{
    env::Variables,
    expand::{Environment, Expanded, Lexer},
    facts::ImageQuery,
    ignore::Patterns,
    request::Request,
    stages::{default_args, is_overridden, last_stage_name},
};

/// Configs of base images, or why they cannot be had.
pub type Images = BTreeMap<ImageQuery, Result<ImageConfig, String>>;

/// A Dockerfile and what it is built with.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The tree.
    pub dockerfile: &'a Dockerfile,
    /// What the parser has to say.
    pub diagnostics: &'a [Diagnostic],
    /// The text.
    pub text: &'a str,
    /// Target, build arguments, platforms and named contexts.
    pub request: &'a Request,
    /// Patterns of the ignore file.
    pub ignored: &'a [String],
    /// Base images. Those that are asked for and not in here are taken as empty, and named as missing.
    pub images: &'a Images,
}

/// What a walk came to.
#[derive(Debug)]
pub(crate) struct Survey<'a> {
    pub(crate) warnings: Vec<Warning>,
    pub(crate) failure: Option<Failure>,
    pub(crate) stages: Vec<Stage<'a>>,
    pub(crate) target: usize,
    pub(crate) missing: BTreeSet<ImageQuery>,
}

/// Walks the stages that the target needs, or all of them.
pub(crate) fn survey<'a>(subject: &Subject<'a>, all: bool) -> Survey<'a> {
    let mut walk = Walk {
        subject: *subject,
        findings: Findings::default(),
        lexer: Lexer::new(subject.dockerfile.directives.escape),
        globals: default_args(subject.request, last_stage_name(subject.dockerfile)),
        ignored: None,
        stages: Vec::new(),
        names: BTreeMap::new(),
        implicit: BTreeMap::new(),
        target: 0,
        missing: BTreeSet::new(),
        n_suggestible: N_SUGGESTIBLE,
    };
    let failure = walk.run(all).err();
    let Walk { findings, stages, target, missing, .. } = walk;
    Survey { warnings: findings.warnings, failure, stages, target, missing }
}

/// The walk so far.
pub(super) struct Walk<'a> {
    pub(super) subject: Subject<'a>,
    pub(super) findings: Findings,
    pub(super) lexer: Lexer,
    pub(super) globals: Variables,
    pub(super) ignored: Option<Patterns>,
    pub(super) stages: Vec<Stage<'a>>,
    /// The last stage so far of each name.
    names: BTreeMap<String, usize>,
    /// Images that only a `--from` names.
    implicit: BTreeMap<String, usize>,
    pub(super) target: usize,
    pub(super) missing: BTreeSet<ImageQuery>,
    /// How many names may still be looked at for what a misspelt variable may have meant: thousands of unknown variables among thousands of known
    /// ones are not worth the time.
    pub(super) n_suggestible: usize,
}

/// What [`Walk::n_suggestible`] begins with.
const N_SUGGESTIBLE: usize = 200_000;

pub(super) fn fail<T>(message: impl Into<String>, lines: Lines) -> Result<T, Failure> {
    Err(Failure { message: message.into(), lines: Some(lines) })
}

impl<'a> Walk<'a> {
    fn run(&mut self, all: bool) -> Result<(), Failure> {
        let Subject { dockerfile, diagnostics, text, request, .. } = self.subject;
        self.findings.options = CheckOptions::of(dockerfile, request).map_err(|error| Failure {
            message: format!("failed to parse check options: {error}"),
            lines: None,
        })?;
        text::file(diagnostics)?;
        text::instructions(dockerfile, diagnostics, text, &mut self.findings)?;
        if self.froms().next().is_none() {
            let message = "dockerfile contains no stages to build".into();
            return Err(Failure { message, lines: None });
        }
        text::stage_names(dockerfile, &mut self.findings);
        text::casing(dockerfile, &mut self.findings);

        let defaults = self.global_args(false);
        if let Ok((defaults, _)) = &defaults {
            self.check_default_bases(defaults);
        }
        let (globals, args) = self.global_args(true)?;
        self.globals = globals;
        self.check_epoch()?;
        self.add_stages(&args)?;
        self.find_target()?;
        self.add_sources()?;
        self.check_cycles()?;

        let reachable = self.resolve(all)?;
        let patterns = Patterns::new(self.subject.ignored)
            .map_err(|error| Failure { message: error.to_string(), lines: None })?;
        self.ignored = (!patterns.is_empty()).then_some(patterns);
        for stage_idx in 0..self.stages.len() {
            if (all || reachable.contains(&stage_idx)) && !self.stages[stage_idx].is_dispatched {
                self.dispatch_stage(stage_idx)?;
            }
        }
        if self.findings.options.error && !self.findings.rules.is_empty() {
            let rules: Vec<&str> = self.findings.rules.iter().copied().collect();
            let message = format!("lint violation found for rules: {}", rules.join(", "));
            return Err(Failure { message, lines: None });
        }
        Ok(())
    }

    /// The FROM lines, each with the instructions behind it.
    fn froms(
        &self,
    ) -> impl Iterator<Item = (&'a Instruction, &'a From, &'a [Instruction])> + use<'a> {
        let all = self.subject.dockerfile.instructions.as_slice();
        let is_from = |it: &Instruction| matches!(it.kind, Kind::From(_));
        all.iter().enumerate().filter_map(move |(from_idx, it)| match &it.kind {
            Kind::From(from) => {
                let rest = &all[from_idx + 1..];
                let n_body = rest.iter().position(is_from).unwrap_or(rest.len());
                Some((it, from, &rest[..n_body]))
            }
            _ => None,
        })
    }

    /// The arguments before the first stage, with or without what the request gives.
    fn global_args(
        &self,
        with_given: bool,
    ) -> Result<(Variables, BTreeMap<String, ArgInfo>), Failure> {
        let mut variables = self.globals.clone();
        let mut args = BTreeMap::new();
        for instruction in &self.subject.dockerfile.instructions {
            let arg = match &instruction.kind {
                Kind::Arg(arg) => arg,
                Kind::From(_) => break,
                _ => continue,
            };
            for pair in &arg.args {
                let name = &pair.key.value;
                let given = self.subject.request.build_args.get(name).filter(|_| with_given);
                let mut info = ArgInfo {
                    description: description(&instruction.comments, name),
                    lines: instruction.lines,
                    ..ArgInfo::default()
                };
                let value = match (given, &pair.value) {
                    (Some(given), _) => Some(given.clone()),
                    (None, Some(default)) => {
                        let Expanded { text, matched, .. } =
                            self.expand(&default.value, &variables, instruction.lines)?;
                        info.deps = matched;
                        Some(text)
                    }
                    (None, None) => None,
                };
                if let Some(value) = value {
                    variables.set(name, &value);
                    info.value = value;
                }
                // An argument may be made of its own earlier value.
                let earlier = args.get(name).map(|it: &ArgInfo| it.deps.clone());
                info.deps.extend(earlier.into_iter().flatten());
                args.insert(name.clone(), info);
            }
        }
        Ok((variables, args))
    }

    fn expand(&self, text: &str, env: &Variables, lines: Lines) -> Result<Expanded, Failure> {
        let expanded = self.lexer.word(text, env);
        expanded.map_err(|error| Failure { message: error.to_string(), lines: Some(lines) })
    }

    fn check_default_bases(&mut self, defaults: &Variables) {
        for (instruction, from, _) in self.froms() {
            let Ok(expanded) = self.lexer.word(&from.base.value, defaults) else { return };
            if ImageRef::parse(&expanded.text).is_err() {
                let detail = format!(
                    "Default value for ARG {} results in empty or invalid base image name",
                    from.base.value
                );
                let rule = Rule::InvalidDefaultArgInFrom;
                self.findings.add(rule, &instruction.comments, instruction.lines, detail);
            }
        }
    }

    /// `SOURCE_DATE_EPOCH` is seconds, or names what to take them from.
    fn check_epoch(&self) -> Result<(), Failure> {
        let Some(value) = self.globals.value("SOURCE_DATE_EPOCH") else { return Ok(()) };
        if value.is_empty() || value == "context" || value.parse::<i64>().is_ok() {
            return Ok(());
        }
        let is_named =
            |from: &From| from.name.as_ref().is_some_and(|it| it.value.eq_ignore_ascii_case(value));
        let Some((_, _, body)) = self.froms().find(|(_, from, _)| is_named(from)) else {
            if is_overridden(value, self.subject.request) {
                return Ok(());
            }
            let message = format!("invalid SOURCE_DATE_EPOCH: {value}");
            return Err(Failure { message, lines: None });
        };
        match body.iter().find(|it| !matches!(it.kind, Kind::Add(_) | Kind::Arg(_))) {
            None => Ok(()),
            Some(instruction) => {
                let keyword = instruction.keyword.value.to_uppercase();
                let message = format!(
                    "SOURCE_DATE_EPOCH stage does not meet source-only requirements: unsupported {keyword} instruction"
                );
                Err(Failure { message, lines: None })
            }
        }
    }

    fn add_stages(&mut self, args: &BTreeMap<String, ArgInfo>) -> Result<(), Failure> {
        for (n_before, (instruction, from, body)) in self.froms().enumerate() {
            let lines = instruction.lines;
            let name = from.name.as_ref().map(|it| it.value.to_lowercase());
            let expanded = self.lexer.word(&from.base.value, &self.globals);
            let unmatched = expanded.as_ref().map(|it| it.unmatched.clone()).unwrap_or_default();
            self.report_undeclared(instruction, &unmatched, args);
            let expanded =
                expanded.map_err(|it| Failure { message: it.to_string(), lines: Some(lines) })?;
            if expanded.text.is_empty() {
                let base = &from.base.value;
                return fail(format!("base name ({base}) should not be blank"), lines);
            }
            let mut used = expanded.matched;
            let platform = match &from.platform {
                None => None,
                Some(written) => {
                    Some(self.platform(instruction, from, &written.value, args, &mut used)?)
                }
            };
            let mut stage = Stage {
                description: name.as_ref().and_then(|it| description(&instruction.comments, it)),
                display: name.clone().unwrap_or_else(|| format!("stage-{n_before}")),
                base: self.find_base(&expanded.text),
                base_name: expanded.text,
                comments: &instruction.comments,
                lines,
                platform,
                name,
                ..Stage::default()
            };
            if let Some(name) = &stage.name
                && is_overridden(name, self.subject.request)
            {
                stage.base_name.clone_from(name);
                stage.base = None;
                stage.is_dispatched = true;
            }
            stage.capture = match stage.base {
                Some(base) => self.stages[base].capture.clone(),
                None => Capture { args: args.clone(), ..Capture::default() },
            };
            stage.capture.used_args.extend(used);
            if !stage.is_dispatched {
                stage.commands = body
                    .iter()
                    .map(|it| Command { instruction: Cow::Borrowed(it), sources: Vec::new() })
                    .collect();
            }
            if let Some(name) = &stage.name {
                self.names.insert(name.clone(), self.stages.len());
            }
            self.stages.push(stage);
        }
        Ok(())
    }

    /// A FROM binds to the last stage so far whose lowercased name it spells.
    fn find_base(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }

    pub(super) fn find_stage(&self, name: &str) -> Option<usize> {
        let name = name.to_lowercase();
        self.find_base(&name).or_else(|| self.implicit.get(&name).copied())
    }

    /// Adds an image that only a `--from` names.
    pub(super) fn add_implicit(&mut self, name: &str, lines: Lines) -> usize {
        let stage_idx = self.stages.len();
        self.implicit.entry(name.to_owned()).or_insert(stage_idx);
        let base_name = name.to_owned();
        self.stages.push(Stage { base_name, lines, is_implicit: true, ..Stage::default() });
        stage_idx
    }

    fn report_undeclared(
        &mut self,
        instruction: &Instruction,
        unmatched: &BTreeSet<String>,
        args: &BTreeMap<String, ArgInfo>,
    ) {
        for name in unmatched.iter().filter(|it| !args.contains_key(*it)) {
            let hint = match self.n_suggestible {
                0 => None,
                _ => {
                    let globals = self.globals.names();
                    let n_names = args.len() + globals.len();
                    self.n_suggestible = self.n_suggestible.saturating_sub(n_names);
                    suggest(name, args.keys().map(String::as_str).chain(globals), true)
                }
            };
            let hint = hint.map_or(String::new(), |it| format!(" (did you mean {it}?)"));
            let detail = format!("FROM argument '{name}' is not declared{hint}");
            let rule = Rule::UndefinedArgInFrom;
            self.findings.add(rule, &instruction.comments, instruction.lines, detail);
        }
    }

    fn platform(
        &mut self,
        instruction: &Instruction,
        from: &From,
        written: &str,
        args: &BTreeMap<String, ArgInfo>,
        used: &mut BTreeSet<String>,
    ) -> Result<Platform, Failure> {
        let lines = instruction.lines;
        let host = &self.subject.request.build_platform;
        let expanded = self.lexer.word(written, &self.globals);
        let Expanded { text, matched, unmatched } = match expanded {
            Ok(expanded) => expanded,
            Err(error) => {
                return fail(format!("failed to process arguments for platform : {error}"), lines);
            }
        };
        self.report_undeclared(instruction, &unmatched, args);
        let only_target = matched.len() == 1 && matched.contains("TARGETPLATFORM");
        if only_target
            && unmatched.is_empty()
            && self.globals.value("TARGETPLATFORM") == Some(&text)
        {
            let detail = format!(
                "Setting platform to predefined {written} in FROM is redundant as this is the default behavior"
            );
            let rule = Rule::RedundantTargetPlatform;
            self.findings.add(rule, &instruction.comments, lines, detail);
        }
        let parsed = Platform::parse(&text, host);
        if matched.is_empty()
            && unmatched.is_empty()
            && let Ok(platform) = &parsed
        {
            let name = from.name.as_ref().map_or("", |it| &it.value).to_lowercase();
            if !name.contains(&platform.os) && !name.contains(&platform.architecture) {
                let detail = format!("FROM --platform flag should not use constant value {text:?}");
                let rule = Rule::FromPlatformFlagConstDisallowed;
                self.findings.add(rule, &instruction.comments, lines, detail);
            }
        }
        let hint = || {
            let options: Vec<&str> =
                self.globals.pairs().into_iter().map(|(name, _)| name).collect();
            let found = unmatched.iter().find_map(|it| suggest(it, options.iter().copied(), true));
            found.map_or(String::new(), |it| format!(" (did you mean {it}?)"))
        };
        if text.is_empty() {
            return fail(
                format!("empty platform value from expression {written}{}", hint()),
                lines,
            );
        }
        used.extend(matched);
        parsed.or_else(|error| {
            fail(format!("failed to parse platform {written}: {error}{}", hint()), lines)
        })
    }

    fn find_target(&mut self) -> Result<(), Failure> {
        self.target = match &self.subject.request.target {
            None => self.stages.len() - 1,
            Some(target) => match self.find_base(&target.to_lowercase()) {
                Some(found) => found,
                None => {
                    let names = self.stages.iter().filter_map(|it| it.name.as_deref());
                    let hint = suggest(target, names, true);
                    let hint = hint.map_or(String::new(), |it| format!(" (did you mean {it}?)"));
                    let message = format!("target stage {target:?} could not be found{hint}");
                    return Err(Failure { message, lines: None });
                }
            },
        };
        Ok(())
    }
}
