//! The first half of a copy: which files its sources name, without looking at where they go.
//!
//! What is found here, with the digests of the files, is what the step's key is made of.

use image::entry::Kind;
use planner::{
    ignore::Patterns,
    plan::{CopyOp, ParentsPattern},
    wildcard,
};

use crate::{
    error::ExecutorError,
    tree::{Choice, Found, Node, Tree, components, join, last_name, lossy},
};

/// One match of one source: a file, or a folder whose content is copied.
#[derive(Debug, Clone)]
pub(crate) struct Match {
    /// Which tree of the step it is in.
    pub tree_idx: usize,
    /// The name it was found under, for the name in an existing folder.
    pub name: Vec<u8>,
    /// The match itself, links followed.
    pub root: Node,
    /// Its real path.
    pub root_path: Vec<u8>,
    /// What is below a folder, parents before children.
    pub below: Vec<Found>,
    /// Try to unpack it.
    pub unpack: bool,
}

/// Which files a source names.
pub(crate) struct Wanted<'a> {
    /// The tree.
    pub tree: &'a Tree,
    /// Its number in the step.
    pub tree_idx: usize,
    /// The path or pattern, absolute.
    pub path: &'a str,
    /// `--parents`.
    pub parents: Option<&'a ParentsPattern>,
    /// Try to unpack.
    pub unpack: bool,
}

/// Finds what `wanted` names.
///
/// # Errors
///
/// [`ExecutorError::NotFound`] for a path without wildcards that is not there.
pub(crate) fn gather(wanted: &Wanted<'_>, op: &CopyOp) -> Result<Vec<Match>, ExecutorError> {
    let excludes = patterns(&op.excludes)?;
    let path = parser::encode(wanted.path);
    let mut matches = Vec::new();
    for found in expand_wildcards(wanted.tree, &path, wanted.path)? {
        let real = wanted.tree.resolve(&found, true)?;
        let Some(root) = wanted.tree.lookup(&real)? else {
            return Err(ExecutorError::NotFound { path: lossy(&found) });
        };
        if !root.is_dir() && !excludes.is_empty() && excludes.matches(last_name(&found)) {
            continue;
        }
        let mut below = Vec::new();
        if root.is_dir() {
            let includes = match wanted.parents {
                Some(parents) => Some(patterns(std::slice::from_ref(&parents.pattern))?),
                None => None,
            };
            below = wanted.tree.walk(&real, &|path, is_folder| {
                let is_excluded = !excludes.is_empty() && excludes.matches(path);
                let keep = !is_excluded && includes.as_ref().is_none_or(|it| it.matches(path));
                Choice { keep, enter: is_folder && (!is_excluded || excludes.may_descend(path)) }
            })?;
        }
        if let Some(parents) = wanted.parents
            && parents.required
        {
            let pattern = parser::encode(&parents.pattern);
            let pattern: Vec<u8> = components(&pattern).collect::<Vec<_>>().join(&b'/');
            let is_there = below.iter().any(|it| it.path == pattern);
            if !is_there || pattern.is_empty() {
                return Err(ExecutorError::NotFound { path: lossy(&join(&found, &pattern)) });
            }
        }
        matches.push(Match {
            tree_idx: wanted.tree_idx,
            name: last_name(&found).to_vec(),
            root,
            root_path: real,
            below,
            unpack: wanted.unpack,
        });
    }
    Ok(matches)
}

/// Finds the paths that a pattern names; a path without wildcards names itself.
fn expand_wildcards(
    tree: &Tree,
    path: &[u8],
    written: &str,
) -> Result<Vec<Vec<u8>>, ExecutorError> {
    let segments: Vec<&[u8]> = components(path).collect();
    let n_literal = segments.iter().take_while(|it| !has_wildcards(it)).count();
    let base: Vec<u8> = segments[..n_literal].join(&b'/');
    if n_literal == segments.len() {
        return Ok(vec![base]);
    }
    let start = tree.resolve(&base, true)?;
    match tree.lookup(&start)? {
        None if n_literal > 0 => return Err(ExecutorError::NotFound { path: lossy(&base) }),
        Some(node) if node.is_dir() => {}
        _ => return Ok(Vec::new()),
    }
    let mut level = vec![start];
    for (nth, segment) in segments[n_literal..].iter().enumerate() {
        let is_last = n_literal + nth + 1 == segments.len();
        let mut next = Vec::new();
        for folder in &level {
            for (name, node) in tree.children(folder)? {
                let is_match = wildcard::matches(segment, &name)
                    .map_err(|_| ExecutorError::BadPattern { pattern: written.to_owned() })?;
                if is_match && (is_last || matches!(node.kind, Kind::Directory)) {
                    next.push(join(folder, &name));
                }
            }
        }
        level = next;
    }
    Ok(level)
}

fn has_wildcards(segment: &[u8]) -> bool {
    segment.iter().any(|it| matches!(it, b'*' | b'?' | b'[' | b'\\'))
}

fn patterns(texts: &[String]) -> Result<Patterns, ExecutorError> {
    Ok(Patterns::new(texts)?)
}
