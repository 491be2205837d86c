//! Which stages there are, what each starts from, and which the target needs.
//!
//! A stage of the Dockerfile comes first to last; behind them come *implicit* stages, one for each image or named
//! context that only a `--from` names. Nothing is looked up here: whoever has a [`StageGraph`] asks [`needs`] what to
//! look up, as often as it answers something, since triggers of base images can name more images.
//!
//! Read here first, then `base` (what a FROM names), `order` (what needs what), `resolve` (triggers).

mod base;
mod order;
mod resolve;

use alloc::{
    borrow::ToOwned, collections::BTreeMap, format, string::String, sync::Arc, vec, vec::Vec,
};

use image::Platform;
use parser::{
    ast::{Dockerfile, Instruction, Kind, Text},
    span::{Lines, Span},
    suggest::suggest,
};

use self::base::{base_and_platform, context_value, image_base};
pub(crate) use self::{
    base::{is_overridden, named_context, wrong_reference},
    order::sources,
    resolve::Resolved,
};
use crate::{
    env::Variables,
    error::{PlanError, PlanErrorKind},
    expand::Lexer,
    facts::{Facts, ImageFact, ImageOrigin, ImageQuery, Need},
    plan::Source,
    request::Request,
};

/// The stages of a Dockerfile, with names resolved.
#[derive(Debug, Clone)]
pub struct StageGraph {
    pub(crate) stages: Vec<Stage>,
    names: Names,
    /// How many of them stand in the Dockerfile.
    pub(crate) n_written: usize,
    pub(crate) target: usize,
    pub(crate) global_args: Variables,
    pub(crate) escape: char,
    /// Heredocs of RUN end at the first command that fails.
    pub(crate) strict_heredoc: bool,
    pub(crate) request: Request,
    pub(crate) epoch: Option<i64>,
}

/// One stage.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    /// As progress shows it: `build`, `stage-1`, or nothing for a lonely one.
    pub display: String,
    /// As written, if it has a name.
    pub name: Option<String>,
    pub base: Base,
    /// The platform of its FROM.
    pub platform: Option<Platform>,
    /// The platform it is built for: that of its FROM, else that of the stage below, else the target's.
    pub built_for: Platform,
    pub span: Span,
    pub lines: Lines,
    pub instructions: Vec<Arc<Instruction>>,
    /// `--no-cache` or `--no-cache-filter` names it.
    pub no_cache: bool,
}

/// What a stage starts from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Base {
    Scratch,
    /// An earlier stage.
    Stage(usize),
    Image(ImageOrigin, String),
    /// A named context that is files without a config; such a stage has no instructions of its own.
    Files(Source),
}

/// Stages by what they are called.
#[derive(Debug, Clone, Default)]
struct Names {
    /// The last stage of a name in lower case, as a FROM spells it.
    of_from: BTreeMap<String, usize>,
    /// The last stage of a name with its ASCII letters in lower case, as `--from` and `--target` know it.
    written: BTreeMap<String, usize>,
    /// Implicit stages, by the name that made them.
    implicit: BTreeMap<String, usize>,
}

impl Names {
    fn enter(&mut self, name: &str, stage_idx: usize) {
        self.of_from.insert(name.to_lowercase(), stage_idx);
        self.written.insert(name.to_ascii_lowercase(), stage_idx);
    }

    fn find_written(&self, name: &str) -> Option<usize> {
        self.written.get(&name.to_ascii_lowercase()).copied()
    }
}

/// Finds the stages of `dockerfile`.
///
/// # Errors
///
/// All mistakes of FROM lines, global ARGs and `--from` names at once, or the request's unknown target.
pub fn stages(dockerfile: &Dockerfile, request: &Request) -> Result<StageGraph, Vec<PlanError>> {
    let mut errors = Vec::new();
    let lexer = Lexer::new(dockerfile.directives.escape);
    let mut global_args = default_args(request, last_stage_name(dockerfile));
    let mut stages: Vec<Stage> = Vec::new();
    let mut names = Names::default();
    let mut epoch_arg = None;

    for instruction in &dockerfile.instructions {
        match &instruction.kind {
            Kind::Invalid => errors.push(PlanError::new(PlanErrorKind::Invalid, instruction.span)),
            Kind::From(from) => {
                let mut stage = Stage {
                    display: String::new(),
                    name: from.name.as_ref().map(|it| it.value.clone()),
                    base: Base::Scratch,
                    platform: None,
                    built_for: Platform::default(),
                    span: instruction.span,
                    lines: instruction.lines,
                    instructions: Vec::new(),
                    no_cache: ignores_cache(request, from.name.as_ref()),
                };
                stage.display = match &stage.name {
                    Some(name) => name.clone(),
                    None => format!("stage-{}", stages.len()),
                };
                match base_and_platform(from, &lexer, &global_args, (&stages, &names), request) {
                    Ok((base, platform)) => (stage.base, stage.platform) = (base, platform),
                    Err(error) => errors.push(error),
                }
                if let Some(name) = &from.name {
                    match named_context(&name.value, stage.platform.as_ref(), request) {
                        Ok(Some(base)) => (stage.base, stage.span) = (base, name.span),
                        Ok(None) => {}
                        Err(kind) => errors.push(PlanError::new(kind, name.span)),
                    }
                    if !matches!(stage.base, Base::Scratch | Base::Stage(_))
                        && is_overridden(&name.value, request)
                    {
                        // The whole stage is replaced: its instructions are dropped as they come.
                        stage.no_cache = false;
                    }
                }
                stage.built_for = match (&stage.platform, &stage.base) {
                    (Some(platform), _) => platform.clone(),
                    (None, Base::Stage(base)) => stages[*base].built_for.clone(),
                    (None, _) => request.platform.clone(),
                };
                if let Some(name) = &stage.name {
                    names.enter(name, stages.len());
                }
                stages.push(stage);
            }
            Kind::Arg(arg) if stages.is_empty() => {
                for pair in &arg.args {
                    let value = match (request.build_args.get(&pair.key.value), &pair.value) {
                        (Some(given), _) => Some(given.clone()),
                        (None, Some(written)) => match lexer.word(&written.value, &global_args) {
                            Ok(expanded) => Some(expanded.text),
                            Err(source) => {
                                let word = written.value.clone();
                                errors.push(PlanError::new(
                                    PlanErrorKind::Expand { word, source },
                                    written.span,
                                ));
                                None
                            }
                        },
                        (None, None) => None,
                    };
                    if let Some(value) = value {
                        if pair.key.value == "SOURCE_DATE_EPOCH" {
                            epoch_arg = Some((value.clone(), pair.key.span));
                        }
                        global_args.set(&pair.key.value, &value);
                    }
                }
            }
            _ => {
                if let Some(stage) = stages.last_mut() {
                    stage.instructions.push(Arc::new(instruction.clone()));
                }
            }
        }
    }
    if stages.is_empty() && errors.is_empty() {
        errors.push(PlanError::new(PlanErrorKind::NoStages, Span::default()));
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    for stage in &mut stages {
        if stage.name.as_ref().is_some_and(|name| is_overridden(name, request)) {
            stage.instructions.clear();
        }
    }

    let target = match &request.target {
        None => stages.len() - 1,
        Some(target) => match names.find_written(target) {
            Some(found) => found,
            None => return Err(vec![unknown_target(target, &stages)]),
        },
    };
    if let [only] = stages.as_mut_slice()
        && only.name.is_none()
    {
        only.display.clear();
    }
    let epoch = match epoch_of(request, epoch_arg) {
        Ok(epoch) => epoch,
        Err(error) => return Err(vec![error]),
    };
    let n_written = stages.len();
    let escape = dockerfile.directives.escape;
    let mut graph = StageGraph {
        stages,
        names,
        n_written,
        target,
        global_args,
        escape,
        strict_heredoc: dockerfile.directives.strict_heredoc,
        request: request.clone(),
        epoch,
    };
    for stage_idx in 0..n_written {
        for instruction in graph.stages[stage_idx].instructions.clone() {
            errors.extend(graph.add_sources(&instruction).err());
        }
    }
    errors.extend(graph.find_cycle(&graph.dependencies()));
    if errors.is_empty() { Ok(graph) } else { Err(errors) }
}

/// Says what must be looked up next; nothing when the graph can be planned.
///
/// # Errors
///
/// Triggers of base images that are wrong, or that close a circle.
pub fn needs(graph: &StageGraph, facts: &Facts) -> Result<Vec<Need>, Vec<PlanError>> {
    let resolved = Resolved::new(graph, facts)?;
    Ok(resolved.missing.into_iter().map(Need::Image).collect())
}

impl StageGraph {
    /// Returns the names of the stages as written, in order; nothing for a nameless one.
    pub fn names(&self) -> Vec<Option<&str>> {
        self.stages[..self.n_written].iter().map(|it| it.name.as_deref()).collect()
    }

    /// The platform a stage is built for.
    pub(crate) fn platform(&self, stage_idx: usize) -> &Platform {
        &self.stages[stage_idx].built_for
    }

    /// What to ask for the base image of a stage.
    pub(crate) fn query(&self, stage_idx: usize) -> Option<ImageQuery> {
        match &self.stages[stage_idx].base {
            Base::Image(origin, _) => Some(ImageQuery {
                origin: origin.clone(),
                platform: self.platform(stage_idx).clone(),
            }),
            _ => None,
        }
    }

    /// The base image of a stage, if it has one and it is known.
    pub(crate) fn fact<'a>(&self, stage_idx: usize, facts: &'a Facts) -> Option<&'a ImageFact> {
        facts.images.get(&self.query(stage_idx)?)
    }

    /// Finds the stage that a `--from` names, implicit ones included.
    pub(crate) fn find_from(&self, from: &str) -> Option<usize> {
        if let Ok(index) = from.parse::<usize>() {
            return (index < self.n_written).then_some(index);
        }
        self.names.find_written(from).or_else(|| self.names.implicit.get(from).copied())
    }

    /// Makes implicit stages for what the `--from`s of an instruction name.
    fn add_sources(&mut self, instruction: &Instruction) -> Result<(), PlanError> {
        for (from, span) in sources(instruction) {
            if self.find_from(from).is_some() || from == "scratch" {
                continue;
            }
            if from.parse::<i64>().is_ok() {
                return Err(PlanError::new(
                    PlanErrorKind::InvalidStageIndex { index: from.to_owned() },
                    span,
                ));
            }
            let base = match named_context(from, None, &self.request)
                .map_err(|kind| PlanError::new(kind, span))?
            {
                Some(base) => base,
                None => image_base(from).map_err(|kind| {
                    let names: Vec<_> =
                        self.names().into_iter().flatten().map(ToOwned::to_owned).collect();
                    with_suggestion(PlanError::new(kind, span), from, &names)
                })?,
            };
            self.names.implicit.insert(from.to_owned(), self.stages.len());
            self.stages.push(Stage {
                display: from.to_owned(),
                name: None,
                base,
                platform: None,
                built_for: self.request.platform.clone(),
                span,
                lines: instruction.lines,
                instructions: Vec::new(),
                no_cache: false,
            });
        }
        Ok(())
    }

    /// Returns the stage that may have been meant where an image is asked for.
    pub fn meant_stage(&self, query: &ImageQuery) -> Option<&str> {
        let found = (0..self.stages.len()).find(|it| self.query(*it).as_ref() == Some(query))?;
        let Base::Image(ImageOrigin::Reference(name), _) = &self.stages[found].base else {
            return None;
        };
        let written = name.familiar();
        let written = written.strip_suffix(":latest").unwrap_or(&written);
        let names = self.names().into_iter().flatten();
        parser::suggest::suggest(written, names, false)
    }

    /// Returns the FROM line or flag that asks for an image.
    pub fn span_of(&self, query: &ImageQuery) -> Option<Span> {
        let found = (0..self.stages.len()).find(|it| self.query(*it).as_ref() == Some(query))?;
        Some(self.stages[found].span)
    }

    /// Returns the local contexts by the names that steps use.
    pub fn local_contexts(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for stage in &self.stages {
            if let Base::Files(Source::Local(name)) = &stage.base
                && let Some((value, _)) =
                    context_value(name, stage.platform.as_ref(), &self.request)
            {
                found.insert(name.clone(), value.to_owned());
            }
        }
        found
    }
}

fn ignores_cache(request: &Request, name: Option<&Text>) -> bool {
    request.no_cache
        || name.is_some_and(|name| {
            request.no_cache_filter.iter().any(|it| it.eq_ignore_ascii_case(&name.value))
        })
}

/// The name of the last stage as written, if it has one.
pub(crate) fn last_stage_name(dockerfile: &Dockerfile) -> Option<&str> {
    let is_from = |it: &&Instruction| matches!(it.kind, Kind::From(_));
    match dockerfile.instructions.iter().rfind(is_from).map(|it| &it.kind) {
        Some(Kind::From(from)) => from.name.as_ref().map(|it| it.value.as_str()),
        _ => None,
    }
}

/// The arguments that FROM lines may use without declaring them.
pub(crate) fn default_args(request: &Request, last_stage: Option<&str>) -> Variables {
    let mut args = Variables::default();
    for (prefix, platform) in [("BUILD", &request.build_platform), ("TARGET", &request.platform)] {
        args.set(&format!("{prefix}PLATFORM"), &platform.format_all());
        args.set(&format!("{prefix}OS"), &platform.os);
        args.set(&format!("{prefix}OSVERSION"), &platform.os_version);
        args.set(&format!("{prefix}ARCH"), &platform.architecture);
        args.set(&format!("{prefix}VARIANT"), &platform.variant);
    }
    args.set("TARGETSTAGE", request.target.as_deref().or(last_stage).unwrap_or("default"));
    for (name, _) in args.clone().pairs() {
        if let Some(value) = request.build_args.get(name) {
            args.set(name, value);
        }
    }
    args
}

fn epoch_of(request: &Request, arg: Option<(String, Span)>) -> Result<Option<i64>, PlanError> {
    let given = request.build_args.get("SOURCE_DATE_EPOCH").map(|it| (it.clone(), Span::default()));
    match given.or(arg) {
        Some((value, _)) if value.is_empty() => Ok(None),
        Some((value, span)) => match value.parse() {
            Ok(seconds) => Ok(Some(seconds)),
            Err(_) => Err(PlanError::new(PlanErrorKind::InvalidEpoch { value }, span)
                .with_hint("give seconds since 1970 as a whole number")),
        },
        None => Ok(request.source_date_epoch),
    }
}

fn unknown_target(target: &str, stages: &[Stage]) -> PlanError {
    let names: Vec<_> = stages.iter().filter_map(|it| it.name.clone()).collect();
    let kind = PlanErrorKind::UnknownTarget { target: target.to_owned() };
    // It is not in the file; what is shown is the stage that may have been meant, or else the one that would be built without it.
    let meant = suggest(target, names.iter().map(String::as_str), false);
    let meant = stages.iter().find(|it| meant.is_some() && it.name.as_deref() == meant);
    let shown = meant.or(stages.last()).map_or(Span::default(), |it| it.span);
    let error = with_suggestion(PlanError::new(kind, shown), target, &names);
    match error.hint {
        None if !names.is_empty() => {
            error.with_hint(format!("the stages are: {}", names.join(", ")))
        }
        _ => error,
    }
}

fn with_suggestion(error: PlanError, word: &str, names: &[String]) -> PlanError {
    match suggest(word, names.iter().map(String::as_str), false) {
        Some(name) => error.with_hint(format!("did you mean `{name}`?")),
        None => error,
    }
}
