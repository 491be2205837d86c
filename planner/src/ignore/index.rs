//! Tables in which the patterns that may match a path are looked up.

use alloc::{
    borrow::ToOwned,
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};

use super::glob::{Form, Glob};

/// The runs in which one and the same pattern occurs, ascending.
#[derive(Debug, Clone, Default)]
pub(super) struct Runs {
    choosing: Vec<u32>,
    taking_back: Vec<u32>,
}

impl Runs {
    /// Returns the runs of patterns with or without `!`.
    pub(super) fn of(&self, negated: bool) -> &[u32] {
        if negated { &self.taking_back } else { &self.choosing }
    }

    fn add(&mut self, run: u32, negated: bool) {
        let runs = if negated { &mut self.taking_back } else { &mut self.choosing };
        if runs.last() != Some(&run) {
            runs.push(run);
        }
    }
}

/// All patterns of a list.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    exact: BTreeMap<Vec<u8>, Runs>,
    starts: Texts<Runs>,
    ends: Texts<Runs>,
    globs: Vec<(Glob, Runs)>,
    /// Indices of globs by their longest text without wildcards, which a path must have somewhere.
    globs_by_text: Texts<Vec<u32>>,
    glob_idx_by_pattern: BTreeMap<String, u32>,
    /// With what patterns after `!` begin.
    taking_back: Texts<TakingBack>,
}

/// What may follow on the beginning of a pattern after `!`.
#[derive(Debug, Clone, Copy, Default)]
struct TakingBack {
    /// The last run of those patterns.
    last_run: u32,
    /// The last run of those that have wildcards behind the beginning.
    last_open_run: Option<u32>,
}

impl Index {
    /// Adds a pattern, `text` without its `!`.
    pub(super) fn enter(&mut self, text: &str, form: &Form, run: u32, negated: bool) {
        match form {
            Form::Exact(path) => self.exact.entry(path.clone()).or_default().add(run, negated),
            Form::Start(start) => self.starts.entry(start).add(run, negated),
            Form::End(end) => {
                self.ends.entry(end).add(run, negated);
                // `**/name` is also the plain `name`.
                if let Some(name) = end.strip_prefix(b"/") {
                    self.exact.entry(name.to_vec()).or_default().add(run, negated);
                }
            }
            Form::Glob(glob) => self.glob(text, glob).add(run, negated),
        }
        if negated {
            let known = self.taking_back.entry(&form.start());
            known.last_run = run;
            if !matches!(form, Form::Exact(_)) {
                known.last_open_run = Some(run);
            }
        }
    }

    fn glob(&mut self, text: &str, glob: &Glob) -> &mut Runs {
        let glob_idx = match self.glob_idx_by_pattern.get(text) {
            Some(&glob_idx) => glob_idx as usize,
            None => {
                let glob_idx = u32::try_from(self.globs.len()).unwrap_or(u32::MAX);
                self.glob_idx_by_pattern.insert(text.to_owned(), glob_idx);
                self.globs_by_text.entry(&glob.longest_text()).push(glob_idx);
                self.globs.push((glob.clone(), Runs::default()));
                glob_idx as usize
            }
        };
        &mut self.globs[glob_idx].1
    }

    /// Finds the patterns that match exactly this path.
    pub(super) fn hits(&self, path: &[u8]) -> Vec<&Runs> {
        let mut hits: Vec<&Runs> = self.exact.get(path).into_iter().collect();
        hits.extend(self.starts.at_start(path));
        hits.extend(self.ends.at_end(path));
        for glob_idx in self.globs_by_text.anywhere(path).flatten() {
            let (glob, runs) = &self.globs[*glob_idx as usize];
            if glob.matches(path) {
                hits.push(runs);
            }
        }
        hits
    }

    /// Reports whether a pattern after `!` of a run after `decided` may match something below a folder.
    pub(super) fn may_take_back(&self, folder: &[u8], decided: Option<u32>) -> bool {
        let mut below = folder.to_vec();
        below.push(b'/');
        self.taking_back.at_start(&below).any(|it| it.last_open_run > decided)
            || self.taking_back.from(&below).any(|it| Some(it.last_run) > decided)
    }
}

/// Values by a text that is to be found at the start, at the end or anywhere in a path.
#[derive(Debug, Clone)]
struct Texts<V> {
    values: BTreeMap<Vec<u8>, V>,
    lengths: BTreeSet<usize>,
}

impl<V> Default for Texts<V> {
    fn default() -> Self {
        Self { values: BTreeMap::new(), lengths: BTreeSet::new() }
    }
}

impl<V: Default> Texts<V> {
    fn entry(&mut self, text: &[u8]) -> &mut V {
        self.lengths.insert(text.len());
        self.values.entry(text.to_vec()).or_default()
    }

    /// Finds the texts with which a path starts.
    fn at_start(&self, path: &[u8]) -> impl Iterator<Item = &V> {
        let lengths = self.lengths.range(..=path.len());
        lengths.filter_map(|length| self.values.get(&path[..*length]))
    }

    /// Finds the texts with which a path ends.
    fn at_end(&self, path: &[u8]) -> impl Iterator<Item = &V> {
        let lengths = self.lengths.range(..=path.len());
        lengths.filter_map(|length| self.values.get(&path[path.len() - length..]))
    }

    /// Finds the texts that a path has somewhere. One that it has twice is found twice.
    fn anywhere(&self, path: &[u8]) -> impl Iterator<Item = &V> {
        self.lengths.range(..=path.len()).flat_map(move |&length| {
            let n_windows = if length == 0 { 1 } else { path.len() - length + 1 };
            (0..n_windows).filter_map(move |at| self.values.get(&path[at..at + length]))
        })
    }

    /// Finds the texts that start with a path.
    fn from<'a>(&'a self, path: &'a [u8]) -> impl Iterator<Item = &'a V> {
        let range = self.values.range(path.to_vec()..);
        range.take_while(|(text, _)| text.starts_with(path)).map(|(_, value)| value)
    }
}
