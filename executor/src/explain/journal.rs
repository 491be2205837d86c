//! What the journal says of a build: each step with its key and what that was made of.

use cache::{JournalEntry, StepKey, Store};
use planner::plan::{CopyItem, MountOp, Op, Source, Step};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::files::{packed, unpacked};
use crate::{
    assemble::Built,
    error::{ExecutorError, StepError},
    execute::Execution,
    key::KEY_VERSION,
    session::Session,
    tree::Chain,
};

/// What two builds must have in common to be runs of one thing, and what else is told of a build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Where the Dockerfile is; empty if it came through standard input.
    pub dockerfile: String,
    /// Where the context is; empty if there is none with a place.
    pub context: String,
    /// The names the image was to get.
    pub names: Vec<String>,
    /// `--target`.
    pub target: Option<String>,
    /// `--no-cache`.
    pub no_cache: bool,
    /// Variables that come from ARG.
    pub args: Vec<String>,
    /// The patterns of the ignore file.
    pub ignored: Vec<String>,
}

impl About {
    /// The line of the journal that builds of this kind belong to.
    pub fn line(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        // What has no place of its own is told apart by what is made of it.
        let name = match self.dockerfile.is_empty() || self.context.is_empty() {
            true => self.names.first().map(String::as_str).unwrap_or_default(),
            false => "",
        };
        for part in ["kiln line 1", &self.dockerfile, &self.context, name] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.finalize().into()
    }
}

/// A build, as the journal has it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Journaled {
    /// Its id, which `kiln logs` takes too.
    pub build: String,
    /// When it ended, in seconds since the Unix epoch.
    pub time: u64,
    /// The version of the keys.
    pub keys: u32,
    /// What it was a build of.
    pub about: About,
    /// The ids of the images that it made.
    pub images: Vec<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// A plan for each platform.
    pub plans: Vec<JournaledPlan>,
}

/// A plan, as the journal has it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct JournaledPlan {
    /// For which platform.
    pub platform: String,
    /// The images it starts from.
    pub images: Vec<JournaledImage>,
    /// The steps in the order of the plan.
    pub steps: Vec<JournaledStep>,
}

/// An image that a plan starts from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournaledImage {
    /// Its name.
    pub reference: String,
    /// What that meant.
    pub digest: String,
    /// Its layers.
    pub output: String,
}

/// A step, as the journal has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournaledStep {
    /// What progress calls it.
    pub name: String,
    /// The instruction as written.
    pub text: String,
    /// Its stage.
    pub stage: String,
    /// The tree it starts from.
    pub parent: Ref,
    /// What else it reads, and which path there.
    pub reads: Vec<(Ref, String)>,
    /// What became of it.
    pub state: State,
    /// It was to be done even if it was known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_cache: bool,
    /// Its key, if that was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<StepKey>,
    /// What its key was made of.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub recipe: Value,
    /// What it left: an id of all layers up to its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

impl JournaledStep {
    /// Whether there is to be said why it was not known.
    pub(super) fn needs_cause(&self) -> bool {
        matches!(self.state, State::Done | State::Miss | State::Failed { .. }) && !self.no_cache
    }
}

/// Where files come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ref {
    /// Nothing.
    Nothing,
    /// A step of the plan.
    Step(usize),
    /// An image of the plan.
    Image(usize),
    /// A context, by its name, or something from the network.
    Other(String),
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum State {
    /// Its result was known.
    Hit,
    /// It was done.
    Done,
    /// It would be done.
    Miss,
    /// It failed, or would.
    Failed {
        /// Why.
        message: String,
    },
    /// It was not begun, or nothing can be said of it.
    Unknown {
        /// The step that has to be done first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        waits_for: Option<usize>,
    },
}

impl Execution<'_> {
    /// What there is to say of this plan. Without `states`, what became of its steps is taken from their results.
    pub(crate) fn journaled(&self, states: Option<&[State]>) -> JournaledPlan {
        let images = self.plan.images.iter().enumerate().map(|(idx, image)| {
            let known = self.images.get(&idx);
            JournaledImage {
                reference: image.query.origin.to_string(),
                digest: known.map(|it| it.0.to_string()).unwrap_or_default(),
                output: known.map(|it| output(&Chain::new(&it.1))).unwrap_or_default(),
            }
        });
        let steps = self.plan.steps.iter().enumerate().map(|(idx, step)| {
            let looked = self.looked[idx].get();
            let result = self.results[idx].get();
            let state = match (states.and_then(|it| it.get(idx)), result) {
                (Some(state), _) => state.clone(),
                (None, Some(result)) if result.is_known => State::Hit,
                (None, Some(_)) => State::Done,
                (None, None) => State::Unknown { waits_for: None },
            };
            JournaledStep {
                name: step.name.clone(),
                text: step.text.clone(),
                stage: step.stage.clone(),
                parent: Ref::of(&step.parent),
                reads: reads(step),
                state,
                no_cache: step.no_cache,
                key: looked.map(|it| it.key),
                recipe: looked.map(|it| it.recipe.clone()).unwrap_or_default(),
                output: result.map(|it| output(&it.chain)),
            }
        });
        JournaledPlan {
            platform: self.plan.platform.to_string(),
            images: images.collect(),
            steps: steps.collect(),
        }
    }
}

fn output(chain: &Chain) -> String {
    chain.id()[..16].iter().map(|it| format!("{it:02x}")).collect()
}

impl Ref {
    fn of(source: &Source) -> Self {
        match source {
            Source::Scratch => Self::Nothing,
            Source::Step(id) => Self::Step(id.0),
            Source::Image(idx) => Self::Image(*idx),
            Source::Local(name) => Self::Other(name.clone()),
            Source::Git(git) => Self::Other(crate::fetch::redacted(&git.url.remote)),
            Source::Http(http) => Self::Other(crate::fetch::redacted(&http.url)),
        }
    }
}

/// The sources in the order in which lists of files count them.
fn reads(step: &Step) -> Vec<(Ref, String)> {
    match &step.op {
        Op::Copy(op) => op
            .items
            .iter()
            .map(|item| match item {
                CopyItem::Paths { source, path, .. } => (Ref::of(source), path.clone()),
                CopyItem::Inline { name, .. } => (Ref::Nothing, name.clone()),
            })
            .collect(),
        Op::Run(op) => op
            .mounts
            .iter()
            .filter_map(|it| match it {
                MountOp::Bind { source: Source::Scratch, .. } => None,
                MountOp::Bind { source, path, .. } => Some((Ref::of(source), path.clone())),
                _ => None,
            })
            .collect(),
        Op::Mkdir(_) => Vec::new(),
    }
}

impl Session {
    pub(crate) fn journaled(&self, plans: Vec<JournaledPlan>) -> Journaled {
        Journaled {
            build: self.build_id.clone(),
            time: u64::try_from(crate::time::Timestamp::now().secs).unwrap_or(0),
            keys: KEY_VERSION,
            about: self.about.clone().unwrap_or_default(),
            images: Vec::new(),
            error: None,
            plans,
        }
    }

    /// Writes what became of the steps. Losing this costs an explanation only.
    pub(crate) fn write_journal(
        &self,
        runs: &[Execution<'_>],
        built: &Result<Vec<Built>, StepError>,
    ) {
        let Some(about) = &self.about else { return };
        let mut entry = JournalEntry {
            line: about.line(),
            build: self.build_id.clone(),
            print: print(about, runs),
            is_again: false,
        };
        let are_all_known = || {
            let mut results = runs.iter().flat_map(|it| &it.results);
            built.is_ok() && results.all(|it| it.get().is_some_and(|it| it.is_known))
        };
        if are_all_known()
            && let Ok(journal) = self.store.journal(&entry.line)
            && journal.iter().any(|it| it.print == entry.print && !it.is_again)
        {
            entry.is_again = true;
        }
        let plans = match entry.is_again {
            true => Vec::new(),
            false => runs.iter().map(|it| it.journaled(None)).collect(),
        };
        let mut build = self.journaled(plans);
        match built {
            Ok(images) => build.images = images.iter().map(|it| it.id.to_string()).collect(),
            Err(error) => {
                build.error = Some(crate::message(&*error.source));
                let steps = build.plans.iter_mut().flat_map(|it| &mut it.steps);
                for step in steps.filter(|it| it.name == error.name && it.output.is_none()) {
                    step.state = State::Failed { message: crate::message(&*error.source) };
                }
            }
        }
        if let Ok(bytes) = packed(|out| serde_json::to_writer(out, &build).map_err(Into::into)) {
            let _ = self.store.put_journal(&entry, &bytes);
        }
    }
}

/// Equal for builds that were made of the same.
fn print(about: &About, runs: &[Execution<'_>]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for pattern in &about.ignored {
        hasher.update(pattern.as_bytes());
        hasher.update(b"\0");
    }
    for run in runs {
        for looked in &run.looked {
            hasher.update(looked.get().map_or(&[0; 32], |it| &it.key.0));
        }
        for (digest, _) in run.images.values() {
            hasher.update(digest.as_bytes());
        }
    }
    let mut short = [0; 8];
    short.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(short)
}

/// Reads a build. `None` if it is gone, damaged, or of another version.
///
/// # Errors
///
/// The store cannot be read.
pub fn read(store: &Store, entry: &JournalEntry) -> Result<Option<Journaled>, ExecutorError> {
    let parse = |entry: &JournalEntry| -> Result<Option<Journaled>, ExecutorError> {
        let bytes = store.journal_entry(entry)?;
        Ok(bytes.and_then(|it| serde_json::from_slice(&unpacked(&it)?).ok()))
    };
    let Some(mut build) = parse(entry)? else { return Ok(None) };
    if !entry.is_again {
        return Ok(Some(build));
    }
    let journal = store.journal(&entry.line)?;
    let Some(whole) = journal.iter().find(|it| it.print == entry.print && !it.is_again) else {
        return Ok(None);
    };
    let Some(whole) = parse(whole)? else { return Ok(None) };
    build.plans = whole.plans;
    for step in build.plans.iter_mut().flat_map(|it| &mut it.steps) {
        step.state = State::Hit;
    }
    Ok(Some(build))
}
