//! From stages to steps: walks the instructions of each needed stage in order, keeping what an instruction changes.
//!
//! Read in this order: [`plan`] here, then `stage` (what a stage carries from line to line), then the instructions in
//! `meta`, `run` and `copy`.

mod copy;
mod git;
mod meta;
mod run;
mod stage;

use alloc::{
    borrow::ToOwned,
    collections::BTreeMap,
    format,
    string::{String, ToString},
    vec,
    vec::Vec,
};

use image::{
    Platform,
    document::{ImageConfig, RunConfig},
};

use self::stage::StageState;
use crate::{
    error::PlanError,
    facts::{Facts, ImageQuery},
    plan::{CopyItem, CopyOp, Op, Plan, PlannedImage, Source, Step, StepId},
    request::Request,
    stages::{Base, Resolved, StageGraph},
};

/// The `PATH` of an image that sets none.
pub const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Turns a graph into a plan, once `needs` asks for nothing more.
///
/// # Errors
///
/// All mistakes of the instructions that the target needs; the first one of each stage.
pub fn plan(graph: &StageGraph, facts: &Facts) -> Result<Plan, Vec<PlanError>> {
    let resolved = Resolved::new(graph, facts)?;
    let mut builder = Builder {
        graph: &resolved.graph,
        resolved: &resolved,
        facts,
        images: Vec::new(),
        image_idx: BTreeMap::new(),
        steps: Vec::new(),
        results: (0..resolved.graph.stages.len()).map(|_| None).collect(),
        trees: vec![None; resolved.graph.stages.len()],
        n_heirs: vec![0; resolved.graph.stages.len()],
        in_trigger: false,
    };
    builder.n_heirs[resolved.graph.target] = 1;
    for &stage_idx in &resolved.reachable {
        if let Base::Stage(base) = resolved.graph.stages[stage_idx].base {
            builder.n_heirs[base] += 1;
        }
    }
    let mut errors = Vec::new();
    for &stage_idx in resolved.reachable.range(..resolved.graph.n_written) {
        match builder.stage(stage_idx) {
            Ok(state) => {
                builder.trees[stage_idx] = Some(state.tree.clone());
                builder.results[stage_idx] = Some(state);
            }
            Err(error) => {
                errors.push(error);
                // Stages that need this one would only repeat its mistake.
                break;
            }
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let Some(mut last) = builder.results[resolved.graph.target].take() else {
        return Err(vec![PlanError::new(
            crate::error::PlanErrorKind::NoStages,
            parser::span::Span::default(),
        )]);
    };
    let request = &resolved.graph.request;
    for (key, value) in &request.labels {
        last.config.config.labels.insert(key.clone(), value.clone());
    }
    let platform = set_platform(&mut last.config, request);
    let run = &mut last.config.config;
    for list in [&mut run.cmd, &mut run.entrypoint] {
        // Go's encoder leaves out what is empty.
        list.take_if(|it| it.is_empty());
    }
    Ok(Plan {
        platform,
        images: builder.images,
        steps: builder.steps,
        output: last.tree,
        config: last.config,
        history: last.history,
        epoch: resolved.graph.epoch,
    })
}

/// Makes the config say for which platform the image is, and returns that. Of its base it keeps what nobody asked for.
fn set_platform(config: &mut ImageConfig, request: &Request) -> Platform {
    let (asked, base) = (&request.platform, config.platform());
    let is_same = asked.os == base.os && asked.architecture == base.architecture;
    let keeps_base =
        request.implicit_platform && !base.os.is_empty() && !base.architecture.is_empty();
    let either = |asked: &str, base: String| match asked.is_empty() && is_same {
        true => base,
        false => asked.to_owned(),
    };
    let platform = match keeps_base {
        true => base,
        false => Platform {
            os: asked.os.clone(),
            architecture: asked.architecture.clone(),
            variant: either(&asked.variant, base.variant),
            os_version: either(&asked.os_version, base.os_version),
            os_features: match asked.os_features.is_empty() {
                true => base.os_features,
                false => asked.os_features.clone(),
            },
        },
    }
    .normalized();
    config.os.clone_from(&platform.os);
    config.architecture.clone_from(&platform.architecture);
    config.variant.clone_from(&platform.variant);
    config.os_version.clone_from(&platform.os_version);
    config.os_features.clone_from(&platform.os_features);
    platform
}

struct Builder<'a> {
    graph: &'a StageGraph,
    resolved: &'a Resolved<'a>,
    facts: &'a Facts,
    images: Vec<PlannedImage>,
    image_idx: BTreeMap<ImageQuery, usize>,
    steps: Vec<Step>,
    /// How each stage ended, as long as another one starts from that.
    results: Vec<Option<StageState>>,
    /// What each stage made.
    trees: Vec<Option<Source>>,
    /// How many stages will still start from a stage, or end the build with it. The last one takes the state, so that in
    /// a long chain of stages it is not copied over and over.
    n_heirs: Vec<usize>,
    /// The instruction is a trigger of a base image, which this Dockerfile's options say nothing about.
    in_trigger: bool,
}

impl Builder<'_> {
    fn stage(&mut self, stage_idx: usize) -> Result<StageState, PlanError> {
        let mut state = self.start(stage_idx)?;
        let n_triggers = self.resolved.n_triggers.get(&stage_idx).copied().unwrap_or(0);
        if n_triggers > 0
            || !matches!(self.graph.stages[stage_idx].base, Base::Scratch | Base::Files(_))
        {
            state.config.config.on_build.clear();
        }
        let graph = self.graph;
        let stage = &graph.stages[stage_idx];
        for (instruction_idx, instruction) in stage.instructions.iter().enumerate() {
            if instruction_idx >= n_triggers {
                self.instruction(&mut state, instruction)?;
                continue;
            }
            // Spans inside of a trigger mean nothing in this file: all of it stands at the FROM.
            let n_steps = self.steps.len();
            self.in_trigger = true;
            let done = self.instruction(&mut state, instruction);
            self.in_trigger = false;
            done.map_err(|error| PlanError { span: stage.span, ..error })?;
            for step in &mut self.steps[n_steps..] {
                let Op::Copy(op) = &mut step.op else { continue };
                for item in &mut op.items {
                    if let CopyItem::Paths { span, .. } = item {
                        *span = stage.span;
                    }
                }
            }
        }
        Ok(state)
    }

    /// What a stage is before its first instruction.
    fn start(&mut self, stage_idx: usize) -> Result<StageState, PlanError> {
        let stage = &self.graph.stages[stage_idx];
        let mut platform = self.graph.platform(stage_idx).clone();
        let is_implicit = self.graph.request.implicit_platform && stage.platform.is_none();
        let mut state = match &stage.base {
            Base::Stage(base) => {
                self.n_heirs[*base] = self.n_heirs[*base].saturating_sub(1);
                let result = &mut self.results[*base];
                let result = if self.n_heirs[*base] == 0 { result.take() } else { result.clone() };
                let Some(mut state) = result else {
                    return Err(self.not_yet(&stage.display, &stage.display, stage.span));
                };
                state.is_cmd_set = false;
                if is_implicit {
                    platform = state.platform.clone();
                }
                state
            }
            Base::Scratch => StageState::new(Source::Scratch, empty_config(&platform)),
            Base::Image(..) => {
                let tree = self.source_of(stage_idx)?;
                let fact = self.graph.fact(stage_idx, self.facts);
                let mut config = fact.map(|it| it.config.clone()).unwrap_or_default();
                config.rootfs.diff_ids.clear();
                // What other builders note beside: the container that the base came from, their caches.
                config.other.clear();
                config.config.other.retain(|key, _| key == "StopTimeout");
                let of_image = config.platform().normalized();
                let is_other = (&of_image.os, &of_image.architecture)
                    != (&platform.os, &platform.architecture);
                if is_implicit
                    && is_other
                    && !of_image.os.is_empty()
                    && !of_image.architecture.is_empty()
                {
                    platform = of_image;
                }
                StageState::new(tree, config)
            }
            Base::Files(_) => {
                let tree = self.source_of(stage_idx)?;
                StageState::new(tree, empty_config(&platform))
            }
        };
        state.begin(stage, platform, self.graph);
        Ok(state)
    }

    /// The tree of a stage, image or named context.
    fn source_of(&mut self, stage_idx: usize) -> Result<Source, PlanError> {
        if let Some(done) = &self.trees[stage_idx] {
            return Ok(done.clone());
        }
        let stage = &self.graph.stages[stage_idx];
        match &stage.base {
            Base::Scratch => Ok(Source::Scratch),
            Base::Image(_, display) => {
                let Some(query) = self.graph.query(stage_idx) else { return Ok(Source::Scratch) };
                if let Some(&found) = self.image_idx.get(&query) {
                    return Ok(Source::Image(found));
                }
                let name = if stage_idx >= self.graph.n_written {
                    format!("FROM {display}")
                } else {
                    let total = stage::count_steps(stage);
                    format!("{}FROM {display}", stage::prefix(self.graph, stage_idx, 1, total))
                };
                let found = self.images.len();
                self.image_idx.insert(query.clone(), found);
                self.images.push(PlannedImage { query, name, span: stage.span });
                Ok(Source::Image(found))
            }
            Base::Files(source) if stage_idx < self.graph.n_written => {
                // A stage of files becomes one layer with all of them.
                let item = CopyItem::Paths {
                    source: source.clone(),
                    path: "/".to_owned(),
                    written: "/".to_owned(),
                    parents: None,
                    unpack: false,
                    span: stage.span,
                };
                let op = CopyOp {
                    items: vec![item],
                    dest: "/".to_owned(),
                    chown: None,
                    chmod: None,
                    link: false,
                    excludes: Vec::new(),
                };
                let name = format!("[context {}] load", stage.display);
                Ok(self.push(Step {
                    text: name.clone(),
                    name,
                    span: stage.span,
                    stage: stage.display.clone(),
                    parent: Source::Scratch,
                    op: Op::Copy(op),
                    no_cache: false,
                    platform: self.graph.platform(stage_idx).clone(),
                }))
            }
            Base::Files(source) => Ok(source.clone()),
            Base::Stage(_) => Err(self.not_yet(&stage.display, &stage.display, stage.span)),
        }
    }

    /// The tree that a `--from` names.
    fn source_named(
        &mut self,
        from: &parser::ast::Text,
        state: &StageState,
    ) -> Result<Source, PlanError> {
        if from.value == "scratch" && self.graph.find_from("scratch").is_none() {
            return Ok(Source::Scratch);
        }
        let Some(stage_idx) = self.graph.find_from(&from.value) else {
            return Err(self.not_yet(&from.value, &state.display, from.span));
        };
        if stage_idx < self.graph.n_written && self.trees[stage_idx].is_none() {
            return Err(self.not_yet(&from.value, &state.display, from.span));
        }
        self.source_of(stage_idx)
    }

    fn not_yet(&self, from: &str, stage: &str, span: parser::span::Span) -> PlanError {
        let kind = crate::error::PlanErrorKind::StageDefinedLater {
            from: from.to_string(),
            stage: stage.to_string(),
        };
        PlanError::new(kind, span)
            .with_hint("stages are built in the order of the Dockerfile: move it up")
    }

    fn push(&mut self, step: Step) -> Source {
        self.steps.push(step);
        Source::Step(StepId(self.steps.len() - 1))
    }
}

fn empty_config(platform: &image::Platform) -> ImageConfig {
    ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        config: RunConfig {
            env: if platform.os == "windows" { Vec::new() } else { vec![DEFAULT_PATH.to_owned()] },
            working_dir: String::from(if platform.os == "windows" { "\\" } else { "/" }),
            ..RunConfig::default()
        },
        ..ImageConfig::default()
    }
}
