//! Names, leases and the collector; cache mounts and logs; what happens to the work of those who die.

mod step;

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    time::Duration,
};

use cache::{
    CacheMountRequest, ImageRecord, LayerRecord, PlatformImage, PruneOptions, Sharing, StepKey,
    Store, StoreError,
};
use image::{
    DiffId, Digest, ImageId, ImageRef,
    document::{Descriptor, media_type},
};
use step::step_record;

fn open() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(&folder.path().join("store")).expect("a new store");
    (folder, store)
}

fn descriptor(media_type: &str, digest: Digest, size: usize) -> Descriptor {
    serde_json::from_value(
        serde_json::json!({"mediaType": media_type, "digest": digest, "size": size}),
    )
    .expect("a descriptor")
}

/// Stores bytes as if they were the tar of a layer.
fn layer(store: &Store, bytes: &[u8]) -> LayerRecord {
    let digest = store.put_blob(bytes).expect("stored");
    let record = LayerRecord::of_blob(
        DiffId(digest),
        descriptor(media_type::OCI_LAYER, digest, bytes.len()),
    );
    store.put_layer(&record).expect("stored");
    record
}

/// Stores an image of one layer, without giving it a name.
fn image(store: &Store, layer: &LayerRecord) -> ImageRecord {
    let config =
        store.put_blob(format!("{{\"layer\":\"{}\"}}", layer.diff_id).as_bytes()).expect("stored");
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": descriptor(media_type::OCI_CONFIG, config, 1),
        "layers": layer.blobs,
    });
    let manifest = manifest.to_string();
    let digest = store.put_blob(manifest.as_bytes()).expect("stored");
    let target = descriptor(media_type::OCI_MANIFEST, digest, manifest.len());
    let platform = PlatformImage {
        platform: Default::default(),
        manifest: target.clone(),
        config: ImageId(config),
        layers: vec![layer.diff_id],
    };
    ImageRecord { target, platforms: vec![platform], created: 1 }
}

fn step(store: &Store, number: u8, layer: &LayerRecord) -> StepKey {
    let key = StepKey([number; 32]);
    store.put_step(&step_record(key, Some(layer.diff_id))).expect("stored");
    key
}

fn name(text: &str) -> ImageRef {
    ImageRef::parse(text).expect("a name")
}

fn index_names(store: &Store) -> Vec<String> {
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(store.root().join("oci/index.json")).expect("an index"))
            .expect("JSON");
    let name = |it: &serde_json::Value| {
        it["annotations"]["org.opencontainers.image.ref.name"].as_str().map(str::to_owned)
    };
    index["manifests"].as_array().expect("a list").iter().filter_map(name).collect()
}

#[test]
fn images_have_names_and_are_found() {
    let (_folder, store) = open();
    let (one, two) = (image(&store, &layer(&store, b"one")), image(&store, &layer(&store, b"two")));
    store.tag(&name("app"), &one).expect("tagged");
    store.tag(&name("example.com/app:v1"), &one).expect("tagged");
    store.tag(&name("app:latest"), &two).expect("tagged anew");

    let found = |text: &str| store.resolve(text).expect("a look").map(|it| it.record);
    assert_eq!(found("app").as_ref(), Some(&two));
    assert_eq!(found("docker.io/library/app:latest").as_ref(), Some(&two));
    assert_eq!(found("example.com/app:v1").as_ref(), Some(&one));
    assert_eq!(found("app:v1"), None);
    assert_eq!(found(&one.id().to_string()).as_ref(), Some(&one));
    assert_eq!(found(&one.id().short()).as_ref(), Some(&one));
    assert_eq!(found(&format!("example.com/app@{}", one.target.digest)).as_ref(), Some(&one));
    assert!(matches!(store.resolve(""), Ok(None)));
    assert_eq!(store.images().expect("a list").len(), 2);
    assert_eq!(index_names(&store).len(), 2);

    // One whose blobs are not all here is not in the layout.
    fs::remove_file(store.blob_path(&Digest::of(b"one"))).expect("removed");
    store.refresh_layout().expect("written");
    assert_eq!(index_names(&store), ["docker.io/library/app:latest"]);

    let gone = store.untag(&name("app")).expect("untagged").expect("it was there");
    assert_eq!(gone.record, two);
    assert_eq!(found("app"), None);
    assert_eq!(found(&two.id().to_string()).as_ref(), Some(&two), "it stays without a name");
    assert!(store.remove_image(&two.target.digest).expect("removed"));
    assert_eq!(found(&two.id().to_string()), None);

    fs::write(store.root().join("images.json"), "{").expect("damaged");
    assert!(matches!(store.images(), Err(StoreError::Damaged { .. })));
}

#[test]
fn the_collector_takes_what_nobody_needs() {
    let (_folder, store) = open();
    let (named, dangling) = (layer(&store, b"named"), layer(&store, b"dangling"));
    let (cached, held) = (layer(&store, b"cached"), layer(&store, b"held"));
    store.tag(&name("app"), &image(&store, &named)).expect("tagged");
    store.put_image(&[], &image(&store, &dangling)).expect("stored");
    let in_image = step(&store, 1, &named);
    let only_cached = step(&store, 2, &cached);
    let in_use = step(&store, 3, &held);

    let builder = Store::open(store.root()).expect("another handle");
    let lease = builder.lease().expect("a lease");
    assert!(builder.step(&in_use).expect("a look").is_some());
    let new = layer(&builder, b"made while the collector runs");

    let report = store
        .prune(&PruneOptions { dangling_images: true, steps: true, ..Default::default() })
        .expect("pruned");
    assert_eq!(report.images.len(), 1);
    assert_eq!(report.steps, [only_cached]);
    let is_there = |it: &LayerRecord| store.layer(&it.diff_id).expect("a look").is_some();
    assert!(is_there(&named) && is_there(&held) && is_there(&new));
    assert!(!is_there(&dangling) && !is_there(&cached));
    assert!(store.step(&in_image).expect("a look").is_some());
    assert!(report.n_bytes > 0);

    let named_image = store.resolve("app").expect("a look").expect("it is there");
    let of_containers = [named_image.record.platforms[0].config].into();
    let usage = store.disk_usage(&of_containers).expect("a sum");
    assert_eq!((usage.images.n_active, usage.images.n_reclaimable), (1, 0));
    let usage = store.disk_usage(&Default::default()).expect("a sum");
    assert_eq!((usage.images.n_total, usage.images.n_active, usage.images.n_bytes), (1, 0, 5));
    assert_eq!((usage.build_cache.n_total, usage.build_cache.n_active), (2, 1));

    drop(lease);
    store.prune(&PruneOptions::everything()).expect("pruned");
    assert!(!is_there(&named) && !is_there(&held) && !is_there(&new));
    assert_eq!(fs::read_dir(store.root().join("oci/blobs/sha256")).expect("a folder").count(), 0);
    assert_eq!(store.disk_usage(&Default::default()).expect("a sum"), Default::default());
}

#[test]
fn the_collector_keeps_what_is_young_or_fits() {
    let (_folder, store) = open();
    let (one, two) = (layer(&store, &[1; 1000]), layer(&store, &[2; 1000]));
    let (old, young) = (step(&store, 1, &one), step(&store, 2, &two));
    let path = store.root().join(format!("steps/01/{old}.json"));
    let an_hour_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    fs::File::open(&path).expect("a record").set_modified(an_hour_ago).expect("made older");

    let until =
        PruneOptions { steps: true, until: Some(Duration::from_secs(7200)), ..Default::default() };
    assert_eq!(store.prune(&until).expect("pruned").steps, []);
    let keep = PruneOptions { steps: true, keep_bytes: Some(1500), ..Default::default() };
    assert_eq!(store.prune(&keep).expect("pruned").steps, [old]);
    assert!(store.step(&young).expect("a look").is_some());
    assert_eq!(store.cache_entries().expect("a list").len(), 1);
}

#[test]
fn a_tree_stays_where_its_blob_may_be_another_layer() {
    let (_folder, store) = open();
    let index =
        image::layer::IndexedTarWriter::new(std::io::sink()).finish().expect("an empty layer").1;
    store.stage_tree().expect("staged").commit(&index).expect("committed");
    // So an image says that was pulled and not looked into.
    let digest = store.put_blob(b"something else").expect("stored");
    let blob = descriptor(media_type::OCI_LAYER_GZIP, digest, 14);
    store.put_layer(&LayerRecord::of_blob(index.diff_id, blob)).expect("stored");
    store.prune(&PruneOptions { trees: true, ..PruneOptions::default() }).expect("pruned");
    assert!(store.has_tree(&index.diff_id).expect("a look"));
}

#[test]
fn a_store_can_be_emptied() {
    let (_folder, store) = open();
    store.tag(&name("app"), &image(&store, &layer(&store, b"one"))).expect("tagged");
    let other = Store::open(store.root()).expect("another handle");
    let lease = other.lease().expect("a lease");
    assert!(matches!(store.reset(), Err(StoreError::InUse { .. })));
    drop(lease);
    store.reset().expect("emptied");
    assert_eq!(store.images().expect("a list"), []);
    assert_eq!(store.layers().expect("a list"), []);
    layer(&store, b"and used again");
}

#[test]
fn cache_mounts_are_shared_as_asked_for() {
    let (_folder, store) = open();
    let me = fs::metadata(store.root()).expect("a root");
    let (uid, gid) = (me.uid(), me.gid());
    let take = |id: &str, namespace: &str, sharing| {
        let request =
            CacheMountRequest { id, namespace, sharing, mode: 0o1750, uid, gid, seed: None };
        store.cache_mount(request).expect("a cache mount")
    };
    let first = take("/root/.cache", "", Sharing::Shared);
    assert_eq!(fs::metadata(first.path()).expect("a folder").permissions().mode() & 0o7777, 0o1750);
    let second = take("/root/.cache", "", Sharing::Shared);
    assert_eq!(first.path(), second.path());
    assert_ne!(first.path(), take("/root/.cache", "other", Sharing::Shared).path());
    let private = take("/root/.cache", "", Sharing::Private);
    assert_ne!(first.path(), private.path());
    assert_eq!(
        store
            .prune(&PruneOptions { cache_mounts: true, ..Default::default() })
            .expect("pruned")
            .cache_mounts
            .len(),
        1
    );
    drop((first, second, private));

    let locked = take("apt", "", Sharing::Locked);
    let path = locked.path().to_owned();
    fs::write(path.join("file"), "x").expect("written");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| take("apt", "", Sharing::Locked));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!waiting.is_finished());
        drop(locked);
        assert!(waiting.join().expect("no panic").path().join("file").exists());
    });

    let mut seed = |path: &std::path::Path| fs::write(path.join("seeded"), "x");
    let request = CacheMountRequest {
        id: "s",
        namespace: "",
        sharing: Sharing::Shared,
        mode: 0o755,
        uid,
        gid,
        seed: Some(&mut seed),
    };
    assert!(store.cache_mount(request).expect("a cache mount").path().join("seeded").exists());
    assert!(store.cache_mounts().expect("a list").iter().any(|it| it.id == "apt"));
    store.prune(&PruneOptions { cache_mounts: true, ..Default::default() }).expect("pruned");
    assert_eq!(store.cache_mounts().expect("a list"), []);
    assert!(!take("apt", "", Sharing::Locked).path().join("file").exists());
}

#[test]
fn logs_are_kept_for_the_last_builds() {
    let (_folder, store) = open();
    for build in ["b1", "b2", "b3"] {
        for step in ["10", "9"] {
            writeln!(store.new_log(build, step).expect("a log"), "{build} {step}")
                .expect("written");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let logs = store.build_logs().expect("a list");
    assert_eq!(logs.iter().map(|it| it.build.as_str()).collect::<Vec<_>>(), ["b3", "b2", "b1"]);
    assert_eq!(logs[0].files, ["9", "10"]);
    let mut text = String::new();
    store
        .open_log("b2", "9")
        .expect("a look")
        .expect("a log")
        .read_to_string(&mut text)
        .expect("read");
    assert_eq!(text, "b2 9\n");
    store.keep_logs(1).expect("removed");
    assert!(store.open_log("b2", "9").expect("a look").is_none());
    for bad in ["", "..", ".x", "a/b", "a\0"] {
        assert!(matches!(store.new_log(bad, "1"), Err(StoreError::BadName { .. })), "{bad:?}");
    }
    assert_eq!(store.load_stat_cache("/a".as_ref()).expect("a look"), None);
    store.save_stat_cache("/a".as_ref(), b"x").expect("saved");
    assert_eq!(store.load_stat_cache("/a".as_ref()).expect("a look").as_deref(), Some(&b"x"[..]));
}

#[test]
fn what_the_dead_leave_behind_goes() {
    let (_folder, store) = open();
    let living = store.stage_tree().expect("staged");
    let tmp = store.root().join("tmp");
    fs::create_dir_all(tmp.join("dead/0/upper")).expect("a folder");
    fs::write(tmp.join("dead.lock"), "").expect("a lock file");
    fs::create_dir_all(tmp.join("older")).expect("a folder");
    fs::write(store.root().join("leases/dead"), format!("blob {}\n", "0".repeat(64)))
        .expect("a lease");
    let (path, of_dead) =
        (fs::canonicalize(living.upper()).expect("there"), tmp.join("dead/0/upper"));
    let of_dead = fs::canonicalize(of_dead).expect("there");
    assert!(!store.is_abandoned(&path) && !store.is_abandoned(store.root()));
    let other = Store::open(store.root()).expect("opened");
    assert!(other.had_leftovers() && !store.had_leftovers());
    assert!(store.is_abandoned(&of_dead) && !store.is_abandoned(&path));
    assert!(!Store::open(store.root()).expect("opened").had_leftovers());
    assert!(
        !tmp.join("dead").exists()
            && !tmp.join("dead.lock").exists()
            && !tmp.join("older").exists()
    );
    assert!(!store.root().join("leases/dead").exists());
    assert!(living.upper().exists());
    let path = living.upper();
    drop(living);
    assert!(!path.exists());
}

#[test]
fn locks_let_one_in_at_a_time() {
    let (_folder, store) = open();
    let counter = std::sync::Mutex::new((0, 0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let _lock = store.step_lock(&StepKey([1; 32])).expect("a lock");
                    let mut inside = counter.try_lock().expect("nobody else is inside");
                    inside.0 += 1;
                }
            });
        }
    });
    assert_eq!(counter.into_inner().expect("no panic").0, 400);
    assert_eq!(fs::read_dir(store.root().join("locks")).expect("a folder").count(), 0);
    let lock = store.lock("a name/with ../ anything").expect("a lock");
    assert!(store.try_lock("a name/with ../ anything").expect("a look").is_none());
    drop(lock);
    assert!(store.try_lock("a name/with ../ anything").expect("a look").is_some());
}

#[test]
fn after_a_boot_only_flushed_trees_count() {
    let (_folder, store) = open();
    let staged = store.stage_tree().expect("staged");
    let index =
        image::layer::IndexedTarWriter::new(std::io::sink()).finish().expect("an empty layer").1;
    staged.commit(&index).expect("committed");
    assert!(store.has_tree(&index.diff_id).expect("a look"));
    let mark = store.root().join(format!("layers/{}.tree", index.diff_id.0.hex()));
    let text = fs::read_to_string(&mark).expect("a mark");
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .expect("an id")
        .trim()
        .replace('-', "");
    // Without the seal, which another boot would have made for itself.
    let line = text.lines().next().expect("a line");
    fs::write(&mark, line.replace(&boot, "0000")).expect("written");
    assert!(!store.has_tree(&index.diff_id).expect("a look"));
    store.flush().expect("flushed");
    let flushed = store.root().join("flushed");
    let list = fs::read_to_string(&flushed).expect("a list").replace(&boot, "0000");
    assert!(!store.has_tree(&index.diff_id).expect("a look"));
    fs::write(&flushed, list.trim().split(' ').next().expect("a batch")).expect("written");
    assert!(store.has_tree(&index.diff_id).expect("a look"));
}

#[test]
fn many_at_once_make_one() {
    let (_folder, store) = open();
    let root = store.root().to_owned();
    // Until all others have the layer, nobody else keeps it.
    let _lease = store.lease().expect("a lease");
    let record =
        layer(&store, &image::layer::IndexedTarWriter::new(Vec::new()).finish().expect("a tar").0);
    std::thread::scope(|scope| {
        for n in 0..8_u8 {
            let (root, record) = (&root, &record);
            scope.spawn(move || {
                let store = Store::open(root).expect("opened");
                let _lease = store.lease().expect("a lease");
                for i in 0..20_u8 {
                    store.ensure_tree(&record.diff_id).expect("a tree");
                    store.put_blob(&[i]).expect("a blob");
                    store.tag(&name(&format!("app:{n}")), &image(&store, record)).expect("tagged");
                    step(&store, i, record);
                    assert!(store.step(&StepKey([i; 32])).expect("a look").is_some());
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..20 {
                let options = PruneOptions {
                    steps: true,
                    all_steps: true,
                    dangling_images: true,
                    trees: true,
                    ..Default::default()
                };
                store.prune(&options).expect("pruned");
            }
        });
    });
    assert_eq!(store.images().expect("a list").iter().map(|it| it.names.len()).sum::<usize>(), 8);
}
