//! What a stage carries from line to line.

use alloc::{
    collections::{BTreeMap, btree_map::Entry},
    format,
    string::{String, ToString},
    vec::Vec,
};

use image::{
    Platform,
    document::{History, ImageConfig},
};
use parser::ast::Kind;

use super::DEFAULT_PATH;
use crate::{
    env::Variables,
    plan::{PlannedHistory, Source, StepId},
    stages::{Base, Stage, StageGraph},
};

/// The state of a stage between two instructions.
#[derive(Debug, Clone)]
pub(super) struct StageState {
    pub tree: Source,
    pub config: ImageConfig,
    /// What expansions and RUN see: the image's variables and the ARGs so far.
    pub env: Variables,
    /// Where each variable stands in the environment of the config.
    env_idx: BTreeMap<String, usize>,
    /// No ARG changed what RUN sees of the image's variables.
    pub is_settled: bool,
    /// The ARGs so far, for the history of RUN.
    pub args: Vec<(String, Option<String>)>,
    pub history: Vec<PlannedHistory>,
    pub display: String,
    pub platform: Platform,
    pub prefix_platform: bool,
    pub n_steps: usize,
    pub step_idx: usize,
    pub no_cache: bool,
    /// CMD was set in this stage, so that ENTRYPOINT leaves it alone.
    pub is_cmd_set: bool,
}

impl StageState {
    pub(super) fn new(tree: Source, mut config: ImageConfig) -> Self {
        let lines = core::mem::take(&mut config.history);
        let history =
            lines.into_iter().map(|history| PlannedHistory { history, step: None }).collect();
        Self {
            tree,
            config,
            env: Variables::default(),
            env_idx: BTreeMap::new(),
            is_settled: false,
            args: Vec::new(),
            history,
            display: String::new(),
            platform: Platform::default(),
            prefix_platform: false,
            n_steps: 0,
            step_idx: 0,
            no_cache: false,
            is_cmd_set: false,
        }
    }

    /// Applies what a FROM line changes.
    pub(super) fn begin(&mut self, stage: &Stage, platform: Platform, graph: &StageGraph) {
        self.display = stage.display.clone();
        self.platform = platform;
        if self.platform.os == "windows" && self.env.is_empty() {
            self.env = Variables::without_case();
        }
        self.prefix_platform = graph.request.multi_platform;
        self.no_cache = stage.no_cache;
        self.n_steps = count_steps(stage);
        self.step_idx = usize::from(matches!(stage.base, Base::Image(..)));
        if self.is_settled {
            return;
        }
        if self.platform.os != "windows"
            && !self.config.config.env.iter().any(|it| it.starts_with("PATH="))
        {
            self.config.config.env.push(DEFAULT_PATH.to_string());
        }
        for (env_idx, pair) in self.config.config.env.iter().enumerate() {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if self.env.value(name) != Some(value) {
                self.env.set(name, value);
            }
            self.env_idx.entry(self.env.key(name)).or_insert(env_idx);
        }
        self.is_settled = true;
    }

    /// Sets a variable of the image; one that is there keeps its place.
    pub(super) fn set_variable(&mut self, name: &str, value: &str) {
        self.env.set(name, value);
        let (pair, env) = (format!("{name}={value}"), &mut self.config.config.env);
        match self.env_idx.entry(self.env.key(name)) {
            Entry::Occupied(found) => env[*found.get()] = pair,
            Entry::Vacant(place) => {
                place.insert(env.len());
                env.push(pair);
            }
        }
    }

    /// The start of the next step's name, as BuildKit writes it: `[build 2/5] `, `[linux/amd64->arm64 build 2/5] `.
    pub(super) fn next_prefix(&mut self) -> String {
        self.step_idx += 1;
        let platform = match self.prefix_platform {
            true => self.platform.format_all() + &self.cross_target(),
            false => String::new(),
        };
        prefix_text(&platform, &self.display, self.step_idx, self.n_steps)
    }

    /// For which platform a stage compiles that runs on another one, as far as its variables tell.
    fn cross_target(&self) -> String {
        let base = &self.platform;
        let value = |name| self.env.value(name);
        let told = value("TARGETPLATFORM").and_then(|it| Platform::parse(it, base).ok());
        let target = match told {
            Some(platform) => platform,
            None => {
                let parts = ["TARGETOS", "TARGETARCH", "TARGETVARIANT"].map(value);
                let [os, architecture, variant] = parts;
                if parts.iter().all(Option::is_none) {
                    return String::new();
                }
                let or = |it: Option<&str>, default: &str| match it {
                    Some(it) if !it.is_empty() => it.to_string(),
                    _ => default.to_string(),
                };
                Platform {
                    variant: or(variant, ""),
                    ..Platform::new(&or(os, &base.os), &or(architecture, &base.architecture))
                }
            }
        };
        let target = target.normalized();
        match (target.os == base.os, target.architecture == base.architecture) {
            (true, true) => String::new(),
            (true, false) if target.variant.is_empty() => format!("->{}", target.architecture),
            (true, false) => format!("->{}/{}", target.architecture, target.variant),
            (false, _) => format!("->{}", target.format_all()),
        }
    }

    /// Adds a line to the history; with a step, the line is that of a layer.
    pub(super) fn remember(&mut self, created_by: String, step: Option<StepId>) {
        let history = History {
            created_by,
            comment: "buildkit.dockerfile.v0".to_string(),
            empty_layer: step.is_none(),
            ..History::default()
        };
        self.history.push(PlannedHistory { history, step });
    }
}

/// How many steps a stage counts in its step names.
pub(super) fn count_steps(stage: &Stage) -> usize {
    let is_step = |kind: &Kind| {
        matches!(kind, Kind::Add(_) | Kind::Copy(_) | Kind::Run(_) | Kind::Workdir(_))
    };
    usize::from(matches!(stage.base, Base::Image(..)))
        + stage.instructions.iter().filter(|it| is_step(&it.kind)).count()
}

/// The start of the name of step `step_idx` (from 1) of a stage.
pub(super) fn prefix(
    graph: &StageGraph,
    stage_idx: usize,
    step_idx: usize,
    n_steps: usize,
) -> String {
    let platform = match graph.request.multi_platform {
        true => graph.platform(stage_idx).format_all(),
        false => String::new(),
    };
    prefix_text(&platform, &graph.stages[stage_idx].display, step_idx, n_steps)
}

fn prefix_text(platform: &str, stage: &str, step_idx: usize, n_steps: usize) -> String {
    let width = n_steps.to_string().len();
    let mut out = String::from("[");
    for word in [platform, stage] {
        if !word.is_empty() {
            out.push_str(word);
            out.push(' ');
        }
    }
    out.push_str(&format!("{step_idx:width$}/{n_steps}] "));
    out
}
