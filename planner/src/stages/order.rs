//! Which stages need which others: circles, and what the target reaches.

use alloc::{collections::BTreeSet, format, vec, vec::Vec};

use parser::{
    ast::{Instruction, Kind},
    span::Span,
};

use super::{Base, StageGraph};
use crate::error::{PlanError, PlanErrorKind};

impl StageGraph {
    /// For each stage those it needs.
    pub(super) fn dependencies(&self) -> Vec<BTreeSet<usize>> {
        self.stages
            .iter()
            .map(|stage| {
                let mut of_stage = BTreeSet::new();
                if let Base::Stage(base) = stage.base {
                    of_stage.insert(base);
                }
                for (from, _) in stage.instructions.iter().flat_map(|it| sources(it)) {
                    of_stage.extend(self.find_from(from));
                }
                of_stage
            })
            .collect()
    }

    /// Finds stages that need each other.
    pub(super) fn find_cycle(&self, dependencies: &[BTreeSet<usize>]) -> Option<PlanError> {
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
                        // A lonely stage without a name is shown without one elsewhere.
                        let name = match stage.display.is_empty() {
                            true => format!("stage-{next}"),
                            false => stage.display.clone(),
                        };
                        let kind = PlanErrorKind::CircularDependency { stage: name };
                        let leads_along = |it: &Instruction| {
                            let mut sources = sources(it).into_iter();
                            let found =
                                sources.find(|(from, _)| self.find_from(from) == Some(along));
                            found.map(|(_, span)| span)
                        };
                        // A trigger has the span of its FROM, and those inside of it mean nothing here.
                        let mut leading = stage
                            .instructions
                            .iter()
                            .filter_map(|it| Some((it.span, leads_along(it)?)));
                        let span = match leading.next() {
                            Some((instruction, from)) if instruction != stage.span => from,
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

/// The stages that `target` needs, itself among them.
pub(super) fn reachable(target: usize, dependencies: &[BTreeSet<usize>]) -> BTreeSet<usize> {
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
pub(crate) fn sources(instruction: &Instruction) -> Vec<(&str, Span)> {
    match &instruction.kind {
        Kind::Copy(copy) => copy.from.iter().map(|it| (it.value.as_str(), it.span)).collect(),
        Kind::Run(run) => run
            .mounts
            .iter()
            .filter_map(|mount| {
                let (_, from) = mount.fields.iter().rev().find(|(key, _)| key == "from")?;
                let from = from.as_deref().filter(|it| !it.is_empty())?;
                Some((from, mount.text.span))
            })
            .collect(),
        _ => Vec::new(),
    }
}
