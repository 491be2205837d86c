//! In which face a layer is written: as a tar, or compressed at once.
//!
//! A tar is quickest to read, for a RUN on top of it and for a COPY out of it. A layer that is only shipped needs none.

use image::compress::Compression;
use planner::plan::{CopyItem, Op, Plan, Source, Step};

use crate::execute::Execution;

impl Execution<'_> {
    /// How the layer of a step is compressed while it is written.
    pub(crate) fn compression_of(&self, step: &Step) -> Compression {
        let steps = &self.plan.steps;
        let nth = steps.iter().position(|it| std::ptr::eq(it, step));
        match self.session.compression {
            Some(compression) if nth.is_some_and(|it| self.uses[it].is_only_shipped()) => {
                compression
            }
            _ => Compression::Uncompressed,
        }
    }
}

/// What becomes of the layer of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Use {
    /// It is in the image.
    pub is_shipped: bool,
    /// Something in the plan reads what is in it.
    pub is_read: bool,
}

impl Use {
    fn is_only_shipped(self) -> bool {
        self.is_shipped && !self.is_read
    }
}

/// Finds what becomes of the layers of a plan, by step.
pub(crate) fn uses(plan: &Plan) -> Vec<Use> {
    let n_steps = plan.steps.len();
    let mut is_read = vec![false; n_steps];
    for step in &plan.steps {
        let sources: Vec<&Source> = match &step.op {
            Op::Run(op) => {
                let mounts = op.mounts.iter().filter_map(crate::run::mount_source);
                mounts.chain([&step.parent]).collect()
            }
            Op::Copy(op) => op.items.iter().filter_map(of_item).collect(),
            Op::Mkdir(_) => Vec::new(),
        };
        sources.into_iter().for_each(|it| mark(plan, it, &mut is_read));
    }
    let mut is_shipped = vec![false; n_steps];
    mark(plan, &plan.output, &mut is_shipped);
    let uses = is_shipped.into_iter().zip(is_read);
    uses.map(|(is_shipped, is_read)| Use { is_shipped, is_read }).collect()
}

fn of_item(item: &CopyItem) -> Option<&Source> {
    match item {
        CopyItem::Paths { source, .. } => Some(source),
        CopyItem::Inline { .. } => None,
    }
}

/// Marks the steps whose layers make up a source.
fn mark(plan: &Plan, source: &Source, marks: &mut [bool]) {
    let mut source = source;
    while let Source::Step(id) = source {
        if std::mem::replace(&mut marks[id.0], true) {
            return;
        }
        source = &plan.steps[id.0].parent;
    }
}
