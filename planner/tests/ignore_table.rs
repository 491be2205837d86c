//! The rows of the conformance table `dockerignore.json` that match paths. (Reading the file is the parser's part.)

mod tables;

use std::collections::{BTreeMap, BTreeSet};

use planner::ignore::{Patterns, Trail};

#[test]
fn every_row() {
    tables::for_each("dockerignore.json", |row, problems| {
        if row["file"].is_string() {
            return;
        }
        let list: Vec<String> = serde_json::from_value(row["patterns"].clone()).unwrap();
        let patterns = match Patterns::new(&list) {
            Ok(patterns) => patterns,
            Err(error) => {
                if row["error"].is_null() {
                    problems.push(error.to_string());
                }
                return;
            }
        };
        if !row["error"].is_null() {
            problems.push(format!("wanted {}", row["error"]));
        } else if row["paths"].is_array() {
            let paths: Vec<String> = serde_json::from_value(row["paths"].clone()).unwrap();
            let wanted: BTreeSet<String> = serde_json::from_value(row["matches"].clone()).unwrap();
            for path in &paths {
                if patterns.matches(path.as_bytes()) != wanted.contains(path) {
                    problems.push(format!("{path}: wanted {}", wanted.contains(path)));
                }
                assert_eq!(
                    patterns.which(path.as_bytes()).is_some(),
                    patterns.matches(path.as_bytes()),
                    "{path}"
                );
            }
        } else {
            let files: Vec<String> = serde_json::from_value(row["files"].clone()).unwrap();
            let wanted: BTreeSet<String> = serde_json::from_value(row["kept"].clone()).unwrap();
            let kept = walk(&patterns, &files);
            if kept != wanted {
                let missing: Vec<_> = wanted.difference(&kept).collect();
                let extra: Vec<_> = kept.difference(&wanted).collect();
                problems.push(format!("missing {missing:?}, too many {extra:?}"));
            }
        }
    });
}

/// Walks a tree as a scan of a context does; folders of the result end in a slash.
fn walk(patterns: &Patterns, files: &[String]) -> BTreeSet<String> {
    let mut tree: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files {
        let mut folder = "";
        for (end, _) in file.match_indices('/') {
            tree.entry(folder.to_owned()).or_default().insert(file[..=end].to_owned());
            folder = &file[..=end];
        }
        tree.entry(folder.to_owned()).or_default().insert(file.clone());
    }
    let mut kept = BTreeSet::new();
    descend(patterns, &tree, "", patterns.root(), &mut kept);
    kept
}

fn descend(
    patterns: &Patterns,
    tree: &BTreeMap<String, BTreeSet<String>>,
    folder: &str,
    trail: Trail,
    kept: &mut BTreeSet<String>,
) {
    for path in &tree[folder] {
        let name = path.trim_end_matches('/');
        let below = patterns.enter(trail, name.as_bytes());
        if path.ends_with('/') && patterns.may_descend(name.as_bytes()) {
            descend(patterns, tree, path, below, kept);
        }
        if !below.is_excluded() || kept.iter().any(|it| path.ends_with('/') && it.starts_with(path))
        {
            kept.insert(path.clone());
        }
    }
}
