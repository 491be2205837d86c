//! Looking a step up: its keys, and what is known under them.
//!
//! Nothing is run here and nothing is written, so that `kiln plan` takes the same way as a build, up to where a step would run.

use cache::{StepKey, StepRecord};
use planner::plan::{CopyItem, CopyOp, MkdirOp, Op, Source, Step};
use serde_json::Value;

use super::{Execution, explain_missing};
use crate::{
    copy::{self, Gathered},
    error::ExecutorError,
    explain::FileListWriter,
    key::KeyBuilder,
    session::Task,
    tree::{Chain, Tree},
};

/// A key and what it was made of.
pub(crate) type Keyed = (StepKey, Value);

/// What looking a step up has given.
pub(crate) enum Found {
    /// Its result is known.
    Known(Box<StepRecord>),
    /// It is to be done.
    Missing(Missing),
    /// Its key depends on what is not here yet. A build fetches that instead.
    OutOfReach,
}

/// A step that is to be done.
pub(crate) struct Missing {
    /// Its key, which names contents where it has two.
    pub(crate) key: Keyed,
    /// The key that names layers, if there is one beside that.
    pub(crate) fast: Option<Keyed>,
    /// The files that it reads, looked through for its key: the trees, and what was found in them.
    pub(crate) read: Vec<(Vec<Tree>, Gathered)>,
}

impl Missing {
    /// A step whose key names all it needs.
    pub(crate) fn plain(key: Keyed) -> Self {
        Self { key, fast: None, read: Vec::new() }
    }

    /// The list of the files that the key was made of; nothing if it was made of none.
    pub(crate) fn files(&self) -> Result<Option<Vec<u8>>, ExecutorError> {
        if self.read.is_empty() {
            return Ok(None);
        }
        let mut list = FileListWriter::new();
        for (nth, (trees, gathered)) in self.read.iter().enumerate() {
            copy::list(gathered, trees, nth, &mut list)?;
        }
        Ok(Some(list.finish()))
    }
}

impl Execution<'_> {
    /// Looks a step up.
    pub(super) fn find(
        &self,
        step: &Step,
        parent: &Chain,
        task: &Task<'_>,
    ) -> Result<Found, ExecutorError> {
        match &step.op {
            Op::Run(op) => self.find_run(step, op, parent, task),
            Op::Copy(op) => self.find_copy(step, op, parent, task),
            Op::Mkdir(op) => self.find_mkdir(step, op, parent),
        }
    }

    /// Looks a key up, unless the step is to be done anyway.
    pub(crate) fn look_up(
        &self,
        step: &Step,
        key: &StepKey,
    ) -> Result<Option<StepRecord>, ExecutorError> {
        if step.no_cache {
            return Ok(None);
        }
        Ok(match self.session.store.step(key)? {
            Some(record) => Some(record),
            None => self.session.shared_step(key),
        })
    }

    /// A step whose contents are known by a key that names them: a hit is remembered under the key that names layers, too.
    pub(crate) fn find_by_contents(
        &self,
        step: &Step,
        missing: Missing,
    ) -> Result<Found, ExecutorError> {
        match self.look_up(step, &missing.key.0)? {
            Some(record) => {
                self.put_fast(missing.fast, &record)?;
                Ok(Found::Known(Box::new(record)))
            }
            None => Ok(Found::Missing(missing)),
        }
    }

    /// Records a result under the key that names layers.
    pub(super) fn put_fast(
        &self,
        fast: Option<Keyed>,
        record: &StepRecord,
    ) -> Result<(), ExecutorError> {
        let Some((key, recipe)) = fast else { return Ok(()) };
        let same_as = Some(record.key);
        self.session.store.put_step(&StepRecord { key, recipe, same_as, ..record.clone() })?;
        Ok(())
    }

    fn find_copy(
        &self,
        step: &Step,
        op: &CopyOp,
        parent: &Chain,
        task: &Task<'_>,
    ) -> Result<Found, ExecutorError> {
        let fast = self.fast_copy_key(op, parent)?;
        if let Some((key, _)) = &fast
            && let Some(record) = self.look_up(step, key)?
        {
            return Ok(Found::Known(Box::new(record)));
        }
        if !self.can_read(crate::execute::sources(step))? {
            return Ok(Found::OutOfReach);
        }
        let trees = op
            .items
            .iter()
            .map(|item| match item {
                CopyItem::Paths { source, .. } => self.tree(source, task),
                CopyItem::Inline { .. } => Ok(Tree::Empty),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let gathered =
            copy::gather(op, &trees).map_err(|error| explain_missing(op, &trees, error))?;
        let mut key = self.copy_key("copy", op, parent);
        key.digest("content", &gathered.content);
        key.text("files", &gathered.n_files.to_string());
        let missing = Missing { key: key.finish(), fast, read: vec![(trees, gathered)] };
        self.find_by_contents(step, missing)
    }

    fn copy_key(&self, kind: &str, op: &CopyOp, parent: &Chain) -> KeyBuilder {
        let mut key = KeyBuilder::new(kind);
        if !op.link {
            key.digest("parent", &parent.id());
        }
        key.text("link", if op.link { "yes" } else { "no" });
        key.text("dest", &op.dest);
        key.text("chown", op.chown.as_deref().unwrap_or_default());
        key.text("chmod", &op.chmod.as_ref().map(|it| format!("{it:?}")).unwrap_or_default());
        key.text("epoch", &self.plan.epoch.map(|it| it.to_string()).unwrap_or_default());
        key.text("latest", &self.latest().map(|it| it.to_string()).unwrap_or_default());
        key.texts("excludes", op.excludes.iter().map(String::as_str));
        for item in &op.items {
            match item {
                CopyItem::Paths { parents, unpack, .. } => {
                    let flags = format!("unpack {unpack} parents {}", parents.is_some());
                    key.text("item", &flags);
                }
                CopyItem::Inline { name, .. } => key.text("inline", name),
            }
        }
        key
    }

    /// The key of a copy all of whose sources are layers: it names those, not what is in them.
    fn fast_copy_key(&self, op: &CopyOp, parent: &Chain) -> Result<Option<Keyed>, ExecutorError> {
        let mut key = self.copy_key("copy from layers", op, parent);
        for item in &op.items {
            match item {
                CopyItem::Paths {
                    source: source @ (Source::Image(_) | Source::Step(_)),
                    path,
                    parents,
                    ..
                } => {
                    key.digest("source", &self.chain(source)?.id());
                    key.text("path", path);
                    if let Some(parents) = parents {
                        key.text("pattern", &parents.pattern);
                    }
                }
                CopyItem::Paths { .. } => return Ok(None),
                CopyItem::Inline { data, .. } => key.raw("data", data.as_bytes()),
            }
        }
        Ok(Some(key.finish()))
    }

    fn find_mkdir(
        &self,
        step: &Step,
        op: &MkdirOp,
        parent: &Chain,
    ) -> Result<Found, ExecutorError> {
        let mut key = KeyBuilder::new("mkdir");
        key.digest("parent", &parent.id());
        key.text("path", &op.path);
        key.text("user", &op.user);
        key.text("epoch", &self.plan.epoch.map(|it| it.to_string()).unwrap_or_default());
        let key = key.finish();
        Ok(match self.look_up(step, &key.0)? {
            Some(record) => Found::Known(Box::new(record)),
            None => Found::Missing(Missing::plain(key)),
        })
    }

    /// Whether these sources may be read: always, but where nothing is to be fetched only what is here.
    pub(crate) fn can_read<'s>(
        &self,
        sources: impl IntoIterator<Item = &'s Source>,
    ) -> Result<bool, ExecutorError> {
        if !self.is_dry {
            return Ok(true);
        }
        for source in sources {
            let is_here = match source {
                Source::Git(_) | Source::Http(_) => false,
                Source::Scratch | Source::Local(_) => true,
                Source::Image(_) | Source::Step(_) => self.has_all(&self.chain(source)?)?,
            };
            if !is_here {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
