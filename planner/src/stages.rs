//! Which stages there are, what each starts from, and which the target needs.
//!
//! A stage of the Dockerfile comes first to last; behind them come *implicit* stages, one for each image or named
//! context that only a `--from` names. Nothing is looked up here: whoever has a [`StageGraph`] asks [`needs`] what to
//! look up, as often as it answers something, since triggers of base images can name more images.

use alloc::{
    borrow::ToOwned,
    collections::{BTreeMap, BTreeSet},
    format,
    string::{String, ToString},
    vec,
    vec::Vec,
};

use image::{ImageRef, Platform};
use parser::{
    ast::{Dockerfile, Instruction, Kind, Text},
    span::{Lines, Span},
    suggest::suggest,
};

use crate::{
    env::Variables,
    error::{PlanError, PlanErrorKind},
    expand::Lexer,
    facts::{Facts, ImageFact, ImageOrigin, ImageQuery, Need},
    git_url::GitRef,
    plan::{GitSource, HttpSource, Source},
    request::Request,
};

/// The stages of a Dockerfile, with names resolved.
#[derive(Debug, Clone)]
pub struct StageGraph {
    pub(crate) stages: Vec<Stage>,
    /// How many of them stand in the Dockerfile.
    pub(crate) n_written: usize,
    pub(crate) target: usize,
    pub(crate) global_args: Variables,
    pub(crate) escape: char,
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
    pub span: Span,
    pub lines: Lines,
    pub instructions: Vec<Instruction>,
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
                    span: instruction.span,
                    lines: instruction.lines,
                    instructions: Vec::new(),
                    no_cache: ignores_cache(request, from.name.as_ref()),
                };
                stage.display = match &stage.name {
                    Some(name) => name.clone(),
                    None => format!("stage-{}", stages.len()),
                };
                match base_and_platform(from, &lexer, &global_args, &stages, request) {
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
                    stage.instructions.push(instruction.clone());
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
        Some(target) => {
            let found = stages
                .iter()
                .rposition(|it| it.name.as_ref().is_some_and(|n| n.eq_ignore_ascii_case(target)));
            match found {
                Some(found) => found,
                None => return Err(vec![unknown_target(target, &stages)]),
            }
        }
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
        n_written,
        target,
        global_args,
        escape,
        request: request.clone(),
        epoch,
    };
    for stage_idx in 0..n_written {
        for instruction in graph.stages[stage_idx].instructions.clone() {
            errors.extend(graph.add_sources(&instruction).err());
        }
    }
    errors.extend(graph.find_cycle(&graph.written_dependencies()));
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

/// A graph with triggers in place, as far as facts are there.
pub(crate) struct Resolved {
    pub graph: StageGraph,
    /// Which stages the target needs.
    pub reachable: BTreeSet<usize>,
    /// How many triggers stand before a stage's own instructions.
    pub n_triggers: BTreeMap<usize, usize>,
    missing: BTreeSet<ImageQuery>,
}

impl Resolved {
    pub(crate) fn new(graph: &StageGraph, facts: &Facts) -> Result<Self, Vec<PlanError>> {
        let mut this = Self {
            graph: graph.clone(),
            reachable: BTreeSet::new(),
            n_triggers: BTreeMap::new(),
            missing: BTreeSet::new(),
        };
        loop {
            let dependencies = this.graph.dependencies();
            if let Some(error) = this.graph.find_cycle(&dependencies) {
                return Err(vec![error]);
            }
            this.reachable = reachable(this.graph.target, &dependencies);
            this.missing.clear();
            let mut changed = false;
            for stage_idx in this.reachable.clone() {
                let stage = &this.graph.stages[stage_idx];
                let triggers = match &stage.base {
                    Base::Image(..) => {
                        match this.graph.query(stage_idx).and_then(|it| facts.images.get(&it)) {
                            Some(fact) => fact.config.config.on_build.clone(),
                            None => {
                                this.missing.extend(this.graph.query(stage_idx));
                                continue;
                            }
                        }
                    }
                    Base::Stage(base) => this.graph.written_triggers(*base),
                    Base::Scratch | Base::Files(_) => Vec::new(),
                };
                let is_done =
                    this.n_triggers.contains_key(&stage_idx) || stage_idx >= this.graph.n_written;
                if is_done || triggers.is_empty() {
                    continue;
                }
                this.add_triggers(stage_idx, &triggers)?;
                changed = true;
            }
            if !changed {
                return Ok(this);
            }
        }
    }

    fn add_triggers(
        &mut self,
        stage_idx: usize,
        triggers: &[String],
    ) -> Result<(), Vec<PlanError>> {
        let stage = &self.graph.stages[stage_idx];
        let (span, lines) = (stage.span, stage.lines);
        let mut added = Vec::new();
        for trigger in triggers {
            let (mut instructions, diagnostics) = parser::parse_trigger(trigger, '\\');
            if let Some(first) = diagnostics.first() {
                let message = first.to_string();
                let kind = PlanErrorKind::WrongTrigger { trigger: trigger.clone(), message };
                return Err(vec![PlanError::new(kind, span)]);
            }
            for instruction in &mut instructions {
                // Spans of a trigger mean nothing in this file: whatever goes wrong is shown at the FROM.
                (instruction.span, instruction.lines) = (span, lines);
            }
            added.append(&mut instructions);
        }
        let n_stages = self.graph.stages.len();
        for instruction in &added {
            self.graph.add_sources(instruction).map_err(|mut error| {
                error.span = span;
                vec![error]
            })?;
        }
        for stage in &mut self.graph.stages[n_stages..] {
            stage.span = span;
        }
        self.n_triggers.insert(stage_idx, added.len());
        added.append(&mut self.graph.stages[stage_idx].instructions);
        self.graph.stages[stage_idx].instructions = added;
        Ok(())
    }
}

impl StageGraph {
    /// Returns the names of the stages as written, in order; nothing for a nameless one.
    pub fn names(&self) -> Vec<Option<&str>> {
        self.stages[..self.n_written].iter().map(|it| it.name.as_deref()).collect()
    }

    /// The platform a stage is built for.
    pub(crate) fn platform(&self, stage_idx: usize) -> &Platform {
        let mut stage = &self.stages[stage_idx];
        loop {
            match (&stage.platform, &stage.base) {
                (Some(platform), _) => return platform,
                (None, Base::Stage(base)) => stage = &self.stages[*base],
                (None, _) => return &self.request.platform,
            }
        }
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
        let written = &self.stages[..self.n_written];
        written
            .iter()
            .rposition(|it| it.name.as_ref().is_some_and(|name| name.eq_ignore_ascii_case(from)))
            .or_else(|| {
                self.stages
                    .iter()
                    .skip(self.n_written)
                    .position(|it| it.display == from)
                    .map(|n| n + self.n_written)
            })
    }

    /// Makes implicit stages for what the `--from`s of an instruction name.
    fn add_sources(&mut self, instruction: &Instruction) -> Result<(), PlanError> {
        for from in sources(instruction) {
            if self.find_from(&from.value).is_some() || from.value == "scratch" {
                continue;
            }
            if from.value.parse::<i64>().is_ok() {
                return Err(PlanError::new(
                    PlanErrorKind::InvalidStageIndex { index: from.value.clone() },
                    from.span,
                ));
            }
            let base = match named_context(&from.value, None, &self.request)
                .map_err(|kind| PlanError::new(kind, from.span))?
            {
                Some(base) => base,
                None => image_base(&from.value).map_err(|kind| {
                    let names: Vec<_> =
                        self.names().into_iter().flatten().map(ToOwned::to_owned).collect();
                    with_suggestion(PlanError::new(kind, from.span), &from.value, &names)
                })?,
            };
            self.stages.push(Stage {
                display: from.value.clone(),
                name: None,
                base,
                platform: None,
                span: from.span,
                lines: instruction.lines,
                instructions: Vec::new(),
                no_cache: false,
            });
        }
        Ok(())
    }

    /// The triggers that the ONBUILD lines of a stage leave in its config.
    fn written_triggers(&self, stage_idx: usize) -> Vec<String> {
        let instructions = self.stages[stage_idx].instructions.iter();
        instructions
            .filter_map(|it| match &it.kind {
                Kind::Onbuild(onbuild) => Some(onbuild.expression.clone()),
                _ => None,
            })
            .collect()
    }

    fn dependencies(&self) -> Vec<BTreeSet<usize>> {
        self.stages
            .iter()
            .map(|stage| {
                let mut of_stage = BTreeSet::new();
                if let Base::Stage(base) = stage.base {
                    of_stage.insert(base);
                }
                for from in stage.instructions.iter().flat_map(sources) {
                    of_stage.extend(self.find_from(&from.value));
                }
                of_stage
            })
            .collect()
    }

    fn written_dependencies(&self) -> Vec<BTreeSet<usize>> {
        self.dependencies()
    }

    fn find_cycle(&self, dependencies: &[BTreeSet<usize>]) -> Option<PlanError> {
        // 0 is new, 1 is on the path, 2 is done. An explicit stack: thousands of stages must not overflow ours.
        let mut state = vec![0_u8; dependencies.len()];
        for start in 0..dependencies.len() {
            if state[start] != 0 {
                continue;
            }
            let mut stack = vec![(start, dependencies[start].iter())];
            state[start] = 1;
            while let Some((stage_idx, rest)) = stack.last_mut() {
                let stage_idx = *stage_idx;
                match rest.next() {
                    Some(&next) if state[next] == 1 => {
                        // The circle is shown where it begins: at the line of `next` that leads along the path.
                        let first = stack.iter().position(|(it, _)| *it == next).unwrap_or(0);
                        let along = stack.get(first + 1).map_or(next, |(it, _)| *it);
                        let stage = &self.stages[next];
                        let kind =
                            PlanErrorKind::CircularDependency { stage: stage.display.clone() };
                        let leads_along = |it: &&Instruction| {
                            sources(it).iter().any(|it| self.find_from(&it.value) == Some(along))
                        };
                        // A trigger has the span of its FROM, and those inside of it mean nothing here.
                        let span = match stage.instructions.iter().find(leads_along) {
                            Some(it) if it.span != stage.span => sources(it)
                                .iter()
                                .find(|from| self.find_from(&from.value) == Some(along))
                                .map_or(stage.span, |from| from.span),
                            _ => stage.span,
                        };
                        return Some(PlanError::new(kind, span));
                    }
                    Some(&next) if state[next] == 0 => {
                        state[next] = 1;
                        stack.push((next, dependencies[next].iter()));
                    }
                    Some(_) => {}
                    None => {
                        state[stage_idx] = 2;
                        stack.pop();
                    }
                }
            }
        }
        None
    }
}

fn reachable(target: usize, dependencies: &[BTreeSet<usize>]) -> BTreeSet<usize> {
    let mut found = BTreeSet::from([target]);
    let mut todo = vec![target];
    while let Some(stage_idx) = todo.pop() {
        for &next in &dependencies[stage_idx] {
            if found.insert(next) {
                todo.push(next);
            }
        }
    }
    found
}

/// The `--from` names of an instruction.
pub(crate) fn sources(instruction: &Instruction) -> Vec<Text> {
    match &instruction.kind {
        Kind::Copy(copy) => copy.from.iter().cloned().collect(),
        Kind::Run(run) => run
            .mounts
            .iter()
            .filter_map(|mount| {
                let from = mount.fields.iter().rev().find(|(key, _)| key == "from")?.1.clone()?;
                (!from.is_empty()).then_some(Text { value: from, span: mount.text.span })
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn base_and_platform(
    from: &parser::ast::From,
    lexer: &Lexer,
    args: &Variables,
    stages: &[Stage],
    request: &Request,
) -> Result<(Base, Option<Platform>), PlanError> {
    let expand = |text: &Text| {
        lexer.word(&text.value, args).map_err(|source| {
            PlanError::new(PlanErrorKind::Expand { word: text.value.clone(), source }, text.span)
        })
    };
    let expanded = expand(&from.base)?;
    if expanded.text.is_empty() {
        let error = PlanError::new(
            PlanErrorKind::BlankBaseName { written: from.base.value.clone() },
            from.base.span,
        );
        return Err(suggest_variable(error, expanded.unmatched.iter(), args));
    }
    let platform = match &from.platform {
        None => None,
        Some(written) => {
            let expanded = expand(written)?;
            if expanded.text.is_empty() {
                let kind = PlanErrorKind::EmptyPlatform { written: written.value.clone() };
                return Err(suggest_variable(
                    PlanError::new(kind, written.span),
                    expanded.unmatched.iter(),
                    args,
                ));
            }
            Some(Platform::parse(&expanded.text, &request.build_platform).map_err(|error| {
                let kind = PlanErrorKind::InvalidPlatform {
                    written: written.value.clone(),
                    message: error.to_string(),
                };
                suggest_variable(
                    PlanError::new(kind, written.span),
                    expanded.unmatched.iter(),
                    args,
                )
            })?)
        }
    };
    // A FROM binds to the nearest earlier stage whose lowercased name it spells exactly.
    let stage = stages
        .iter()
        .rposition(|it| it.name.as_ref().is_some_and(|name| name.to_lowercase() == expanded.text));
    if let Some(stage) = stage {
        return Ok((Base::Stage(stage), platform));
    }
    if expanded.text == "scratch" {
        return Ok((Base::Scratch, platform));
    }
    let in_file = |kind| PlanError::new(kind, from.base.span);
    let base = match named_context(&expanded.text, platform.as_ref(), request).map_err(in_file)? {
        Some(base) => base,
        None => image_base(&expanded.text).map_err(|kind| {
            let names: Vec<_> = stages.iter().filter_map(|it| it.name.clone()).collect();
            with_suggestion(in_file(kind), &expanded.text, &names)
        })?,
    };
    Ok((base, platform))
}

fn image_base(name: &str) -> Result<Base, PlanErrorKind> {
    let reference: ImageRef = name.parse().map_err(|error: image::error::ReferenceError| {
        PlanErrorKind::InvalidReference { name: name.to_owned(), message: error.to_string() }
    })?;
    let reference = reference.with_default_tag();
    let display = reference.to_string();
    Ok(Base::Image(ImageOrigin::Reference(reference), display))
}

pub(crate) fn is_overridden(name: &str, request: &Request) -> bool {
    !request.named_contexts.is_empty() && context_value(name, None, request).is_some()
}

fn context_value<'a>(
    name: &str,
    platform: Option<&Platform>,
    request: &'a Request,
) -> Option<(&'a str, String)> {
    if request.named_contexts.is_empty() || matches!(name, "scratch" | "context") {
        return None;
    }
    let familiar = |name: &str| {
        let reference: Option<ImageRef> = name.parse().ok();
        let short = reference.map_or_else(|| name.to_owned(), |it| it.familiar());
        short.strip_suffix(":latest").map_or(short.clone(), ToOwned::to_owned)
    };
    let wanted = familiar(name);
    let platform = platform.unwrap_or(&request.platform).normalized();
    let with_platform = format!("{wanted}::{platform}");
    let by = |wanted: &str| {
        request.named_contexts.iter().find(|(key, _)| {
            let (key_name, key_platform) =
                key.split_once("::").map_or((key.as_str(), None), |(n, p)| (n, Some(p)));
            let key = familiar(key_name);
            match key_platform {
                Some(platform) => format!("{key}::{platform}") == wanted,
                None => key == wanted,
            }
        })
    };
    let (_, value) = by(&with_platform).or_else(|| by(&wanted))?;
    Some((value, wanted))
}

/// What a named context puts in the place of `name`.
pub(crate) fn named_context(
    name: &str,
    platform: Option<&Platform>,
    request: &Request,
) -> Result<Option<Base>, PlanErrorKind> {
    let Some((value, wanted)) = context_value(name, platform, request) else {
        return Ok(None);
    };
    let invalid = |message: &str| PlanErrorKind::InvalidNamedContext {
        name: wanted.clone(),
        value: value.to_owned(),
        message: message.to_owned(),
    };
    if let Some(reference) = value.strip_prefix("docker-image://") {
        if reference == "scratch" {
            return Ok(Some(Base::Scratch));
        }
        return image_base(reference).map(Some).map_err(|error| invalid(&error.to_string()));
    }
    if let Some(layout) = value.strip_prefix("oci-layout://") {
        return Ok(Some(Base::Image(ImageOrigin::OciLayout(layout.to_owned()), wanted)));
    }
    if value.starts_with("target:") || value.starts_with("input:") {
        return Err(invalid("only bake files link targets"));
    }
    match GitRef::parse(value) {
        Ok(Some(url)) if !url.like_local => {
            return Ok(Some(Base::Files(Source::Git(GitSource {
                url,
                keep_git_dir: false,
                checksum: None,
            }))));
        }
        Err(error) => return Err(invalid(&error.to_string())),
        Ok(_) => {}
    }
    if value.starts_with("http://") || value.starts_with("https://") {
        let http =
            HttpSource { url: value.to_owned(), filename: "context".to_owned(), checksum: None };
        return Ok(Some(Base::Files(Source::Http(http))));
    }
    Ok(Some(Base::Files(Source::Local(wanted))))
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
    for name in args.pairs().iter().map(|(name, _)| name.clone()).collect::<Vec<_>>() {
        if let Some(value) = request.build_args.get(&name) {
            args.set(&name, value);
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
    let error =
        PlanError::new(PlanErrorKind::UnknownTarget { target: target.to_owned() }, Span::default());
    let error = with_suggestion(error, target, &names);
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

fn suggest_variable<'a>(
    error: PlanError,
    mut unmatched: impl Iterator<Item = &'a String>,
    args: &Variables,
) -> PlanError {
    let Some(name) = unmatched.next() else { return error };
    let known = args.pairs().iter().map(|(name, _)| name.as_str());
    match suggest(name, known, true) {
        Some(close) => {
            error.with_hint(format!("`{name}` is not set here: did you mean `{close}`?"))
        }
        None => error.with_hint(format!(
            "`{name}` is not set: declare it with ARG before the first FROM, with a default"
        )),
    }
}

impl StageGraph {
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
