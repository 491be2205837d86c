//! The journal as builds see it: what is kept, what makes room, and what goes with the steps.

use cache::{JournalEntry, PruneOptions, StepKey, StepRecord, Store};

fn open() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(&folder.path().join("store")).expect("a new store");
    (folder, store)
}

fn entry(line: u8, build: usize, print: u64, is_again: bool) -> JournalEntry {
    JournalEntry { line: [line; 32], build: format!("{build:04}-1"), print, is_again }
}

fn builds(store: &Store, line: u8) -> Vec<(String, bool)> {
    let journal = store.journal(&[line; 32]).expect("listed");
    journal.into_iter().map(|it| (it.build, it.is_again)).collect()
}

#[test]
fn the_youngest_builds_of_a_line_are_kept() {
    let (_folder, store) = open();
    assert_eq!(store.whole_journal().expect("listed"), []);
    for build in 0..20 {
        let entry = entry(1, build, build as u64, false);
        store.put_journal(&entry, format!("{build}").as_bytes()).expect("written");
    }
    store.put_journal(&entry(2, 7, 7, false), b"other").expect("written");
    let kept: Vec<String> = builds(&store, 1).into_iter().map(|it| it.0).collect();
    assert_eq!(kept.len(), 8);
    assert_eq!((kept[0].as_str(), kept[7].as_str()), ("0019-1", "0012-1"));
    assert_eq!(store.whole_journal().expect("listed").len(), 9);
    let read = store.journal_entry(&entry(1, 19, 19, false)).expect("read");
    assert_eq!(read.as_deref(), Some(&b"19"[..]));
    assert_eq!(store.journal_entry(&entry(1, 3, 3, false)).expect("read"), None);
    assert!(
        store
            .put_journal(&JournalEntry { build: "../x".to_owned(), ..entry(1, 1, 1, false) }, b"")
            .is_err()
    );
}

#[test]
fn of_builds_that_found_everything_the_last_is_kept() {
    let (_folder, store) = open();
    for (build, print, is_again) in
        [(1, 5, false), (2, 5, true), (3, 5, true), (4, 6, false), (5, 6, true)]
    {
        store.put_journal(&entry(1, build, print, is_again), b"").expect("written");
    }
    let expected = [("0005-1", true), ("0004-1", false), ("0001-1", false)];
    assert_eq!(builds(&store, 1), expected.map(|(build, again)| (build.to_owned(), again)));
}

#[test]
fn lists_of_files_go_with_their_steps_and_builds_with_the_store() {
    let (_folder, store) = open();
    let key = StepKey([7; 32]);
    let record = StepRecord {
        key,
        parent: None,
        layer: None,
        same_as: None,
        description: "a step".to_owned(),
        recipe: serde_json::Value::Null,
        created: 0,
        duration_ms: 0,
        last_used: 0,
    };
    store.put_step_files(&key, b"list").expect("written");
    store.put_step(&record).expect("written");
    store.put_step_files(&StepKey([8; 32]), b"of no step").expect("written");
    store.put_journal(&entry(1, 1, 1, false), b"").expect("written");

    store.prune(&PruneOptions { logs: true, ..PruneOptions::default() }).expect("pruned");
    assert_eq!(store.step_files(&key).expect("read").as_deref(), Some(&b"list"[..]));
    assert_eq!(store.step_files(&StepKey([8; 32])).expect("read"), None);
    store.prune(&PruneOptions::everything()).expect("pruned");
    assert_eq!(store.step_files(&key).expect("read"), None);
    // That a step was pruned can be said because its build is still known.
    assert_eq!(builds(&store, 1).len(), 1);

    store.reset(true).expect("reset");
    assert_eq!(builds(&store, 1).len(), 0);
}
