//! Lists of patterns that choose paths: `.dockerignore` and `--exclude`.
//!
//! The last pattern that matches a path or a folder above it decides; a pattern after `!` takes back. `*` and `?` stop at
//! slashes, `**` does not, and a pattern holds from the root of the tree. A list is made for the way in which BuildKit
//! walks a tree, from a folder to what is in it: a pattern that matches a folder when the folder is already chosen is not
//! remembered for what lies below it.
//!
//! Patterns are sorted into tables by what can be looked up, so that a path is compared with few of them: whole paths,
//! beginnings, ends, and for what remains its longest text without wildcards.
//!
//! # Invariants
//!
//! - **No backtracking.** A pattern takes time of at most its length times that of the path.

mod glob;
mod index;

use alloc::{borrow::ToOwned, string::String, vec::Vec};

use glob::Form;
use index::{Index, Runs};

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
    /// All patterns that are not empty.
    rules: Vec<Rule>,
    /// Whether the patterns of a run take back. A run is patterns in a row that do the same: within one it does not
    /// matter which of them matched.
    runs: Vec<bool>,
    index: Index,
}

/// One pattern.
#[derive(Debug, Clone)]
struct Rule {
    /// Its place in the list given.
    pattern_idx: usize,
    run: u32,
    form: Form,
}

/// What a walk has to know of a folder when it comes to what is in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trail {
    /// The run that decided, if any did. It also holds for everything below, and nothing before it matters.
    decided: Option<u32>,
    excluded: bool,
}

impl Trail {
    /// Reports whether the path is chosen.
    pub fn is_excluded(&self) -> bool {
        self.excluded
    }

    /// Applies the patterns that match a path, in their order: one that would change nothing is passed over.
    fn follow(self, hits: &[&Runs]) -> Self {
        let is_later = |run: &u32| self.decided.is_none_or(|decided| *run > decided);
        let last = |negated: bool| {
            hits.iter().filter_map(|it| it.of(negated).last().copied()).filter(is_later).max()
        };
        let (choosing, taking_back) = (last(false), last(true));
        let negated = taking_back > choosing;
        let (end, opposite) =
            if negated { (taking_back, choosing) } else { (choosing, taking_back) };
        if end.is_none() || opposite.is_none() && self.excluded != negated {
            return self;
        }
        let bound = opposite.or(self.decided);
        let first = |runs: &&Runs| {
            let runs = runs.of(negated);
            let at = bound.map_or(0, |bound| runs.partition_point(|it| *it <= bound));
            runs.get(at).copied()
        };
        Self { decided: hits.iter().filter_map(first).min(), excluded: !negated }
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
            list.index.enter(text, &form, run, negated);
            list.rules.push(Rule { pattern_idx, run, form });
        }
        Ok(list)
    }

    /// Reports whether there is no pattern at all.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Reports whether the list chooses a path: relative, with slashes, cleaned. The root (`.` or nothing) never is.
    pub fn matches(&self, path: &[u8]) -> bool {
        self.trail(path).excluded
    }

    /// Returns what [`enter`](Self::enter) returns for the root.
    pub fn root(&self) -> Trail {
        Trail::default()
    }

    /// Decides on a path, given what its folder came to. The same as [`matches`](Self::matches), for walks.
    pub fn enter(&self, folder: Trail, path: &[u8]) -> Trail {
        if self.is_empty() || path.is_empty() || path == b"." {
            return Trail::default();
        }
        // In a list that takes nothing back, what is below a chosen folder is chosen.
        if folder.excluded && self.runs.len() == 1 {
            return folder;
        }
        folder.follow(&self.index.hits(path))
    }

    fn trail(&self, path: &[u8]) -> Trail {
        above(path).chain([path]).fold(self.root(), |trail, it| self.enter(trail, it))
    }

    /// Returns the place in the list given of the pattern because of which a path is chosen, or `None` if it is not.
    pub fn which(&self, path: &[u8]) -> Option<usize> {
        let trail = self.trail(path);
        let decided = trail.decided.filter(|_| trail.excluded)?;
        let first = self.rules.partition_point(|rule| rule.run < decided);
        let after = self.rules.partition_point(|rule| rule.run <= decided);
        let is_hit = |form: &Form| above(path).chain([path]).any(|it| form.matches(it));
        let rule = self.rules[first..after].iter().rfind(|rule| is_hit(&rule.form))?;
        Some(rule.pattern_idx)
    }

    /// Reports whether something below a folder may not be chosen, so that the folder has to be searched.
    ///
    /// For a folder that is not chosen itself the answer is always yes. The answer for one that is may be yes without need.
    pub fn may_descend(&self, folder: &[u8]) -> bool {
        let trail = self.trail(folder);
        !trail.excluded || self.index.may_take_back(folder, trail.decided)
    }
}

/// Returns the folders that a path lies in, the outermost first.
fn above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(_, it)| **it == b'/').map(|(at, _)| &path[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(patterns: &[&str]) -> Patterns {
        Patterns::new(patterns).expect("the patterns are well-formed")
    }

    #[test]
    fn names_the_pattern_that_decided() {
        let patterns = list(&["", "docs", "*.md", "!docs/keep", "docs/keep/*.tmp"]);
        for (path, which) in [
            ("docs", Some(1)),
            ("docs/a/b", Some(1)),
            ("README.md", Some(2)),
            ("docs/keep", None),
            ("docs/keep/a", None),
            ("docs/keep/a.tmp", Some(4)),
            ("src", None),
        ] {
            assert_eq!(patterns.which(path.as_bytes()), which, "{path}");
        }
    }

    #[test]
    fn searches_a_chosen_folder_only_for_what_may_be_taken_back() {
        for (patterns, folder, wanted) in [
            (&["a"][..], "a", false),
            (&["a"], "b", true),
            (&["a", "!a/b"], "a", true),
            (&["!a/b", "a"], "a", false),
            (&["a", "!ab/c"], "a", false),
            (&["a", "!a/b/*"], "a/b", true),
            (&["a", "!a/b/*"], "a/c", false),
            (&["a", "!**/c"], "a/b", true),
            (&["*", "!a/b*/c"], "a/x", false),
            (&["*", "!a/b*/c"], "a/bx", true),
            (&["*", "!a/**"], "a/b/c", true),
        ] {
            assert_eq!(
                list(patterns).may_descend(folder.as_bytes()),
                wanted,
                "{patterns:?} {folder}"
            );
        }
    }

    #[test]
    fn forgets_what_changed_nothing_in_the_folder() {
        // The second `a` finds the folder chosen already, so it does not hold for what is below.
        assert!(!list(&["a", "!a/b", "a"]).matches(b"a/b"));
        assert!(list(&["a", "!a/b", "a/*"]).matches(b"a/b"));
    }

    #[test]
    fn takes_bytes_that_are_no_text() {
        assert!(list(&["a?c"]).matches(b"a\xffc"));
        assert!(list(&["**/*.o"]).matches(b"\xff\xfe/x.o"));
        assert!(!list(&["a\u{fffd}c"]).matches(b"a\xffc"));
    }

    #[test]
    fn many_patterns_and_paths() {
        let patterns: Vec<String> = (0..10_000)
            .map(|it| alloc::format!("**/*{it}*.tmp"))
            .chain(["src/".to_owned() + &"*a".repeat(40)])
            .collect();
        let patterns = Patterns::new(&patterns).expect("the patterns are well-formed");
        let n_chosen = (0..500)
            .filter(|it| {
                patterns.matches(alloc::format!("src/{}/f{it}.rs", "a".repeat(40)).as_bytes())
            })
            .count();
        assert_eq!(n_chosen, 500, "`*a*a…` matches the folder");
    }
}
