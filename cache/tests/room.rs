//! The store keeps its limits before something is stored: what goes, in which order, and what never does.

mod entry;
mod step;

use std::{fs, io::Write, time::Duration};

use cache::{RoomOptions, StepKey, Store, StoreError, StoreOptions};
use entry::entry;
use image::{DiffId, entry::Kind, layer::IndexedTarWriter};
use step::step_record;

const KIB: u64 = 1024;

fn open(room: RoomOptions) -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = StoreOptions { sync: false, room, ..StoreOptions::default() };
    let store = Store::open_with(&folder.path().join("store"), options).expect("a new store");
    (folder, store)
}

fn up_to(n_kib: u64) -> RoomOptions {
    RoomOptions { max_used: Some(n_kib * KIB), ..RoomOptions::default() }
}

/// Stores a step with a layer of 100 KiB and a little more.
fn step(store: &Store, number: u8) -> Result<DiffId, StoreError> {
    let content = vec![number; 100 * 1024];
    let mut writer = IndexedTarWriter::new(store.stage_blob()?);
    let entry = entry("file", Kind::File { size: content.len() as u64 });
    writer.append(entry, &mut content.as_slice()).expect("an entry");
    let (blob, index) = writer.finish().expect("the end");
    store.put_tar(blob, &index)?;
    let key = StepKey([number; 32]);
    store.put_step(&step_record(key, Some(index.diff_id)))?;
    // Each was used an hour after the one before.
    let path = store.root().join(format!("steps/{}/{}.json", &key.hex()[..2], key.hex()));
    let then = std::time::UNIX_EPOCH + Duration::from_secs(3600 * u64::from(number));
    fs::File::open(path).and_then(|it| it.set_modified(then)).expect("a time");
    Ok(index.diff_id)
}

fn blob_bytes(store: &Store) -> u64 {
    let blobs = fs::read_dir(store.root().join("oci/blobs/sha256")).expect("a folder");
    blobs.map(|it| it.and_then(|it| it.metadata()).expect("a blob").len()).sum()
}

#[test]
fn the_longest_unused_goes_before_something_new_comes() {
    let (_folder, store) = open(up_to(320));
    for number in 1..=20 {
        step(&store, number).expect("stored");
        assert!(blob_bytes(&store) <= 320 * KIB, "after step {number}");
    }
    let left: Vec<String> =
        store.steps().expect("a list").into_iter().map(|it| it.description).collect();
    assert_eq!(left, ["RUN step 18", "RUN step 19", "RUN step 20"]);
}

#[test]
fn what_is_held_stays_and_what_does_not_fit_is_refused() {
    let (_folder, store) = open(up_to(320));
    for number in 1..=3 {
        step(&store, number).expect("stored");
    }
    // Another build that stands on the oldest of them.
    let builder = Store::open(store.root()).expect("another handle");
    let lease = builder.lease().expect("a lease");
    assert!(builder.step(&StepKey([1; 32])).expect("a look").is_some());
    assert!(builder.step(&StepKey([2; 32])).expect("a look").is_some());
    step(&store, 4).expect("stored");
    assert!(store.step(&StepKey([1; 32])).expect("a look").is_some());
    assert!(store.step(&StepKey([3; 32])).expect("a look").is_none());
    assert!(builder.step(&StepKey([4; 32])).expect("a look").is_some());

    let refused = step(&store, 5).expect_err("no room");
    assert!(matches!(refused, StoreError::NoRoom { .. }), "{refused}");
    assert!(refused.hint().is_some());
    assert!(blob_bytes(&store) <= 320 * KIB);
    drop(lease);
    step(&store, 5).expect("stored");
}

#[test]
fn processes_together_keep_the_limit() {
    let (_folder, store) = open(up_to(420));
    std::thread::scope(|scope| {
        for first in 0..4_u8 {
            let root = store.root().to_owned();
            scope.spawn(move || {
                let options =
                    StoreOptions { sync: false, room: up_to(420), ..StoreOptions::default() };
                let store = Store::open_with(&root, options).expect("a handle");
                for nth in 0..5 {
                    step(&store, first * 5 + nth + 1).expect("stored");
                    assert!(blob_bytes(&store) <= 420 * KIB);
                }
            });
        }
    });
    assert!(store.steps().expect("a list").len() >= 3);
}

#[test]
fn what_became_old_goes_once_in_a_while() {
    let keep = Some(Duration::from_secs(86_400));
    let (_folder, store) = open(RoomOptions { keep, ..RoomOptions::default() });
    step(&store, 1).expect("stored");
    let collected = store.collect().expect("collected").expect("it was time");
    assert_eq!(collected.steps.len(), 1);
    step(&store, 2).expect("stored");
    assert_eq!(store.collect().expect("collected"), None, "a moment ago");
}

#[test]
fn dockers_three_limits_come_to_one() {
    let (_folder, store) = open(RoomOptions::default());
    let mut blob = store.stage_blob().expect("staged");
    blob.write_all(b"x").expect("written");
    let keep = |max, free, reserved| store.keep_bytes(max, free, reserved).expect("a number");
    assert_eq!(keep(None, None, None), None);
    assert_eq!(keep(Some(7), None, None), Some(7));
    assert_eq!(keep(None, None, Some(5)), Some(5));
    assert_eq!(keep(Some(3), None, Some(5)), Some(5), "what is reserved stays in any case");
    assert_eq!(keep(None, Some(u64::MAX), None), Some(0), "it is never enough");
    assert_eq!(keep(None, Some(0), None), Some(0), "there is nothing");
}
