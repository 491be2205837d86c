//! Triggers of base images put in their place, as far as it is known what they are.

use alloc::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    string::{String, ToString},
    sync::Arc,
    vec,
    vec::Vec,
};

use parser::ast::Kind;

use super::{Base, StageGraph, order::reachable};
use crate::{
    error::{PlanError, PlanErrorKind},
    facts::{Facts, ImageQuery},
};

/// A graph with triggers in place, as far as facts are there.
pub(crate) struct Resolved<'a> {
    /// Copied only if there are triggers.
    pub graph: Cow<'a, StageGraph>,
    /// Which stages the target needs.
    pub reachable: BTreeSet<usize>,
    /// How many triggers stand before a stage's own instructions.
    pub n_triggers: BTreeMap<usize, usize>,
    pub(super) missing: BTreeSet<ImageQuery>,
}

impl<'a> Resolved<'a> {
    pub(crate) fn new(graph: &'a StageGraph, facts: &Facts) -> Result<Self, Vec<PlanError>> {
        let mut this = Self {
            graph: Cow::Borrowed(graph),
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
                    Base::Stage(base) => written_triggers(&this.graph, *base),
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
        let graph = self.graph.to_mut();
        let n_stages = graph.stages.len();
        for instruction in &added {
            graph.add_sources(instruction).map_err(|mut error| {
                error.span = span;
                vec![error]
            })?;
        }
        for stage in &mut graph.stages[n_stages..] {
            stage.span = span;
        }
        self.n_triggers.insert(stage_idx, added.len());
        graph.stages[stage_idx].instructions.splice(0..0, added.into_iter().map(Arc::new));
        Ok(())
    }
}

/// The triggers that the ONBUILD lines of a stage leave in its config.
fn written_triggers(graph: &StageGraph, stage_idx: usize) -> Vec<String> {
    let instructions = graph.stages[stage_idx].instructions.iter();
    instructions
        .filter_map(|it| match &it.kind {
            Kind::Onbuild(onbuild) => Some(onbuild.expression.clone()),
            _ => None,
        })
        .collect()
}
