//! The rows of the conformance table `wildcards.json`: sources of COPY over a small tree.

mod tables;

use std::collections::{BTreeMap, BTreeSet};

use planner::wildcard::{self, Split};

#[test]
fn every_row() {
    tables::for_each("wildcards.json", |row, problems| {
        let files: Vec<String> = serde_json::from_value(row["files"].clone()).unwrap();
        let links: BTreeMap<String, String> = serde_json::from_value(row["links"].clone()).unwrap();
        let wanted: BTreeSet<String> = serde_json::from_value(row["matches"].clone()).unwrap();
        let found = resolve(row["pattern"].as_str().unwrap(), &files, &links);
        if found != wanted {
            problems.push(format!("wanted {wanted:?}, got {found:?}"));
        }
    });
}

/// Finds what a source names: itself, or what matches below its base.
fn resolve(source: &str, files: &[String], links: &BTreeMap<String, String>) -> BTreeSet<String> {
    let Split { base, pattern } = wildcard::split(source);
    let Some(pattern) = pattern else { return BTreeSet::from([base]) };
    let base = links.get(&base).unwrap_or(&base).trim_start_matches('/').to_owned();
    let mut paths = BTreeSet::new();
    for file in files.iter().chain(links.keys()) {
        for (end, _) in file.match_indices('/') {
            paths.insert(&file[..end]);
        }
        paths.insert(file);
    }
    let mut found: BTreeSet<String> = BTreeSet::new();
    for path in paths {
        let below = if base == "." { Some(path) } else { path.strip_prefix(&format!("{base}/")) };
        let Some(below) = below else { continue };
        let is_searched = !found.iter().any(|it| path.starts_with(&format!("{it}/")));
        if is_searched && wildcard::matches(pattern.as_bytes(), below.as_bytes()) == Ok(true) {
            found.insert(path.to_owned());
        }
    }
    found
}
