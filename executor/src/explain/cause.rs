//! What can be different about a step, and finding it between two builds.

use planner::lint::is_secret;
use serde::Serialize;

use super::{
    Explained, Lists, N_NAMED,
    align::align,
    files::{self, FileChange},
    journal::{Journaled, JournaledPlan, JournaledStep, Ref, State},
    recipe::{self, Difference},
};

/// Why a step was not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "cause", rename_all = "kebab-case")]
pub enum Cause {
    /// Nothing was built before from this Dockerfile and context.
    FirstBuild,
    /// No earlier build had this step.
    NewStep,
    /// It was asked for.
    NoCache {
        /// By `--no-cache`; else by `--no-cache-filter`.
        all: bool,
    },
    /// It was known, and was removed from the store since.
    Pruned,
    /// An earlier build began it and did not end it.
    Unfinished,
    /// Another version of kiln made the key.
    Version,
    /// The instruction is written differently.
    Instruction {
        /// Before.
        was: String,
        /// Now.
        now: String,
    },
    /// The words to run are others, though the instruction is written the same: another shell, or a line of a heredoc.
    Command {
        /// Before: the shell, or the first line that differs.
        was: String,
        /// Now.
        now: String,
    },
    /// Files that it reads are others.
    Files {
        /// Where they are.
        source: String,
        /// The first of them; none where no list was kept.
        files: Vec<FileChange>,
        /// How many there are.
        count: u64,
        /// Why they are others, where a step made them.
        #[serde(skip_serializing_if = "Option::is_none")]
        because: Option<Box<Cause>>,
    },
    /// The ignore file lets other files be seen.
    Ignore {
        /// Patterns that are new.
        added: Vec<String>,
        /// Patterns that are gone.
        removed: Vec<String>,
    },
    /// A variable is another one.
    Variable {
        /// Its name.
        name: String,
        /// It comes from ARG.
        is_arg: bool,
        /// Its value before, cut; none where there was none, or where it is not shown.
        #[serde(skip_serializing_if = "Option::is_none")]
        was: Option<String>,
        /// Its value now.
        #[serde(skip_serializing_if = "Option::is_none")]
        now: Option<String>,
        /// How it changed.
        change: VariableChange,
    },
    /// The variables are the same, and set in another order.
    VariableOrder,
    /// The name of an image means another image.
    Image {
        /// The name.
        image: String,
        /// Its digest before.
        was: String,
        /// Its digest now.
        now: String,
    },
    /// Another image is named.
    ImageName {
        /// Before.
        was: String,
        /// Now.
        now: String,
    },
    /// The step that it builds on left something else.
    Step {
        /// The step where the difference begins.
        step: String,
        /// Its number in the plan.
        number: usize,
        /// What is different about it, where it was known. One that was done has its own causes.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        causes: Vec<Cause>,
    },
    /// An instruction before it is gone.
    RemovedStep {
        /// That instruction.
        text: String,
    },
    /// Something else that an instruction or an option says.
    Setting {
        /// What.
        name: String,
        /// Before.
        was: String,
        /// Now.
        now: String,
    },
    /// What it builds on is different, and nothing says why.
    Parent,
}

/// How a variable changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum VariableChange {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// Its value is another one.
    Value,
}

/// Two plans, and which steps of them are the same.
pub(super) struct Pair<'a> {
    build: &'a Journaled,
    plan: &'a JournaledPlan,
    old_build: &'a Journaled,
    old: &'a JournaledPlan,
    same: Vec<Option<usize>>,
    lists: &'a Lists<'a>,
}

impl<'a> Pair<'a> {
    pub(super) fn new(
        build: &'a Journaled,
        plan: &'a JournaledPlan,
        old_build: &'a Journaled,
        old: &'a JournaledPlan,
        lists: &'a Lists<'a>,
    ) -> Self {
        let same = align(&plan.steps, &old.steps);
        Self { build, plan, old_build, old, same, lists }
    }

    /// The id of the earlier build.
    pub(super) fn build(&self) -> &str {
        &self.old_build.build
    }

    /// The step of the earlier build, if it got as far as its key.
    fn old_step(&self, idx: usize) -> Option<&'a JournaledStep> {
        let step = &self.old.steps[self.same[idx]?];
        step.key.is_some().then_some(step)
    }

    /// How many things are different about a step; nothing if the earlier build did not have it.
    pub(super) fn distance(&self, idx: usize) -> Option<usize> {
        let (step, old) = (&self.plan.steps[idx], self.old_step(idx)?);
        if step.key == old.key {
            // Best is a build in which it was there; one in which it failed says less.
            return Some(usize::from(!matches!(old.state, State::Hit | State::Done)));
        }
        let n_texts = usize::from(step.text != old.text);
        let n_platforms = usize::from(self.plan.platform != self.old.platform);
        Some(1 + n_texts + n_platforms + recipe::compare(&old.recipe, &step.recipe).len())
    }

    /// What is different about a step.
    pub(super) fn causes(&self, idx: usize, explained: &[Explained]) -> Vec<Cause> {
        let (step, Some(old)) = (&self.plan.steps[idx], self.old_step(idx)) else {
            return vec![Cause::NewStep];
        };
        if step.key == old.key {
            return vec![match old.state {
                State::Hit | State::Done => Cause::Pruned,
                _ => Cause::Unfinished,
            }];
        }
        let mut causes = self.own(idx, Some(explained));
        if recipe::compare(&old.recipe, &step.recipe).contains(&Difference::Parent) {
            causes.push(self.parent(idx, explained));
        }
        if causes.is_empty() {
            causes.push(match self.build.keys == self.old_build.keys {
                true => Cause::Parent,
                false => Cause::Version,
            });
        }
        causes
    }

    /// What is different about a step itself, apart from what it builds on.
    /// Files say which step made them only with `explained`.
    fn own(&self, idx: usize, explained: Option<&[Explained]>) -> Vec<Cause> {
        let (step, Some(old)) = (&self.plan.steps[idx], self.old_step(idx)) else {
            return vec![Cause::NewStep];
        };
        let mut causes = Vec::new();
        let is_rewritten = step.text != old.text;
        if is_rewritten {
            let (was, now) = cut_pair(&old.text, &step.text);
            causes.push(Cause::Instruction { was, now });
        }
        let differences = recipe::compare(&old.recipe, &step.recipe);
        // A copy that is known by the layers of its sources has no digest of their content to compare.
        let has_content = differences.contains(&Difference::Content)
            || step.key != old.key && old.recipe["kind"] != step.recipe["kind"];
        if has_content && (!is_rewritten || self.reads_same(step, old)) {
            self.files(step, old, explained, &mut causes);
        }
        for difference in differences {
            if is_rewritten && difference.is_of_text() {
                continue;
            }
            match difference {
                Difference::Parent | Difference::Content => {}
                Difference::Variable { name, was, now } => {
                    causes.push(self.variable(name, was, now));
                }
                Difference::Order => causes.push(Cause::VariableOrder),
                Difference::Command { was, now } => causes.push(command(&was, &now)),
                Difference::Setting { field, was, now } => {
                    let (was, now) = cut_pair(&was, &now);
                    causes.push(Cause::Setting { name: setting(&field), was, now });
                }
            }
        }
        causes
    }

    fn variable(&self, name: String, was: Option<String>, now: Option<String>) -> Cause {
        let is_arg = [self.build, self.old_build].iter().any(|it| it.about.args.contains(&name));
        let change = match (&was, &now) {
            (None, _) => VariableChange::Added,
            (_, None) => VariableChange::Removed,
            _ => VariableChange::Value,
        };
        if is_secret(&name) {
            return Cause::Variable { name, is_arg, was: None, now: None, change };
        }
        let (was, now) = match (was, now) {
            (Some(was), Some(now)) => {
                let (was, now) = cut_pair(&was, &now);
                (Some(was), Some(now))
            }
            (was, now) => (was.map(|it| cut(&it)), now.map(|it| cut(&it))),
        };
        Cause::Variable { name, is_arg, was, now, change }
    }

    /// Whether two steps read the same paths of the same sources.
    fn reads_same(&self, step: &JournaledStep, old: &JournaledStep) -> bool {
        let label =
            |plan: &JournaledPlan, it: &(Ref, String)| (source_name(plan, &it.0), it.1.clone());
        let ours = step.reads.iter().map(|it| label(self.plan, it));
        ours.eq(old.reads.iter().map(|it| label(self.old, it)))
    }

    /// Names the files that make another key.
    fn files(
        &self,
        step: &JournaledStep,
        old: &JournaledStep,
        explained: Option<&[Explained]>,
        causes: &mut Vec<Cause>,
    ) {
        let n_before = causes.len();
        let list = |step: &JournaledStep| self.lists.list(step.key.as_ref()?);
        let lists = list(old).zip(list(step));
        let is_unlisted = lists.is_none();
        let mut changes =
            lists.map(|(was, now)| files::compare(&was, &now, N_NAMED)).unwrap_or_default();
        for (item, (source, path)) in step.reads.iter().enumerate() {
            let changed = changes.remove(&item);
            let because = explained.and_then(|it| self.source(source, it));
            if changed.is_none() && !(is_unlisted && (because.is_some() || step.reads.len() == 1)) {
                continue;
            }
            let (files, count) = changed.unwrap_or_default();
            let place = source_name(self.plan, source);
            let source = if *source == Ref::Nothing { path.clone() } else { place };
            causes.push(Cause::Files { source, files, count, because: because.map(Box::new) });
        }
        let (was, now) = (&self.old_build.about.ignored, &self.build.about.ignored);
        if causes.len() > n_before && was != now {
            let only = |here: &[String], there: &[String]| -> Vec<String> {
                here.iter().filter(|it| !there.contains(it)).cloned().collect()
            };
            let reads_context = |it: &(Ref, String)| it.0 == Ref::Other("context".to_owned());
            if step.reads.iter().any(reads_context) {
                causes.push(Cause::Ignore { added: only(now, was), removed: only(was, now) });
            }
        }
    }

    /// Why a source that is a step or an image has something else in it; nothing if it does not.
    fn source(&self, source: &Ref, explained: &[Explained]) -> Option<Cause> {
        match source {
            Ref::Step(idx) => {
                let before = self.same[*idx].map(|it| &self.old.steps[it].output);
                if before == Some(&self.plan.steps[*idx].output) {
                    return None;
                }
                Some(self.root(*idx, explained))
            }
            Ref::Image(idx) => self.image(*idx, &Ref::Image(*idx)),
            Ref::Nothing | Ref::Other(_) => None,
        }
    }

    /// What became of an image; `before` is where it was read in the earlier plan.
    fn image(&self, idx: usize, before: &Ref) -> Option<Cause> {
        let now = self.plan.images.get(idx)?;
        let same_name = self.old.images.iter().find(|it| it.reference == now.reference);
        match (same_name, before) {
            (Some(was), _) if was.digest != now.digest => Some(Cause::Image {
                image: now.reference.clone(),
                was: was.digest.clone(),
                now: now.digest.clone(),
            }),
            (None, Ref::Image(was)) => Some(Cause::ImageName {
                was: self.old.images.get(*was)?.reference.clone(),
                now: now.reference.clone(),
            }),
            _ => None,
        }
    }

    /// Why what a step builds on is different.
    fn parent(&self, idx: usize, explained: &[Explained]) -> Cause {
        let step = &self.plan.steps[idx];
        let Some(old) = self.same[idx].map(|it| &self.old.steps[it]) else { return Cause::Parent };
        match (&step.parent, &old.parent) {
            (Ref::Step(below), Ref::Step(old_below)) => {
                let same = self.same[*below].map(|it| &self.old.steps[it]);
                // The step below is what it was, but another one was there in between.
                if let Some(same) = same
                    && self.same[*below] != Some(*old_below)
                    && same.output == self.plan.steps[*below].output
                {
                    return Cause::RemovedStep { text: cut(&self.old.steps[*old_below].text) };
                }
                self.root(*below, explained)
            }
            (Ref::Step(below), _) => self.root(*below, explained),
            (Ref::Image(image), before) => match (self.image(*image, before), before) {
                (Some(cause), _) => cause,
                (None, Ref::Step(old_below)) => {
                    Cause::RemovedStep { text: cut(&self.old.steps[*old_below].text) }
                }
                (None, Ref::Nothing) => Cause::ImageName {
                    was: "scratch".to_owned(),
                    now: source_name(self.plan, &step.parent),
                },
                _ => Cause::Parent,
            },
            (Ref::Nothing, Ref::Image(image)) => Cause::ImageName {
                was: self.old.images.get(*image).map(|it| it.reference.clone()).unwrap_or_default(),
                now: "scratch".to_owned(),
            },
            (_, Ref::Step(old_below)) => {
                Cause::RemovedStep { text: cut(&self.old.steps[*old_below].text) }
            }
            _ => Cause::Parent,
        }
    }

    /// The step at which a difference begins that shows in step `idx`, which is that step or one below it.
    fn root(&self, idx: usize, explained: &[Explained]) -> Cause {
        let step = &self.plan.steps[idx];
        let at = |causes| Cause::Step { step: step.name.clone(), number: idx, causes };
        match explained.get(idx) {
            // It was done in this build: for the reasons that were found.
            Some(it) if !it.causes.is_empty() => match it.causes.as_slice() {
                [cause] if cause.is_below() => cause.clone(),
                _ => at(Vec::new()),
            },
            // It was known, but is another than it was in the earlier build.
            _ => match self.old_step(idx) {
                Some(old) if old.key == step.key => at(Vec::new()),
                Some(_) => match self.own(idx, None) {
                    own if own.is_empty() => self.parent(idx, explained),
                    own => at(own),
                },
                None => at(vec![Cause::NewStep]),
            },
        }
    }
}

impl Cause {
    /// Whether it says that something below changed, so that what builds on this step need not name this step.
    fn is_below(&self) -> bool {
        matches!(
            self,
            Self::Step { .. }
                | Self::Image { .. }
                | Self::ImageName { .. }
                | Self::RemovedStep { .. }
        )
    }
}

/// What to call a source.
fn source_name(plan: &JournaledPlan, source: &Ref) -> String {
    match source {
        Ref::Nothing => String::new(),
        Ref::Step(idx) => match plan.steps.get(*idx) {
            Some(step) => format!("stage {}", step.stage),
            None => String::new(),
        },
        Ref::Image(idx) => plan.images.get(*idx).map(|it| it.reference.clone()).unwrap_or_default(),
        Ref::Other(name) if name == "context" => "context".to_owned(),
        Ref::Other(name) => format!("context {name}"),
    }
}

/// The shell where that differs, else the first line that does.
fn command(was: &[String], now: &[String]) -> Cause {
    let shell = |it: &[String]| it.split_last().map(|it| it.1.join(" ")).unwrap_or_default();
    let (was, now) = match (was.last(), now.last()) {
        (Some(old), Some(new)) if old == new => (shell(was), shell(now)),
        _ => {
            let lines = |it: &[String]| -> Vec<String> {
                it.join("\n").lines().map(str::to_owned).collect()
            };
            let (was, now) = (lines(was), lines(now));
            let first = was.iter().zip(&now).take_while(|(a, b)| a == b).count();
            let line = |of: &[String]| of.get(first).cloned().unwrap_or_default();
            (line(&was), line(&now))
        }
    };
    let (was, now) = cut_pair(&was, &now);
    Cause::Command { was, now }
}

/// A field of a recipe in the words of a Dockerfile.
fn setting(field: &str) -> String {
    let words = match field {
        "dest" => "destination",
        "cwd" => "working directory",
        "user" => "user",
        "epoch" => "SOURCE_DATE_EPOCH",
        "latest" => "latest time of files",
        "hosts" => "added hosts",
        "shm" => "size of /dev/shm",
        "hostname" => "host name",
        "path" => "path",
        other => other,
    };
    words.to_owned()
}

/// Values are cut to this many letters.
const N_SHOWN: usize = 72;
/// As many letters are shown before the first that differs.
const N_BEFORE: usize = 16;

fn cut(text: &str) -> String {
    let flat: String = text.chars().map(|it| if it.is_control() { ' ' } else { it }).collect();
    match flat.char_indices().nth(N_SHOWN) {
        Some((at, _)) => format!("{}…", &flat[..at]),
        None => flat,
    }
}

/// Cuts two texts such that where they begin to differ can be seen.
fn cut_pair(was: &str, now: &str) -> (String, String) {
    let n_same = was.chars().zip(now.chars()).take_while(|(a, b)| a == b).count();
    let is_long = |it: &str| it.chars().nth(N_SHOWN).is_some();
    if n_same <= N_BEFORE || !(is_long(was) || is_long(now)) {
        return (cut(was), cut(now));
    }
    let rest = |it: &str| {
        let tail: String = it.chars().skip(n_same - N_BEFORE).collect();
        format!("…{}", cut(&tail))
    };
    (rest(was), rest(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_cut_where_they_differ() {
        assert_eq!(cut_pair("a", "b"), ("a".to_owned(), "b".to_owned()));
        let (was, now) =
            cut_pair(&format!("{}1", "x".repeat(200)), &format!("{}2", "x".repeat(200)));
        assert_eq!(was, format!("…{}1", "x".repeat(N_BEFORE)));
        assert!(now.ends_with('2'));
        assert_eq!(cut("a\nb\u{1b}"), "a b ");
    }

    #[test]
    fn a_shell_is_told_from_a_line() {
        let words = |it: &[&str]| it.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let found = command(&words(&["/bin/sh", "-c", "x"]), &words(&["/bin/bash", "-c", "x"]));
        let expected =
            Cause::Command { was: "/bin/sh -c".to_owned(), now: "/bin/bash -c".to_owned() };
        assert_eq!(found, expected);
        let found = command(&words(&["sh", "-c", "a\nb\nc"]), &words(&["sh", "-c", "a\nd\nc"]));
        assert_eq!(found, Cause::Command { was: "b".to_owned(), now: "d".to_owned() });
    }
}
