//! Why a step was not known: each build is noted in the journal of the store, and compared with those before it.
//!
//! Read in this order: [`journal`] (what is noted), [`files`] (which files a key was made of), [`earlier`] (what a build is compared
//! with), [`align`] (which step of an earlier build is the same step), [`cause`] (what can be different), and here, which earlier
//! build is the nearest.
//!
//! Nothing is compared while a build runs: the journal has all it takes, so that it costs a build without misses nothing but
//! a note, and can be asked for later.

mod align;
mod cause;
mod earlier;
mod files;
mod journal;
mod recipe;

use std::{cell::RefCell, collections::HashMap, rc::Rc};

use cache::{StepKey, Store};
use serde::Serialize;

pub(crate) use self::files::FileListWriter;
use self::{cause::Pair, files::FileList};
pub use self::{
    cause::{Cause, VariableChange},
    earlier::{Earlier, earlier},
    files::{Difference, FileChange},
    journal::{About, Journaled, JournaledImage, JournaledPlan, JournaledStep, Ref, State, read},
};

/// As many files are named; all are counted.
const N_NAMED: usize = 5;

/// The lists of files of keys that are not in the store.
#[derive(Debug, Default)]
pub struct Files(HashMap<StepKey, Vec<u8>>);

impl Files {
    pub(crate) fn add(&mut self, key: StepKey, list: &[u8]) {
        self.0.insert(key, list.to_vec());
    }
}

/// Lists of files by key, each read once.
struct Lists<'a> {
    store: &'a Store,
    more: &'a Files,
    known: RefCell<HashMap<StepKey, Option<Rc<FileList>>>>,
}

impl Lists<'_> {
    fn list(&self, key: &StepKey) -> Option<Rc<FileList>> {
        if let Some(list) = self.known.borrow().get(key) {
            return list.clone();
        }
        let list = match self.more.0.get(key) {
            Some(bytes) => FileList::read(bytes),
            None => self.store.step_files(key).ok().flatten().and_then(|it| FileList::read(&it)),
        };
        let list = list.map(Rc::new);
        self.known.borrow_mut().insert(*key, list.clone());
        list
    }
}

/// A step and why it was not known.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explained {
    /// What progress calls it.
    pub name: String,
    /// What became of it.
    #[serde(flatten)]
    pub state: State,
    /// Its key, if that was known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<StepKey>,
    /// Why it was not known. Empty for a step that was, or that was not begun.
    pub causes: Vec<Cause>,
    /// The build that it was compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compared_with: Option<String>,
}

/// A build, and the steps of each of its plans explained.
#[derive(Debug, Clone, PartialEq)]
pub struct ExplainedBuild {
    /// The build.
    pub build: Journaled,
    /// Its plans.
    pub plans: Vec<Vec<Explained>>,
    /// Where the builds that it was compared with were done, if not here.
    pub elsewhere: Option<String>,
}

/// Explains the steps of each plan of `build`. `earlier` are the builds to compare it with, the youngest first.
pub fn explain(
    store: &Store,
    build: &Journaled,
    earlier: &[Journaled],
    files: &Files,
) -> Vec<Vec<Explained>> {
    let lists = Lists { store, more: files, known: RefCell::default() };
    build.plans.iter().map(|plan| explain_plan(build, plan, earlier, &lists)).collect()
}

/// Reads a build and explains it. Nothing if it is gone.
///
/// # Errors
///
/// The store cannot be read.
pub fn explain_entry(
    store: &Store,
    entry: &cache::JournalEntry,
) -> Result<Option<ExplainedBuild>, crate::ExecutorError> {
    let Some(build) = read(store, entry)? else { return Ok(None) };
    let Earlier { builds, elsewhere } = earlier(store, &build)?;
    let plans = explain(store, &build, &builds, &Files::default());
    Ok(Some(ExplainedBuild { build, plans, elsewhere }))
}

fn explain_plan(
    build: &Journaled,
    plan: &JournaledPlan,
    earlier: &[Journaled],
    lists: &Lists<'_>,
) -> Vec<Explained> {
    let mut pairs = Vec::new();
    if plan.steps.iter().any(JournaledStep::needs_cause) {
        for old in earlier {
            for old_plan in &old.plans {
                pairs.push(Pair::new(build, plan, old, old_plan, lists));
            }
        }
    }
    let mut explained: Vec<Explained> = Vec::new();
    for (idx, step) in plan.steps.iter().enumerate() {
        let (causes, compared_with) = match &step.state {
            State::Hit | State::Unknown { .. } => (Vec::new(), None),
            _ if step.no_cache => (vec![Cause::NoCache { all: build.about.no_cache }], None),
            _ if step.key.is_none() => (Vec::new(), None),
            _ => nearest(idx, &pairs, earlier.is_empty(), &explained),
        };
        explained.push(Explained {
            name: step.name.clone(),
            state: step.state.clone(),
            key: step.key,
            causes,
            compared_with,
        });
    }
    explained
}

/// The causes against the earlier build in which the step was most like it is now.
fn nearest(
    idx: usize,
    pairs: &[Pair<'_>],
    is_first: bool,
    explained: &[Explained],
) -> (Vec<Cause>, Option<String>) {
    let mut best: Option<(&Pair<'_>, usize)> = None;
    for pair in pairs {
        let Some(distance) = pair.distance(idx) else { continue };
        if best.is_none_or(|it| distance < it.1) {
            best = Some((pair, distance));
        }
    }
    match best {
        None if is_first => (vec![Cause::FirstBuild], None),
        None => (vec![Cause::NewStep], None),
        Some((pair, _)) => (pair.causes(idx, explained), Some(pair.build().to_owned())),
    }
}
