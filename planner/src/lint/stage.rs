//! What the survey knows of a stage.

use alloc::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};

use image::{Platform, document::ImageConfig};
use parser::{
    ast::{Comment, Instruction},
    span::Lines,
};

use crate::env::Variables;

/// A stage of the file, or an image that only a `--from` names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stage<'a> {
    /// The name in lower case.
    pub(crate) name: Option<String>,
    /// What its comment says.
    pub(crate) description: Option<String>,
    /// The name in messages.
    pub(super) display: String,
    /// The image or stage, expanded.
    pub(super) base_name: String,
    /// The stage it starts from.
    pub(super) base: Option<usize>,
    pub(super) comments: &'a [Comment],
    pub(super) lines: Lines,
    pub(super) platform: Option<Platform>,
    pub(super) commands: Vec<Command<'a>>,
    /// Stages named by `--from`, in order.
    pub(super) deps: Vec<usize>,
    /// No stage of the file.
    pub(super) is_implicit: bool,
    /// Its base image was asked for.
    pub(super) is_resolved: bool,
    pub(super) has_triggers: bool,
    pub(super) is_dispatched: bool,

    pub(super) config: Config,
    pub(super) build_args: BTreeSet<String>,
    pub(super) used: Used,
    pub(crate) capture: Capture,
}

impl Stage<'_> {
    /// Returns the stages that this one needs: the one it starts from, then those it takes files from.
    pub(crate) fn neighbours(&self) -> Vec<usize> {
        self.base.into_iter().chain(self.deps.iter().copied()).collect()
    }
}

/// An instruction of a stage, with the stages it takes files from.
#[derive(Debug, Clone)]
pub(super) struct Command<'a> {
    pub(super) instruction: Cow<'a, Instruction>,
    pub(super) sources: Vec<usize>,
}

/// The part of an image config that findings depend on.
#[derive(Debug, Clone, Default)]
pub(super) struct Config {
    pub(super) env: Variables,
    pub(super) has_shell: bool,
    pub(super) on_build: Vec<String>,
    /// A WORKDIR was met in the file.
    pub(super) has_workdir: bool,
}

impl Config {
    pub(super) fn of(image: &ImageConfig) -> Self {
        let mut env = Variables::default();
        for pair in &image.config.env {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            env.set(name, value);
        }
        Self {
            env,
            has_shell: image.config.shell.as_ref().is_some_and(|it| !it.is_empty()),
            on_build: image.config.on_build.clone(),
            has_workdir: false,
        }
    }
}

/// Where instructions stand of which only the last counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Used {
    pub(super) cmd: Option<Lines>,
    pub(super) entrypoint: Option<Lines>,
    pub(super) healthcheck: Option<Lines>,
}

/// What a build of the stage can be given.
#[derive(Debug, Clone, Default)]
pub(crate) struct Capture {
    pub(crate) args: BTreeMap<String, ArgInfo>,
    /// Names of the arguments that matter, some of which may be no arguments.
    pub(crate) used_args: BTreeSet<String>,
    /// Whether it is required, and where it stands, by id.
    pub(crate) secrets: BTreeMap<String, (bool, Lines)>,
    pub(crate) ssh: BTreeMap<String, (bool, Lines)>,
}

/// A declared argument.
#[derive(Debug, Clone, Default)]
pub(crate) struct ArgInfo {
    pub(crate) value: String,
    pub(crate) description: Option<String>,
    /// Arguments that its default uses.
    pub(crate) deps: BTreeSet<String>,
    pub(crate) lines: Lines,
}

impl Capture {
    /// Adds what the used arguments use themselves.
    pub(crate) fn close(&mut self) {
        let mut todo: Vec<String> = self.used_args.iter().cloned().collect();
        while let Some(name) = todo.pop() {
            for dep in self.args.get(&name).map(|it| it.deps.clone()).unwrap_or_default() {
                if self.used_args.insert(dep.clone()) {
                    todo.push(dep);
                }
            }
        }
    }
}

/// Returns what a comment of the form `NAME TEXT` says of a name.
pub(crate) fn description(comments: &[Comment], name: &str) -> Option<String> {
    if name.is_empty() {
        return None;
    }
    let texts = comments.iter();
    texts
        .map(|it| it.text.as_str())
        .find_map(|it| it.strip_prefix(name)?.strip_prefix(' '))
        .map(Into::into)
}
