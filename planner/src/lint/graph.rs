//! Which stages a stage needs.

use alloc::{collections::BTreeSet, format, vec, vec::Vec};

use parser::ast::{Instruction, Kind};

use super::{
    findings::Failure,
    survey::{Walk, fail},
};
use crate::stages::sources;

impl Walk<'_> {
    /// Finds the stages that `--from`s name, and adds those that are images.
    pub(super) fn add_sources(&mut self) -> Result<(), Failure> {
        for stage_idx in 0..self.stages.len() {
            for command_idx in 0..self.stages[stage_idx].commands.len() {
                let instruction = self.stages[stage_idx].commands[command_idx].instruction.clone();
                let found = self.sources_of(&instruction)?;
                self.stages[stage_idx].deps.extend(&found);
                self.stages[stage_idx].commands[command_idx].sources = found;
            }
        }
        Ok(())
    }

    pub(super) fn sources_of(&mut self, instruction: &Instruction) -> Result<Vec<usize>, Failure> {
        let mut found = Vec::new();
        for (name, _) in sources(instruction) {
            let is_copy = matches!(instruction.kind, Kind::Copy(_));
            let index = name.parse::<i64>().ok().filter(|_| is_copy);
            if let Some(index) = index {
                match usize::try_from(index).ok().filter(|it| *it < self.stages.len()) {
                    Some(index) => found.push(index),
                    None => {
                        let message = format!("invalid stage index {index}");
                        return Err(Failure { message, lines: None });
                    }
                }
            } else if let Some(stage_idx) = self.find_stage(name) {
                found.push(stage_idx);
            } else {
                found.push(self.add_implicit(name, instruction.lines));
            }
        }
        Ok(found)
    }

    pub(super) fn check_cycles(&self) -> Result<(), Failure> {
        // 0 is new, 1 is on the path, 2 is done. An explicit stack: thousands of stages must not overflow ours.
        let mut state = vec![0_u8; self.stages.len()];
        for start in 0..self.stages.len() {
            if state[start] != 0 {
                continue;
            }
            state[start] = 1;
            let mut stack = vec![(start, 0)];
            while let Some((stage_idx, dep_idx)) = stack.last_mut() {
                let stage = &self.stages[*stage_idx];
                let next = match stage.deps.get(*dep_idx) {
                    Some(next) => Some(*next),
                    None if *dep_idx == stage.deps.len() => stage.base,
                    None => {
                        state[*stage_idx] = 2;
                        stack.pop();
                        continue;
                    }
                };
                *dep_idx += 1;
                let Some(next) = next else { continue };
                match state[next] {
                    0 => {
                        state[next] = 1;
                        stack.push((next, 0));
                    }
                    1 => {
                        let name = &self.stages[start].display;
                        return fail(
                            format!("circular dependency detected on stage: {name}"),
                            stage.lines,
                        );
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    pub(super) fn reachable(&self) -> BTreeSet<usize> {
        let mut found = BTreeSet::from([self.target]);
        let mut todo = vec![self.target];
        while let Some(stage_idx) = todo.pop() {
            let stage = &self.stages[stage_idx];
            for &next in stage.deps.iter().chain(&stage.base) {
                if found.insert(next) {
                    todo.push(next);
                }
            }
        }
        found
    }
}
