//! Carries a plan out: each step is looked up by its key, or done and recorded.
//!
//! A key names the operation, the layers below it, and what it reads; where everything it reads is in layers, a first key
//! names just those layers, so that an unchanged build looks into none of them. The second key names contents, so that a
//! stage that was built again with the same files costs its consumers nothing.

pub(crate) mod find;
pub(crate) mod look;

use std::{
    collections::BTreeSet,
    sync::{Mutex, OnceLock, PoisonError},
    time::Instant,
};

use cache::{StagedLayer, StepKey, StepRecord};
use image::{DiffId, compress::Compression, entry::Time, layer::LayerIndex};
use parser::span::Span;
use planner::{
    facts::Facts,
    plan::{CopyItem, CopyOp, MkdirOp, Op, Plan, Source, Step, StepId},
};

use self::find::{Found, Missing};
use crate::{
    assemble::{self, Built, StepLayer},
    copy::{self, Gathered, earlier::Site},
    error::{ExecutorError, StepError},
    face::Use,
    image_source::TaskHandle,
    remote::Work,
    schedule,
    session::{Session, Task},
    ship::Beside,
    time::Timestamp,
    tree::{Chain, Tree},
};

impl Session {
    /// Finds the sources of COPY and ADD that no local context has, all of them, before anything runs.
    pub fn missing_sources(&self, plans: &[Plan]) -> Vec<StepError> {
        let mut missing: Vec<StepError> = Vec::new();
        // Plans of several platforms lack the same.
        let mut places = BTreeSet::new();
        for step in plans.iter().flat_map(|it| &it.steps) {
            let Op::Copy(op) = &step.op else { continue };
            for item in &op.items {
                let CopyItem::Paths {
                    source: Source::Local(name), path, parents: None, span, ..
                } = item
                else {
                    continue;
                };
                let Some(context) = self.contexts.get(name) else { continue };
                if let Err(error) = copy::check_source(&context.tree, path) {
                    let source =
                        explain_missing(op, &vec![context.tree.clone(); op.items.len()], error);
                    if places.insert((span.start(), span.end())) {
                        missing.push(StepError {
                            name: step.name.clone(),
                            span: Some(*span),
                            source: Box::new(source),
                        });
                    }
                }
            }
        }
        missing
    }

    /// Carries out `plans`, one for each platform, and returns the images in the same order.
    ///
    /// # Errors
    ///
    /// The first step that failed. Nothing is named or exported then; what was finished stays known.
    pub fn build(&self, plans: &[Plan], facts: &Facts) -> Result<Vec<Built>, StepError> {
        let _lease = self.store.lease().map_err(|error| outside(error.into()))?;
        self.remember_tasks();
        let runs: Vec<Execution<'_>> =
            plans.iter().map(|plan| Execution::new(self, plan, facts)).collect();
        for run in &runs {
            run.show_known_images().map_err(outside)?;
        }
        let mut tasks = Vec::new();
        let mut dependencies: Vec<Vec<usize>> = Vec::new();
        for (run_idx, run) in runs.iter().enumerate() {
            let offset = dependencies.len();
            for (step_idx, step) in run.plan.steps.iter().enumerate() {
                dependencies.push(needed(step).into_iter().map(|it| offset + it.0).collect());
                tasks.push((run_idx, StepId(step_idx)));
            }
        }
        let done = Beside::run(self, |beside| {
            schedule::run(&dependencies, self.n_jobs, |task| {
                let (run_idx, step_id) = tasks[task];
                let run = &runs[run_idx];
                let step = &run.plan.steps[step_id.0];
                run.step(step_id).map_err(|source| StepError {
                    name: step.name.clone(),
                    span: Some(place(step, &source)),
                    source: Box::new(source),
                })?;
                // The last layer is compressed by the export, with the whole machine.
                if let Some(beside) = beside
                    && run.plan.output != Source::Step(step_id)
                    && run.uses[step_id.0].is_shipped
                    && let Some(layer) = run.results[step_id.0].get().and_then(|it| it.layer.layer)
                {
                    beside.put(layer);
                }
                Ok(())
            })
        });
        let built = done.and_then(|()| {
            runs.iter().map(Execution::finish).collect::<Result<Vec<_>, _>>().map_err(outside)
        });
        self.write_journal(&runs, &built);
        let built = built?;
        self.save_digests();
        self.share();
        // Old logs are kept for a while; losing some early or late is no harm.
        let _ = self.store.keep_logs(N_KEPT_BUILDS);
        Ok(built)
    }

    /// Keeps the digests of files of local contexts for later builds.
    fn save_digests(&self) {
        for context in self.contexts.values() {
            if let Tree::Folder(folder) = &context.tree
                && let Some(bytes) = folder.save()
            {
                // Losing this costs time only.
                let _ = self.store.save_stat_cache(folder.path(), &bytes);
            }
        }
    }
}

/// The logs of this many builds are kept.
const N_KEPT_BUILDS: usize = 50;

fn outside(source: ExecutorError) -> StepError {
    StepError { name: "build".to_owned(), span: None, source: Box::new(source) }
}

/// What to underline when a step failed: the source that is not there, or else the whole instruction.
fn place(step: &Step, error: &ExecutorError) -> Span {
    let (ExecutorError::NotFound { path } | ExecutorError::Ignored { path, .. }) = error else {
        return step.span;
    };
    let Op::Copy(op) = &step.op else { return step.span };
    let missing = op.items.iter().find_map(|it| match it {
        CopyItem::Paths { path: source, span, .. } if source == path => Some(*span),
        _ => None,
    });
    missing.unwrap_or(step.span)
}

/// What a step reads besides the tree it starts from.
pub(crate) fn sources(step: &Step) -> Vec<&Source> {
    match &step.op {
        Op::Copy(copy) => copy.items.iter().filter_map(copy_source).collect(),
        Op::Run(run) => run.mounts.iter().filter_map(crate::run::mount_source).collect(),
        Op::Mkdir(_) => Vec::new(),
    }
}

fn copy_source(item: &CopyItem) -> Option<&Source> {
    match item {
        CopyItem::Paths { source, .. } => Some(source),
        CopyItem::Inline { .. } => None,
    }
}

/// The steps that a step needs.
fn needed(step: &Step) -> Vec<StepId> {
    std::iter::once(&step.parent)
        .chain(sources(step))
        .filter_map(|it| match it {
            Source::Step(id) => Some(*id),
            _ => None,
        })
        .collect()
}

/// A plan while it is carried out.
pub(crate) struct Execution<'a> {
    pub(crate) session: &'a Session,
    pub(crate) plan: &'a Plan,
    pub(crate) images: std::collections::BTreeMap<usize, (image::Digest, Vec<DiffId>)>,
    pulled: Vec<Mutex<bool>>,
    /// Nothing is to be done or fetched, only looked up.
    is_dry: bool,
    pub(crate) looked: Vec<OnceLock<Looked>>,
    pub(crate) results: Vec<OnceLock<StepResult>>,
    /// What becomes of the layer of each step.
    pub(crate) uses: Vec<Use>,
}

/// What is remembered of looking a step up.
pub(crate) struct Looked {
    /// Its key, which names contents where it has two.
    pub(crate) key: StepKey,
    /// What the key it was found under was made of.
    pub(crate) recipe: serde_json::Value,
}

impl Looked {
    /// Takes out of a record what a build has no further use for.
    fn of(found: &mut Found) -> Option<Self> {
        match found {
            Found::Known(record) => {
                let key = record.same_as.unwrap_or(record.key);
                Some(Self { key, recipe: std::mem::take(&mut record.recipe) })
            }
            Found::Missing(missing) => {
                Some(Self { key: missing.key.0, recipe: missing.key.1.clone() })
            }
            Found::OutOfReach => None,
        }
    }
}

#[derive(Clone)]
pub(crate) struct StepResult {
    pub(crate) chain: Chain,
    pub(crate) layer: StepLayer,
    /// It was known before.
    pub(crate) is_known: bool,
}

/// What a step made.
pub(crate) struct Made {
    /// Its layer and what is in it; none if it changed nothing.
    pub index: Option<LayerIndex>,
}

impl<'a> Execution<'a> {
    fn new(session: &'a Session, plan: &'a Plan, facts: &Facts) -> Self {
        Self {
            session,
            plan,
            images: crate::image_source::plan_images(plan, facts),
            pulled: plan.images.iter().map(|_| Mutex::new(false)).collect(),
            is_dry: false,
            looked: plan.steps.iter().map(|_| OnceLock::new()).collect(),
            results: plan.steps.iter().map(|_| OnceLock::new()).collect(),
            uses: crate::face::uses(plan),
        }
    }

    fn step(&self, id: StepId) -> Result<(), ExecutorError> {
        self.session.cancel.check()?;
        let step = &self.plan.steps[id.0];
        let parent = self.chain(&step.parent)?;
        let task = self.session.later_task(step.name.clone());
        let result = self.find(step, &parent, &task).and_then(|mut found| {
            self.note(id, &mut found);
            match found {
                Found::Known(record) => Ok((*record, true)),
                Found::Missing(missing) => self.make(step, missing, &task),
                Found::OutOfReach => Err(ExecutorError::Canceled),
            }
        });
        let (record, is_known) = match result {
            Ok((record, true)) => {
                task.cached();
                (record, true)
            }
            Ok((record, false)) => (task.end(Ok(record))?, false),
            Err(error) => return task.end(Err(self.session.of_full_disk(error))),
        };
        self.set_result(id, &parent, &record, is_known);
        Ok(())
    }

    /// Remembers what looking a step up has given.
    fn note(&self, id: StepId, found: &mut Found) {
        if let Some(looked) = Looked::of(found) {
            let _ = self.looked[id.0].set(looked);
        }
    }

    /// Remembers what a step left on top of `parent`.
    fn set_result(&self, id: StepId, parent: &Chain, record: &StepRecord, is_known: bool) {
        let layer = StepLayer {
            layer: record.layer,
            created: Timestamp { secs: i64::try_from(record.created).unwrap_or(0), nanos: 0 },
        };
        let chain = match layer.layer {
            Some(diff_id) => parent.with(diff_id),
            None => parent.clone(),
        };
        let _ = self.results[id.0].set(StepResult { chain, layer, is_known });
    }

    fn finish(&self) -> Result<Built, ExecutorError> {
        let chain = self.chain(&self.plan.output)?;
        self.show_unused_images();
        assemble::assemble(self.plan, chain.layers(), |id| {
            self.results.get(id.0)?.get().map(|it| it.layer)
        })
    }

    /// Base images whose layers are here appear in the progress before the steps on top of them.
    fn show_known_images(&self) -> Result<(), ExecutorError> {
        for (image_idx, pulled) in self.pulled.iter().enumerate() {
            let layers = self.chain(&Source::Image(image_idx))?;
            if self.has_all(&layers)? {
                *pulled.lock().unwrap_or_else(PoisonError::into_inner) = true;
                self.session.task(self.image_task_name(image_idx)).cached();
            }
        }
        Ok(())
    }

    fn has_all(&self, chain: &Chain) -> Result<bool, ExecutorError> {
        for layer in &chain.layers() {
            if self.session.store.layer(layer)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Base images of which nothing was needed appear in the progress as known.
    fn show_unused_images(&self) {
        for (image_idx, pulled) in self.pulled.iter().enumerate() {
            if !std::mem::replace(&mut *pulled.lock().unwrap_or_else(PoisonError::into_inner), true)
            {
                self.session.task(self.image_task_name(image_idx)).cached();
            }
        }
    }

    fn image_task_name(&self, image_idx: usize) -> String {
        let name = &self.plan.images[image_idx].name;
        match self.images.get(&image_idx) {
            Some((digest, _)) if !name.contains('@') => format!("{name}@{digest}"),
            _ => name.clone(),
        }
    }

    /// The layers of a source, without bringing them here.
    pub(crate) fn chain(&self, source: &Source) -> Result<Chain, ExecutorError> {
        match source {
            Source::Scratch => Ok(Chain::default()),
            Source::Image(image_idx) => {
                let layers = self.images.get(image_idx).map_or(&[][..], |it| &it.1);
                Ok(Chain::new(layers))
            }
            Source::Step(id) => match self.results[id.0].get() {
                Some(result) => Ok(result.chain.clone()),
                None => Err(ExecutorError::Canceled),
            },
            Source::Local(_) | Source::Git(_) | Source::Http(_) => Ok(Chain::default()),
        }
    }

    /// Brings the layers of a source here.
    pub(crate) fn fetch(&self, source: &Source) -> Result<Chain, ExecutorError> {
        let mut bottom = source;
        while let Source::Step(id) = bottom {
            bottom = &self.plan.steps[id.0].parent;
        }
        if let Source::Image(image_idx) = bottom {
            let mut pulled = self.pulled[*image_idx].lock().unwrap_or_else(PoisonError::into_inner);
            if !*pulled {
                let task = self.session.task(self.image_task_name(*image_idx));
                let layers = self.chain(bottom)?.layers();
                let mut is_known = true;
                for layer in &layers {
                    is_known &= self.session.store.layer(layer)?.is_some();
                }
                if is_known {
                    task.cached();
                } else {
                    let result = self.session.ensure_layers(&layers, Some(&TaskHandle(&task)));
                    task.end(result)?;
                }
                *pulled = true;
            }
        }
        let chain = self.chain(source)?;
        self.session.ensure_layers(&self.session.known.not_here(&chain), None)?;
        self.session.known.note_here(&chain);
        Ok(chain)
    }

    /// A source as a tree to read from.
    pub(crate) fn tree(&self, source: &Source, task: &Task<'_>) -> Result<Tree, ExecutorError> {
        match source {
            Source::Scratch => Ok(Tree::Empty),
            Source::Local(name) => match self.session.contexts.get(name) {
                Some(context) => Ok(context.tree.clone()),
                None => Err(ExecutorError::NoContext { name: name.clone() }),
            },
            Source::Image(_) | Source::Step(_) => {
                let chain = self.fetch(source)?;
                Ok(Tree::Layers(self.session.known.tree(&self.session.store, &chain)?))
            }
            Source::Git(git) => crate::fetch::git_tree(self.session, git, task),
            Source::Http(http) => crate::fetch::http_tree(self.session, http, task),
        }
    }

    /// Does a step that is not known, unless another process does it first; then its result is taken.
    fn make(
        &self,
        step: &Step,
        missing: Missing,
        task: &Task<'_>,
    ) -> Result<(StepRecord, bool), ExecutorError> {
        let key = missing.key.0;
        let _lock = self.session.store.step_lock(&key)?;
        if !step.no_cache
            && let Some(record) = self.session.store.step(&key)?
        {
            self.put_fast(missing.fast, &record)?;
            return Ok((record, true));
        }
        self.session.cancel.check()?;
        if self.session.shared.worker.is_some() {
            let parent = self.chain(&step.parent)?;
            if let Some(record) =
                self.session.done_elsewhere(&Work { key, step, parent: &parent.layers() })
            {
                self.put_fast(missing.fast, &record)?;
                return Ok((record, false));
            }
        }
        let begun = Instant::now();
        let files = missing.files()?;
        let made = match &step.op {
            Op::Run(op) => {
                drop(missing.read);
                self.run_now(step, op, task)?
            }
            Op::Copy(op) => self.copy_now(step, op, missing.read, task)?,
            Op::Mkdir(op) => self.mkdir_now(step, op, task)?,
        };
        if let Some(files) = files {
            self.session.store.put_step_files(&key, &files)?;
        }
        let record = StepRecord {
            key,
            parent: None,
            layer: made.index.as_ref().map(|it| it.diff_id),
            same_as: None,
            description: step.name.clone(),
            recipe: missing.key.1,
            created: u64::try_from(Timestamp::now().secs).unwrap_or(0),
            duration_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            last_used: 0,
        };
        self.session.store.put_step(&record)?;
        self.put_fast(missing.fast, &record)?;
        self.session.share_later(&record);
        Ok((record, false))
    }

    fn copy_now(
        &self,
        step: &Step,
        op: &CopyOp,
        read: Vec<(Vec<Tree>, Gathered)>,
        task: &Task<'_>,
    ) -> Result<Made, ExecutorError> {
        let Some((trees, gathered)) = read.into_iter().next() else {
            return Err(ExecutorError::Canceled);
        };
        let below = match op.link {
            true => Tree::Empty,
            false => self.tree(&step.parent, task)?,
        };
        task.start();
        let store = &self.session.store;
        let site = Site::of(op, &trees);
        let earlier = site.as_ref().and_then(|it| it.earlier(store, &gathered));
        let how = copy::How { times: self.times(), options: store.options(), earlier };
        let compression = self.compression_of(step);
        let made = self.write_layer(compression, |out| {
            copy::write_copy(op, gathered, &trees, &below, how, out)
        })?;
        if let (Some(site), Compression::Uncompressed) = (site, compression) {
            made.index.iter().for_each(|it| site.note(it.diff_id));
        }
        Ok(made)
    }

    fn mkdir_now(&self, step: &Step, op: &MkdirOp, task: &Task<'_>) -> Result<Made, ExecutorError> {
        let below = self.tree(&step.parent, task)?;
        task.start();
        self.write_layer(self.compression_of(step), |out| {
            copy::write_mkdir(op, &below, self.times(), out)
        })
    }

    /// The latest time that a layer may hold.
    pub(crate) fn latest(&self) -> Option<i64> {
        self.plan.epoch.filter(|_| self.session.clamp_times)
    }

    pub(crate) fn times(&self) -> copy::Times {
        copy::Times { now: self.now(), latest: self.latest() }
    }

    /// The time of what a step makes by itself.
    pub(crate) fn now(&self) -> Time {
        let secs = self.plan.epoch.unwrap_or_else(|| Timestamp::now().secs);
        Time { secs, nanos: 0 }
    }

    /// Writes a layer into the store. One in which nothing is counts as a layer, as it does for BuildKit.
    pub(crate) fn write_layer(
        &self,
        compression: Compression,
        write: impl FnOnce(StagedLayer) -> Result<(StagedLayer, LayerIndex), ExecutorError>,
    ) -> Result<Made, ExecutorError> {
        let staged = self.session.store.stage_layer(compression, crate::threads())?;
        let (staged, index) = write(staged)?;
        staged.commit(&index)?;
        Ok(Made { index: Some(index) })
    }
}

/// Says which pattern of the ignore file hides a file that was not found.
fn explain_missing(op: &CopyOp, trees: &[Tree], error: ExecutorError) -> ExecutorError {
    let ExecutorError::NotFound { path } = &error else { return error };
    for (item, tree) in op.items.iter().zip(trees) {
        let (CopyItem::Paths { .. }, Tree::Folder(folder)) = (item, tree) else { continue };
        let relative = parser::encode(path.trim_start_matches('/'));
        let full = folder.path().join(path.trim_start_matches('/'));
        if folder.ignore().matches(&relative) && full.symlink_metadata().is_ok() {
            let pattern = folder.ignored_by(&relative).unwrap_or_default();
            return ExecutorError::Ignored { path: path.clone(), pattern };
        }
    }
    error
}

#[cfg(test)]
#[path = "execute_tests.rs"]
mod tests;
