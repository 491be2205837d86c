//! Lists of patterns that choose paths: `.dockerignore` and `--exclude`.
//!
//! The last pattern that matches a path or a folder above it decides; a pattern after `!` takes back. `*` and `?` stop at
//! slashes, `**` does not, and a pattern holds from the root of the tree. A list is made for the way in which BuildKit
//! walks a tree, from a folder to what is in it: a pattern that matches a folder when the folder is already chosen is not
//! remembered for what lies below it.
//!
//! Patterns are sorted into tables by what can be looked up, so that a path is compared with few of them: whole paths,
//! beginnings, ends, and for what remains the literal text before the first or after the last wildcard.
//!
//! # Invariants
//!
//! - **No backtracking.** A pattern takes time of at most its length times that of the path.

mod glob;

use alloc::{
    borrow::ToOwned,
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};

use glob::{Form, Glob};

use crate::{path::clean, wildcard::BadPattern};

/// A pattern that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// A `!` with nothing behind it.
    #[error("illegal exclusion pattern: \"!\"")]
    LoneExclamation,
    /// The pattern is malformed.
    #[error("invalid pattern `{pattern}`")]
    Malformed {
        /// The pattern as written.
        pattern: String,
        /// Why.
        source: BadPattern,
    },
}

/// A list of patterns, ready to be matched.
#[derive(Debug, Clone, Default)]
pub struct Patterns {
    /// All patterns that are not empty, with their place in the list given.
    rules: Vec<(usize, Rule)>,
    /// Whether patterns of a run take back. A run is patterns in a row that do the same.
    runs: Vec<bool>,
    exact: BTreeMap<Vec<u8>, Vec<u32>>,
    starts: Affixes,
    ends: Affixes,
    globs_by_start: Affixes,
    globs_by_end: Affixes,
    /// For `**/text*`: by the text that a part of the path starts with.
    globs_by_part: Affixes,
    globs: Vec<(u32, Glob)>,
}

/// One pattern.
#[derive(Debug, Clone)]
struct Rule {
    run: u32,
    form: Form,
}

/// What a walk knows of a folder: which patterns hold for all that is below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trail {
    runs: Vec<u32>,
    excluded: bool,
}

impl Trail {
    /// Reports whether the path is chosen.
    pub fn is_excluded(&self) -> bool {
        self.excluded
    }
}

impl Patterns {
    /// Reads a list of patterns. Blanks around them and empty ones do not count.
    ///
    /// # Errors
    ///
    /// A pattern is a lone `!` or is malformed.
    ///
    /// # Examples
    ///
    /// ```
    /// use planner::ignore::Patterns;
    ///
    /// let patterns = Patterns::new(&["**/*.log", "docs", "!docs/README.md"])?;
    /// assert!(patterns.matches(b"a/b.log"));
    /// assert!(patterns.matches(b"docs/a/b"));
    /// assert!(!patterns.matches(b"docs/README.md"));
    /// assert!(patterns.may_descend(b"docs"));
    /// # Ok::<(), planner::ignore::PatternError>(())
    /// ```
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self, PatternError> {
        let mut list = Self::default();
        for (pattern_idx, pattern) in patterns.iter().enumerate() {
            let pattern = pattern.as_ref().trim();
            if pattern.is_empty() {
                continue;
            }
            let cleaned = clean(pattern);
            let (negated, text) = match cleaned.strip_prefix('!') {
                Some("") => return Err(PatternError::LoneExclamation),
                Some(text) => (true, text),
                None => (false, cleaned.as_str()),
            };
            let form = Form::parse(text).map_err(|source| PatternError::Malformed {
                pattern: pattern.to_owned(),
                source,
            })?;
            if list.runs.last() != Some(&negated) {
                list.runs.push(negated);
            }
            let run = u32::try_from(list.runs.len() - 1).unwrap_or(u32::MAX);
            list.enter(run, &form);
            list.rules.push((pattern_idx, Rule { run, form }));
        }
        Ok(list)
    }

    fn enter(&mut self, run: u32, form: &Form) {
        match form {
            Form::Exact(path) => push_run(self.exact.entry(path.clone()).or_default(), run),
            Form::Start(start) => self.starts.add(start, run),
            Form::End(end) => {
                self.ends.add(end, run);
                // `**/name` is also the plain `name`.
                if let Some(name) = end.strip_prefix(b"/").filter(|it| !it.is_empty()) {
                    push_run(self.exact.entry(name.to_vec()).or_default(), run);
                }
            }
            Form::Glob(glob) => {
                let glob_idx = u32::try_from(self.globs.len()).unwrap_or(u32::MAX);
                let texts = [glob.start(), glob.end(), glob.part_start()];
                let [start, end, part] = &texts;
                if start.len() >= end.len().max(part.len()) {
                    self.globs_by_start.add(start, glob_idx);
                } else if end.len() >= part.len() {
                    self.globs_by_end.add(end, glob_idx);
                } else {
                    self.globs_by_part.add(part, glob_idx);
                }
                self.globs.push((run, glob.clone()));
            }
        }
    }

    /// Reports whether there is no pattern at all.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Reports whether the list chooses a path: relative, with slashes, cleaned. The root (`.` or nothing) never is.
    pub fn matches(&self, path: &[u8]) -> bool {
        self.trail(path).excluded
    }

    /// Returns what [`enter_path`](Self::enter_path) returns for the root.
    pub fn root(&self) -> Trail {
        Trail::default()
    }

    /// Decides on a path, given what its folder came to. The same as [`matches`](Self::matches), for walks.
    pub fn enter_path(&self, folder: &Trail, path: &[u8]) -> Trail {
        if self.runs.is_empty() || path.is_empty() || path == b"." {
            return Trail::default();
        }
        // In a list that takes nothing back, what is below a chosen folder is chosen.
        if folder.excluded && self.runs.len() == 1 {
            return folder.clone();
        }
        let mut hits = Vec::new();
        self.hits(path, &mut hits);
        hits.extend_from_slice(&folder.runs);
        hits.sort_unstable();
        hits.dedup();
        let mut trail = Trail::default();
        for run in hits {
            let negated = self.runs[run as usize];
            if folder.runs.binary_search(&run).is_ok() || negated == trail.excluded {
                trail.runs.push(run);
                trail.excluded = !negated;
            }
        }
        trail
    }

    fn trail(&self, path: &[u8]) -> Trail {
        let mut trail = self.root();
        for (at, _) in path.iter().enumerate().filter(|(_, it)| **it == b'/') {
            trail = self.enter_path(&trail, &path[..at]);
        }
        self.enter_path(&trail, path)
    }

    /// Returns the place in the list given of the pattern because of which a path is chosen, or `None` if it is not.
    pub fn which(&self, path: &[u8]) -> Option<usize> {
        let trail = self.trail(path);
        let run = trail.runs.iter().rev().find(|run| !self.runs[**run as usize])?;
        if !trail.excluded {
            return None;
        }
        let ends = path.iter().enumerate().filter(|(_, it)| **it == b'/').map(|(at, _)| at);
        let above: Vec<&[u8]> = ends.chain([path.len()]).map(|at| &path[..at]).collect();
        let first = self.rules.partition_point(|(_, rule)| rule.run < *run);
        let after = self.rules.partition_point(|(_, rule)| rule.run <= *run);
        let is_hit = |rule: &Rule| above.iter().any(|it| rule.form.matches(it));
        self.rules[first..after]
            .iter()
            .rfind(|(_, rule)| is_hit(rule))
            .map(|(pattern_idx, _)| *pattern_idx)
    }

    /// Reports whether something below a folder may not be chosen, so that the folder has to be searched.
    ///
    /// For a folder that is not chosen itself the answer is always yes. The answer for one that is may be yes without need.
    pub fn may_descend(&self, folder: &[u8]) -> bool {
        let trail = self.trail(folder);
        if !trail.excluded {
            return true;
        }
        let decided = trail.runs.last().copied().unwrap_or_default();
        let first = self.rules.partition_point(|(_, rule)| rule.run <= decided);
        self.rules[first..]
            .iter()
            .filter(|(_, rule)| self.runs[rule.run as usize])
            .any(|(_, rule)| rule.form.may_match_below(folder))
    }

    /// Collects the runs of all patterns that match exactly this path.
    fn hits(&self, path: &[u8], hits: &mut Vec<u32>) {
        if let Some(runs) = self.exact.get(path) {
            hits.extend_from_slice(runs);
        }
        self.starts.at_start(path, |runs| hits.extend_from_slice(runs));
        self.ends.at_end(path, |runs| hits.extend_from_slice(runs));
        let letters = glob::letters(path);
        let mut globs = |indices: &[u32]| {
            for &glob_idx in indices {
                let (run, glob) = &self.globs[glob_idx as usize];
                if hits.last() != Some(run) && glob.may_match(letters) && glob.matches(path) {
                    hits.push(*run);
                }
            }
        };
        self.globs_by_start.at_start(path, &mut globs);
        self.globs_by_end.at_end(path, &mut globs);
        if !self.globs_by_part.lengths.is_empty() {
            let slashes = path.iter().enumerate().filter(|(_, it)| **it == b'/');
            for at in slashes.map(|(at, _)| at + 1).chain([0]) {
                self.globs_by_part.at_start(&path[at..], &mut globs);
            }
        }
    }
}

/// Texts that a path may begin or end with.
#[derive(Debug, Clone, Default)]
struct Affixes {
    by_text: BTreeMap<Vec<u8>, Vec<u32>>,
    lengths: BTreeSet<usize>,
}

impl Affixes {
    fn add(&mut self, text: &[u8], value: u32) {
        self.lengths.insert(text.len());
        push_run(self.by_text.entry(text.to_vec()).or_default(), value);
    }

    fn at_start(&self, path: &[u8], mut found: impl FnMut(&[u32])) {
        for &length in self.lengths.range(..=path.len()) {
            if let Some(values) = self.by_text.get(&path[..length]) {
                found(values);
            }
        }
    }

    fn at_end(&self, path: &[u8], mut found: impl FnMut(&[u32])) {
        for &length in self.lengths.range(..=path.len()) {
            if let Some(values) = self.by_text.get(&path[path.len() - length..]) {
                found(values);
            }
        }
    }
}

/// Adds to an ascending list what is not in it yet.
fn push_run(runs: &mut Vec<u32>, run: u32) {
    if runs.last() != Some(&run) {
        runs.push(run);
    }
}
