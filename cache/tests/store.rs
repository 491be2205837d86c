//! The store as its callers see it: what is put in comes out, also for the next process, and damage shows as absence.

mod entry;
mod step;

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use cache::{LayerRecord, StepKey, StepRecord, Store, StoreError};
use entry::entry;
use image::{DiffId, Digest, compress::Compression, entry::Kind, layer::IndexedTarWriter};
use step::step_record;

fn open() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(&folder.path().join("store")).expect("a new store");
    (folder, store)
}

/// A small layer: `a/`, `a/hello`, a link, and `gone` removed.
fn layer() -> (Vec<u8>, image::layer::LayerIndex) {
    let mut writer = IndexedTarWriter::new(Vec::new());
    writer.whiteout(b"gone").expect("a whiteout");
    writer.append(entry("a", Kind::Directory), &mut std::io::empty()).expect("a folder");
    writer.append(entry("a/hello", Kind::File { size: 5 }), &mut &b"hello"[..]).expect("a file");
    writer
        .append(
            entry("a/link", Kind::Symlink { target: b"/a/hello".to_vec() }),
            &mut std::io::empty(),
        )
        .expect("a link");
    writer
        .append(entry("b", Kind::Hardlink { target: b"a/hello".to_vec() }), &mut std::io::empty())
        .expect("a hard link");
    writer.finish().expect("the end")
}

fn read(mut reader: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).expect("readable");
    bytes
}

#[test]
fn blobs_come_back_and_wrong_ones_are_refused() {
    let (_folder, store) = open();
    let digest = store.put_blob(b"hello").expect("stored");
    assert_eq!(digest, Digest::of(b"hello"));
    assert!(store.has_blob(&digest).expect("a look"));
    assert_eq!(store.read_blob(&digest, 5).expect("read"), b"hello");
    assert!(matches!(store.read_blob(&digest, 4), Err(StoreError::TooLarge { .. })));
    assert_eq!(read(store.open_blob(&digest).expect("open")), b"hello");

    let mut staged = store.stage_blob().expect("staged");
    staged.write_all(b"other").expect("written");
    assert!(matches!(staged.commit(Some(&digest)), Err(StoreError::DigestMismatch { .. })));
    assert!(matches!(store.open_blob(&Digest::of(b"other")), Err(StoreError::BlobMissing { .. })));

    fs::write(store.blob_path(&digest), "hellO").expect("damaged");
    assert!(matches!(store.read_blob(&digest, 5), Err(StoreError::DigestMismatch { .. })));
}

#[test]
fn a_download_goes_on_where_it_was_cut_off() {
    let (_folder, store) = open();
    let digest = Digest::of(b"hello world");
    let mut staged = store.resume_blob(&digest).expect("started");
    staged.write_all(b"hello ").expect("written");
    drop(staged);
    let mut staged = store.resume_blob(&digest).expect("resumed");
    assert_eq!(staged.n_bytes(), 6);
    staged.write_all(b"world").expect("written");
    assert_eq!(staged.commit(Some(&digest)).expect("committed"), (digest, 11));
    assert_eq!(fs::read_dir(store.root().join("partial")).expect("a folder").count(), 0);

    let digest = Digest::of(b"x");
    let mut staged = store.resume_blob(&digest).expect("started");
    staged.write_all(b"rubbish").expect("written");
    staged.restart().expect("restarted");
    staged.write_all(b"x").expect("written");
    staged.commit(Some(&digest)).expect("committed");
}

#[test]
fn a_layer_is_born_compressed_and_gives_its_tar() {
    let (_folder, store) = open();
    let (tar, index) = layer();
    let mut staged = store.stage_layer(Compression::GZIP, 2).expect("staged");
    staged.write_all(&tar).expect("written");
    let record = staged.commit(&index).expect("stored");
    assert_eq!(record.blobs.len(), 1);
    assert!(!store.has_blob(&index.diff_id.0).expect("a look"), "no tar");
    assert_eq!(store.layer(&index.diff_id).expect("a look"), Some(record));
    assert_eq!(read(store.open_tar(&index.diff_id).expect("a tar")), tar);
    drop(store.stage_layer(Compression::GZIP, 2).expect("staged"));

    let (_folder, store) = open();
    let mut staged = store.stage_layer(Compression::Uncompressed, 2).expect("staged");
    staged.write_all(&tar).expect("written");
    staged.commit(&index).expect("stored");
    assert_eq!(fs::read(store.blob_path(&index.diff_id.0)).expect("a blob"), tar);
}

#[test]
fn a_layer_changes_its_face_and_keeps_its_bytes() {
    let (_folder, store) = open();
    let (tar, index) = layer();
    let mut staged = store.stage_blob().expect("staged");
    staged.write_all(&tar).expect("written");
    let record = store.put_tar(staged, &index).expect("stored");
    assert_eq!(store.layer(&index.diff_id).expect("a look"), Some(record));
    assert_eq!(*store.index(&index.diff_id).expect("an index"), index);
    assert_eq!(read(store.open_tar(&index.diff_id).expect("a tar")), tar);

    let change = index.changes.iter().position(|it| it.path() == b"a/hello").expect("a file");
    assert_eq!(
        read(store.open_content(&index, change).expect("a file")),
        b"hello",
        "out of the tar"
    );
    assert!(matches!(store.open_content(&index, 0), Err(StoreError::Entry { .. })));

    let tree = store.ensure_tree(&index.diff_id).expect("a tree");
    assert_eq!(fs::read(tree.join("a/hello")).expect("a file"), b"hello");
    assert_eq!(fs::read_link(tree.join("a/link")).expect("a link"), Path::new("/a/hello"));
    assert!(store.has_tree(&index.diff_id).expect("a look"));

    let change = index.changes.iter().position(|it| it.path() == b"a/hello").expect("a file");
    assert_eq!(read(store.open_content(&index, change).expect("a file")), b"hello");

    // Without its tar it is made again from the tree.
    fs::remove_file(store.blob_path(&index.diff_id.0)).expect("removed");
    assert!(store.layer(&index.diff_id).expect("a look").is_some());
    assert_eq!(read(store.open_tar(&index.diff_id).expect("a tar")), tar);
    let mut written = Vec::new();
    store.write_tar(&index.diff_id, &mut written).expect("a tar");
    assert_eq!(written, tar);

    // A changed tree is noticed.
    fs::write(tree.join("a/hello"), "hellO").expect("damaged");
    assert!(store.open_tar(&index.diff_id).expect("a tar").read_to_end(&mut Vec::new()).is_err());
    // And a tree that is gone is no layer any more.
    fs::remove_dir_all(&tree).expect("removed");
    assert_eq!(store.layer(&index.diff_id).expect("a look"), None);
    assert!(matches!(store.ensure_tree(&index.diff_id), Err(StoreError::LayerMissing { .. })));
}

#[test]
fn a_pulled_layer_is_stored_read_and_unpacked_in_one_pass() {
    let (_folder, store) = open();
    let (tar, index) = layer();
    let wrong = DiffId(Digest::of(b"wrong"));
    assert!(matches!(
        store.import_layer(&tar[..], None, Some(&wrong), true),
        Err(StoreError::DigestMismatch { .. })
    ));
    assert_eq!(store.layers().expect("a list"), []);
    let record = store.import_layer(&tar[..], None, Some(&index.diff_id), true).expect("imported");
    assert_eq!(record.tar_size, Some(tar.len() as u64));
    assert!(store.has_tree(&index.diff_id).expect("a look"));
    assert_eq!(*store.index(&index.diff_id).expect("an index"), index);
    assert_eq!(read(store.open_tar(&index.diff_id).expect("a tar")), tar);
}

#[test]
fn steps_are_remembered_while_their_layer_is_there() {
    let (_folder, store) = open();
    let (tar, index) = layer();
    let record = store.import_layer(&tar[..], None, None, false).expect("imported");
    let key = StepKey([7; 32]);
    assert_eq!(store.step(&key).expect("a look"), None);
    let step = step_record(key, Some(record.diff_id));
    store.put_step(&step).expect("stored");
    let found = store.step(&key).expect("a look").expect("a step");
    assert_eq!(StepRecord { last_used: 0, ..found }, step);
    assert_eq!(store.steps().expect("a list").len(), 1);

    fs::remove_file(store.blob_path(&index.diff_id.0)).expect("removed");
    assert_eq!(store.step(&key).expect("a look"), None);

    let path = store.root().join(format!("steps/07/{key}.json"));
    fs::write(&path, "").expect("what a power cut leaves");
    assert_eq!(store.step(&key).expect("a look"), None);
    assert_eq!(store.steps().expect("a list"), []);
    let options = cache::PruneOptions { steps: true, ..cache::PruneOptions::default() };
    store.prune(&options).expect("pruned");
    assert!(!path.exists());
}

#[test]
fn other_folders_and_other_formats_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("thesis.tex"), "").expect("a file");
    assert!(matches!(Store::open(folder.path()), Err(StoreError::NotAStore { .. })));
    let (_folder, store) = open();
    let root = store.root().to_owned();
    assert_eq!(fs::metadata(&root).expect("a root").permissions().mode() & 0o777, 0o700);
    Store::open(&root).expect("opened again");
    fs::write(root.join("version"), "kiln store 99\n").expect("written");
    let message = Store::open(&root).expect_err("refused").to_string();
    assert!(
        message.contains("kiln store 99") && message.contains(&root.display().to_string()),
        "{message}"
    );
}

#[test]
fn layers_merge_their_blobs() {
    let (_folder, store) = open();
    let diff_id = DiffId(Digest::of(b"tar"));
    let blob = |bytes: &[u8]| {
        let digest = store.put_blob(bytes).expect("stored");
        serde_json::from_value(serde_json::json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": bytes.len(),
        }))
        .expect("a descriptor")
    };
    store.put_layer(&LayerRecord::of_blob(diff_id, blob(b"one"))).expect("stored");
    store.put_layer(&LayerRecord::of_blob(diff_id, blob(b"two"))).expect("stored");
    store.put_layer(&LayerRecord::of_blob(diff_id, blob(b"one"))).expect("stored");
    assert_eq!(store.layer(&diff_id).expect("a look").expect("a layer").blobs.len(), 2);
}

/// What overlay leaves in its upper folder, made by hand: even plain users may make whiteouts.
#[test]
fn an_upper_folder_becomes_a_layer() {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    let (_folder, store) = open();
    let (tar, lower) = layer();
    store.import_layer(&tar[..], None, None, false).expect("imported");
    let view = image::view::View::new(vec![store.index(&lower.diff_id).expect("an index")]);

    let staged = store.stage_tree().expect("staged");
    let upper = staged.upper();
    fs::create_dir(upper.join("a")).expect("a folder");
    for whiteout in ["a/hello", "never-was"] {
        mknodat(CWD, upper.join(whiteout), FileType::CharacterDevice, Mode::empty(), makedev(0, 0))
            .expect("a whiteout");
    }
    fs::write(upper.join("new"), "new").expect("a file");
    fs::hard_link(upper.join("new"), upper.join("other")).expect("a hard link");

    let options = cache::PackOptions { latest_mtime: Some(1_000_000_000), ..Default::default() };
    let mut packed = Vec::new();
    let index = cache::pack_upper(&upper, &view, &options, &mut packed).expect("packed");
    let shown: Vec<_> =
        index.changes.iter().map(|it| String::from_utf8_lossy(it.path()).into_owned()).collect();
    assert_eq!(shown, ["a", "a/hello", "new", "other"]);
    let image::layer::Change::Entry { entry, .. } = &index.changes[2] else { panic!("{index:?}") };
    assert_eq!(entry.mtime.secs, 1_000_000_000);

    let record = staged.commit(&index).expect("committed");
    assert!(record.can_be_remade && record.blobs.is_empty());
    assert_eq!(read(store.open_tar(&index.diff_id).expect("a tar")), packed);
    store.flush().expect("flushed");
}
