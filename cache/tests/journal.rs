//! The journal as builds see it: what is kept, what makes room, and what goes with the steps.

mod step;

use cache::{JournalEntry, PruneOptions, StepKey, Store};
use step::step_record;

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
    store.put_step_files(&key, b"list").expect("written");
    store.put_step(&step_record(key, None)).expect("written");
    store.put_step_files(&StepKey([8; 32]), b"of no step").expect("written");
    for build in 1..4 {
        store.put_journal(&entry(1, build, build as u64, false), b"a build").expect("written");
    }
    store.put_journal(&entry(1, 4, 3, true), b"again").expect("written");
    let used = |store: &Store| store.disk_usage(&Default::default()).expect("a look").other.n_total;
    assert_eq!(used(&store), 6);

    store.prune(&PruneOptions { logs: true, ..PruneOptions::default() }).expect("pruned");
    assert_eq!(store.step_files(&key).expect("read").as_deref(), Some(&b"list"[..]));
    assert_eq!(store.step_files(&StepKey([8; 32])).expect("read"), None);
    store.prune(&PruneOptions::everything()).expect("pruned");
    assert_eq!(store.step_files(&key).expect("read"), None);
    // That a step was pruned can be said because its build is still known.
    let youngest = [("0004-1", true), ("0003-1", false)];
    assert_eq!(builds(&store, 1), youngest.map(|(build, again)| (build.to_owned(), again)));
    assert_eq!(used(&store), 2);
    // A line that nothing was built of for long goes as a whole.
    let until = |seconds| PruneOptions {
        logs: true,
        until: Some(std::time::Duration::from_secs(seconds)),
        ..PruneOptions::default()
    };
    store.prune(&until(3600)).expect("pruned");
    assert_eq!(builds(&store, 1).len(), 2);
    let line = store.root().join("builds").join("01".repeat(32));
    for file in std::fs::read_dir(&line).expect("a folder") {
        let file = std::fs::File::open(file.expect("a file").path()).expect("opened");
        file.set_modified(std::time::UNIX_EPOCH).expect("set");
    }
    store.prune(&until(3600)).expect("pruned");
    assert!(!line.exists());
    store.put_journal(&entry(1, 5, 5, false), b"a build").expect("written");

    store.reset().expect("reset");
    assert_eq!(builds(&store, 1).len(), 0);
}
