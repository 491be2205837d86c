//! Looking a whole plan up without doing any of it: which steps are known, which would run.

use planner::{
    facts::Facts,
    plan::{Op, Plan, Source, StepId},
};

use super::{Execution, find::Found, needed};
use crate::{
    error::ExecutorError,
    explain::{Files, Journaled, State},
    session::{Session, full_message},
};

/// A plan that was looked up.
#[derive(Debug)]
pub struct Foreseen {
    /// What is known of each step of each plan, as the journal would have it.
    pub build: Journaled,
    /// The files of keys that are not in the store.
    pub files: Files,
}

impl Session {
    /// Looks up the steps of `plans` as [`build`](Self::build) does, and does none of them. Files of local contexts are
    /// read where a key needs them; nothing is fetched.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub fn foresee(&self, plans: &[Plan], facts: &Facts) -> Result<Foreseen, ExecutorError> {
        let _lease = self.store.lease()?;
        let mut files = Files::default();
        let mut planned = Vec::new();
        for plan in plans {
            let mut run = Execution::new(self, plan, facts);
            run.is_dry = true;
            run.pulled.iter_mut().for_each(|it| *it = std::sync::Mutex::new(true));
            let states: Vec<State> =
                (0..plan.steps.len()).map(|it| run.foresee(StepId(it), &mut files)).collect();
            planned.push(run.journaled(Some(&states)));
        }
        self.save_digests();
        Ok(Foreseen { build: self.journaled(planned), files })
    }
}

impl Execution<'_> {
    fn foresee(&self, id: StepId, files: &mut Files) -> State {
        let step = &self.plan.steps[id.0];
        // The layer of COPY --link is the same whatever it is laid on.
        let is_apart = matches!(&step.op, Op::Copy(op) if op.link);
        let is_open = |it: &StepId| {
            self.results[it.0].get().is_none() && !(is_apart && step.parent == Source::Step(*it))
        };
        if let Some(open) = needed(step).iter().find(|it| is_open(it)) {
            return State::Unknown { waits_for: Some(open.0) };
        }
        let parent = self.chain(&step.parent);
        let chain = parent.as_ref().cloned().unwrap_or_default();
        let task = self.session.later_task(step.name.clone());
        let mut found = match self.find(step, &chain, &task) {
            Ok(found) => found,
            Err(error) => return State::Failed { message: full_message(&error) },
        };
        self.note(id, &mut found);
        match found {
            Found::Known(record) => {
                if parent.is_ok() {
                    self.set_result(id, &chain, &record, true);
                }
                State::Hit
            }
            Found::Missing(missing) => {
                // Without the list a cause is only less exact.
                if let Ok(Some(list)) = missing.files() {
                    files.add(missing.key.0, &list);
                }
                State::Miss
            }
            Found::OutOfReach => State::Unknown { waits_for: None },
        }
    }
}
