//! `Store::check`: every file of a store is damaged in turn; it is found, or the store goes on as if it had never been there, and
//! after a repair the same work gives the same result.

mod entry;
mod step;

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use cache::{
    BuildStep, CacheMountRequest, CheckOptions, CheckReport, ImageRecord, JournalEntry, Outcome,
    PlatformImage, PruneOptions, Sharing, StepKey, Store, StoreError, StoreOptions,
};
use entry::entry;
use image::{
    DiffId, Digest, ImageId, ImageRef,
    document::{Descriptor, media_type},
    entry::Kind,
    layer::{IndexedTarWriter, LayerIndex},
};
use step::step_record;

const ONLY_LOOK: CheckOptions = CheckOptions { repair: false };
const REPAIR: CheckOptions = CheckOptions { repair: true };
const STEP: StepKey = StepKey([7; 32]);

/// Opens a store that need not survive a power cut: this test is about other things.
fn open(root: &Path) -> Result<Store, StoreError> {
    Store::open_with(root, StoreOptions { sync: false, ..StoreOptions::default() })
}

/// A layer of a folder, a file of a few blocks, a link and something removed.
fn layer(text: &str) -> (Vec<u8>, LayerIndex) {
    let content = text.repeat(300);
    let size = content.len() as u64;
    let mut writer = IndexedTarWriter::new(Vec::new());
    writer.whiteout(b"gone").expect("a whiteout");
    writer.append(entry("a", Kind::Directory), &mut std::io::empty()).expect("a folder");
    writer.append(entry("a/file", Kind::File { size }), &mut content.as_bytes()).expect("a file");
    let link = Kind::Symlink { target: b"/a/file".to_vec() };
    writer.append(entry("a/link", link), &mut std::io::empty()).expect("a link");
    writer.finish().expect("the end")
}

fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    serde_json::from_value(
        serde_json::json!({"mediaType": media_type, "digest": digest, "size": size}),
    )
    .expect("a descriptor")
}

/// What a build does: a layer that was pulled, one that was made, a step, an image of both with a name. Nothing that is known
/// is made again.
fn build(store: &Store) -> Result<(), StoreError> {
    let (base_tar, base) = layer("pulled");
    if store.layer(&base.diff_id)?.is_none() {
        let blob = descriptor(media_type::OCI_LAYER, base.diff_id.0, base_tar.len() as u64);
        store.import_layer(base_tar.as_slice(), Some(&blob), Some(&base.diff_id), false)?;
    }
    store.ensure_tree(&base.diff_id)?;
    let (tar, made) = layer("made here");
    let made = match store.step(&STEP)? {
        Some(step) => step.layer.expect("it has a layer"),
        None => {
            let mut staged = store.stage_blob()?;
            staged.write_all(&tar).expect("written");
            store.put_tar(staged, &made)?;
            store.put_step(&step_record(STEP, Some(made.diff_id)))?;
            made.diff_id
        }
    };
    let config = store.put_blob(b"{\"os\":\"linux\"}")?;
    let layers = [base.diff_id, made];
    let blobs: Vec<_> =
        layers.iter().map(|it| descriptor(media_type::OCI_LAYER, it.0, 0)).collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": descriptor(media_type::OCI_CONFIG, config, 14),
        "layers": blobs,
    })
    .to_string();
    let digest = store.put_blob(manifest.as_bytes())?;
    let target = descriptor(media_type::OCI_MANIFEST, digest, manifest.len() as u64);
    let platform = PlatformImage {
        platform: Default::default(),
        manifest: target.clone(),
        config: ImageId(config),
        layers: layers.to_vec(),
    };
    let record = ImageRecord { target, platforms: vec![platform], created: 1 };
    store.tag(&ImageRef::parse("app").expect("a name"), &record)?;
    let request = CacheMountRequest {
        id: "apt",
        namespace: "",
        sharing: Sharing::Shared,
        mode: 0o755,
        uid: fs::metadata("/proc/self").expect("proc").uid(),
        gid: fs::metadata("/proc/self").expect("proc").gid(),
        seed: None,
    };
    store.cache_mount(request)?;
    store.save_stat_cache(Path::new("/context"), b"digests of files")?;
    let entry = JournalEntry { line: [3; 32], build: "1".to_owned(), print: 5, is_again: false };
    store.put_journal(&entry, b"a build")?;
    store.put_step_files(&STEP, b"a list of files")?;
    let step = BuildStep { name: "a".to_owned(), outcome: "done".to_owned(), log: "a".to_owned() };
    store.save_build_steps("1", &[step])?;
    store.flush()
}

/// Everything that the image is: its id, and the bytes of its layers.
fn image(store: &Store) -> Result<Vec<u8>, StoreError> {
    let image = store.resolve("app")?.expect("the name is there");
    let mut bytes = image.record.id().to_string().into_bytes();
    for platform in &image.record.platforms {
        for diff_id in &platform.layers {
            let io = |source| StoreError::Io { action: "read", path: PathBuf::new(), source };
            store.open_tar(diff_id)?.read_to_end(&mut bytes).map_err(io)?;
        }
    }
    Ok(bytes)
}

/// All files of the store that a damaged disk could hit.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let entry = entry.expect("an entry");
            let path = entry.path().strip_prefix(root).expect("below").to_owned();
            let top = path.iter().next().and_then(|it| it.to_str()).unwrap_or_default().to_owned();
            // Locks and leases are empty or belong to processes; what is in a cache mount is nobody's business.
            if matches!(top.as_str(), "locks" | "leases" | "tmp" | "gc.lock")
                || path.extension().is_some_and(|it| it == "lock")
            {
                continue;
            }
            let kind = entry.file_type().expect("a kind");
            if kind.is_dir() {
                pending.push(entry.path());
            } else if kind.is_file() {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Harm {
    Flip(usize),
    Truncate,
    Empty,
    Delete,
}

fn harm(path: &Path, harm: Harm) -> bool {
    let mut bytes = fs::read(path).expect("readable");
    match harm {
        Harm::Flip(nth) => {
            let at = bytes.len() * nth / 4;
            match bytes.get_mut(at) {
                Some(byte) => *byte ^= 1,
                None => return false,
            }
        }
        Harm::Truncate if bytes.len() > 1 => bytes.truncate(bytes.len() / 2),
        Harm::Empty if !bytes.is_empty() => bytes.clear(),
        Harm::Delete => {
            fs::remove_file(path).expect("removed");
            return true;
        }
        _ => return false,
    }
    // In place, as a disk would do it.
    fs::write(path, bytes).expect("written");
    true
}

fn names(report: &CheckReport) -> Vec<String> {
    let problems = report.problems.iter().map(|it| it.path.display().to_string());
    problems.chain(report.leftovers.iter().map(|it| it.display().to_string())).collect()
}

#[test]
fn whatever_is_damaged_is_found_or_does_not_matter() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sound = folder.path().join("sound");
    let store = open(&sound).expect("a new store");
    build(&store).expect("built");
    let expected = image(&store).expect("an image");
    let report = store.check(ONLY_LOOK).expect("checked");
    assert!(report.is_sound() && report.leftovers.is_empty(), "{report:?}");
    assert_eq!((report.n_images, report.n_steps, report.n_layers, report.n_trees), (1, 1, 2, 1));
    drop(store);

    let all = files(&sound);
    assert!(all.len() > 15, "{all:?}");
    let mut n_found = 0;
    for file in &all {
        let harms = [Harm::Truncate, Harm::Empty, Harm::Delete];
        for what in (1..4).map(Harm::Flip).chain(harms) {
            let root = folder.path().join("damaged");
            let copied = Command::new("cp").arg("-a").arg(&sound).arg(&root).status();
            assert!(copied.expect("cp runs").success());
            if !harm(&root.join(file), what) {
                fs::remove_dir_all(&root).expect("removed");
                continue;
            }
            let context = format!("{} {what:?}", file.display());
            let is_format = file == Path::new("version");
            if is_format {
                let refused = open(&root);
                let is_refused = matches!(
                    refused,
                    Err(StoreError::UnknownFormat { .. } | StoreError::NotAStore { .. })
                );
                assert!(is_refused, "{context}");
                assert!(Store::repair_format(&root).expect("put right"), "{context}");
            }
            let store = open(&root).expect("opened");

            // Without a look: a build fails, or what it makes is what it always was.
            let copy = folder.path().join("unlooked");
            let copied = Command::new("cp").arg("-a").arg(&root).arg(&copy).status();
            assert!(copied.expect("cp runs").success());
            let unlooked = open(&copy).expect("opened");
            if build(&unlooked).is_ok()
                && let Ok(bytes) = image(&unlooked)
            {
                assert!(bytes == expected, "{context}: another image");
            }
            drop(unlooked);
            fs::remove_dir_all(&copy).expect("removed");

            let report = store.check(ONLY_LOOK).expect("checked");
            let is_found = names(&report).iter().any(|it| Path::new(it) == file)
                || report.problems.iter().any(|it| file.starts_with(&it.path))
                || (what == Harm::Delete && !report.is_sound());
            // What is not there may never have been there; a note of what is on the disk matters after the next boot.
            let may_be_missing = what == Harm::Delete || file.starts_with("flushed");
            // The copy is looked at when it is needed.
            let is_copy = file == Path::new("images.copy.json");
            assert!(
                is_found || may_be_missing || is_copy || is_format,
                "{context}: not found: {report:?}"
            );
            n_found += usize::from(is_found);
            for problem in &report.problems {
                assert_eq!(problem.outcome, Outcome::Found);
                assert!(!problem.reason.is_empty() && !problem.reason.ends_with('.'));
            }

            let repaired = store.check(REPAIR).expect("repaired");
            assert!(repaired.is_sound(), "{context}: {repaired:?}");
            let again = store.check(ONLY_LOOK).expect("checked again");
            assert!(again.problems.is_empty(), "{context}: {again:?}");
            build(&store).unwrap_or_else(|err| panic!("{context}: {err}"));
            assert!(image(&store).expect("an image") == expected, "{context}: another image");
            drop(store);
            fs::remove_dir_all(&root).expect("removed");
        }
    }
    assert!(n_found > 50, "{n_found}");
}

#[test]
fn it_says_who_needs_what_is_damaged() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = open(&folder.path().join("store")).expect("a new store");
    build(&store).expect("built");
    let (_, made) = layer("made here");
    fs::write(store.blob_path(&made.diff_id.0), "something else").expect("damaged");
    let report = store.check(ONLY_LOOK).expect("checked");
    let problem = &report.problems[0];
    assert_eq!(problem.kind.code(), "blob");
    assert_eq!(problem.path, Path::new("oci/blobs/sha256").join(made.diff_id.0.hex()));
    assert_eq!(
        problem.used_by,
        ["image `docker.io/library/app:latest`".to_owned(), "step `RUN step 7`".to_owned()]
    );
}

#[test]
fn what_a_running_process_holds_stays() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = open(&folder.path().join("store")).expect("a new store");
    build(&store).expect("built");
    let (_, made) = layer("made here");
    let builder = open(store.root()).expect("another handle");
    let lease = builder.lease().expect("a lease");
    assert!(builder.step(&STEP).expect("a look").is_some());
    assert!(builder.has_blob(&made.diff_id.0).expect("a look"));
    let path = store.blob_path(&made.diff_id.0);
    let n_bytes = fs::metadata(&path).expect("there").len();
    fs::write(&path, vec![0; usize::try_from(n_bytes).expect("small")]).expect("damaged");

    let report = store.check(REPAIR).expect("checked");
    assert!(!report.is_sound());
    assert_eq!(report.problems[0].outcome, Outcome::InUse);
    assert!(path.exists());
    drop(lease);
    let report = store.check(REPAIR).expect("checked");
    assert!(report.is_sound() && !report.problems.is_empty());
    assert!(!path.exists());
    build(&store).expect("built again");
    assert!(store.check(ONLY_LOOK).expect("checked").problems.is_empty());
}

#[test]
fn what_is_fine_is_not_touched() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = open(&folder.path().join("store")).expect("a new store");
    build(&store).expect("built");
    // Of a base image only the documents may be here: its layers are fetched when they are needed.
    let (tar, base) = layer("pulled");
    let compressed = Digest::of(b"compressed");
    let config = store.put_blob(b"{}").expect("stored");
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": descriptor(media_type::OCI_CONFIG, config, 2),
        "layers": [descriptor(media_type::OCI_LAYER_GZIP, compressed, 10)],
    })
    .to_string();
    let digest = store.put_blob(manifest.as_bytes()).expect("stored");
    let target = descriptor(media_type::OCI_MANIFEST, digest, manifest.len() as u64);
    let platform = PlatformImage {
        platform: Default::default(),
        manifest: target.clone(),
        config: ImageId(config),
        layers: vec![DiffId(Digest::of(b"not here"))],
    };
    let record = ImageRecord { target, platforms: vec![platform], created: 1 };
    store.tag(&ImageRef::parse("base").expect("a name"), &record).expect("tagged");
    // What overlay copied up and nobody changed is in the tree of a RUN, and not in its layer.
    let staged = store.stage_tree().expect("staged");
    let (_, run) = layer("of a run");
    let again = store.stage_tree().expect("staged");
    drop(again);
    fs::create_dir(staged.upper().join("a")).expect("made");
    fs::write(staged.upper().join("copied-up"), "unchanged").expect("made");
    drop((staged, run));

    let before = files(store.root());
    let report = store.check(REPAIR).expect("checked");
    assert!(report.problems.is_empty(), "{report:?}");
    assert_eq!(files(store.root()), before);
    assert!(store.resolve("base").expect("a look").is_some());

    // Emptied, there is nothing left to be wrong.
    assert_eq!(tar.len() as u64, base.tar_size);
    store.prune(&PruneOptions::everything()).expect("pruned");
    let report = store.check(ONLY_LOOK).expect("checked");
    assert!(report.is_sound() && report.leftovers.is_empty(), "{report:?}");
    assert_eq!((report.n_images, report.n_steps, report.n_layers, report.n_blobs), (0, 0, 0, 0));
}

#[test]
fn a_tree_is_compared_with_its_layer() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = open(&folder.path().join("store")).expect("a new store");
    build(&store).expect("built");
    let (_, base) = layer("pulled");
    let tree = store.tree_path(&base.diff_id);
    let ways: [&dyn Fn(); 5] = [
        &|| fs::write(tree.join("a/file"), "short").expect("damaged"),
        &|| fs::remove_file(tree.join("a/link")).expect("damaged"),
        &|| fs::remove_file(tree.join("gone")).expect("damaged"),
        &|| fs::write(tree.join("a/extra"), "new").expect("damaged"),
        &|| fs::remove_dir_all(&tree).expect("damaged"),
    ];
    for (nth, damage) in ways.iter().enumerate() {
        damage();
        let report = store.check(REPAIR).expect("checked");
        assert!(report.is_sound() && !report.problems.is_empty(), "{nth}");
        assert_eq!(report.problems[0].kind.code(), "tree", "{nth}");
        build(&store).expect("built again");
        assert!(store.check(ONLY_LOOK).expect("checked").problems.is_empty(), "{nth}");
    }
}
