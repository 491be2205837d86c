//! Layouts and archives: what is written is read again, what is broken is refused.

mod store;

use std::{collections::BTreeMap, fs, io, path::Path};

use image::{
    Digest, ImageRef, Platform,
    document::{Index, Manifest, media_type},
    entry::{Entry, Kind, Time},
    layer::TarWriter,
};
use registry::{
    Error, Export, Format, Layout, Named, RawDocument, load, read_image, write_archive,
    write_layout,
};
use store::{MemoryStore, image_of, tar_entries};

fn name(text: &str) -> ImageRef {
    ImageRef::parse(text).expect("the name is valid")
}

fn named(store: &MemoryStore, content: &str, names: &[&str]) -> Named {
    Named {
        names: names.iter().map(|it| name(it)).collect(),
        export: image_of(store, &[content], "amd64"),
    }
}

fn archive(format: Format, images: &[Named], store: &MemoryStore) -> Vec<u8> {
    write_archive(Vec::new(), format, images, store).expect("the archive can be written")
}

#[test]
fn archives_are_read_as_they_were_written() {
    let store = MemoryStore::default();
    let images =
        [named(&store, "one", &["app:1", "quay.io/me/app:2"]), named(&store, "two", &["other"])];
    for format in [Format::Oci, Format::Docker] {
        let tar = archive(format, &images, &store);
        assert_eq!(tar, archive(format, &images, &store), "equal images give equal bytes");

        let copy = MemoryStore::default();
        let found = load(tar.as_slice(), "`x.tar`", &copy).expect("the archive is good");
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].names, [name("app:1"), name("quay.io/me/app:2")]);
        assert_eq!(found[1].names, [name("other:latest")]);
        let read = read_image(&copy, &found[0].root, &Platform::new("linux", "amd64"))
            .expect("it is there");
        assert_eq!(read.manifest, images[0].export.documents[0]);
        assert_eq!(read.config_bytes, images[0].export.configs[0]);
        for layer in &read.parsed.layers {
            assert_eq!(copy.get(&layer.digest), store.get(&layer.digest));
        }
    }
}

#[test]
fn docker_archives_have_the_files_that_docker_looks_for() {
    let store = MemoryStore::default();
    let image = named(&store, "one", &["app:1"]);
    let tar = archive(Format::Docker, std::slice::from_ref(&image), &store);
    let entries = tar_entries(&tar);
    let paths: Vec<_> = entries.iter().map(|(path, _)| path.as_str()).collect();
    let mut sorted = paths.clone();
    sorted.sort();
    assert_eq!(paths, sorted);
    let manifest: Manifest =
        serde_json::from_slice(&image.export.documents[0].bytes).expect("valid");
    let text = |path: &str| {
        let (_, bytes) = entries.iter().find(|(it, _)| it == path).expect("the file is there");
        String::from_utf8(bytes.clone()).expect("it is text")
    };
    assert_eq!(
        text("manifest.json"),
        format!(
            r#"[{{"Config":"blobs/sha256/{}","RepoTags":["app:1"],"Layers":["blobs/sha256/{}"]}}]"#,
            manifest.config.digest.hex(),
            manifest.layers[0].digest.hex()
        )
    );
    assert_eq!(text("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#);
    let index: Index = serde_json::from_str(&text("index.json")).expect("valid");
    let annotations = &index.manifests[0].annotations;
    assert_eq!(annotations["io.containerd.image.name"], "docker.io/library/app:1");
    assert_eq!(annotations["org.opencontainers.image.ref.name"], "1");
}

#[test]
fn layouts_keep_what_is_there_and_take_names_over() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let store = MemoryStore::default();
    let (one, two) = (named(&store, "one", &["app:1", "app:2"]), named(&store, "two", &["app:2"]));
    write_layout(folder.path(), std::slice::from_ref(&one), &store).expect("writable");
    write_layout(folder.path(), std::slice::from_ref(&two), &store).expect("writable");
    write_layout(folder.path(), std::slice::from_ref(&two), &store).expect("writable");

    let layout = Layout::open(folder.path()).expect("it is a layout");
    let images = layout.images();
    assert_eq!(images.len(), 2);
    assert_eq!(images[0].names, [name("app:1")]);
    assert_eq!(images[1].names, [name("app:2")]);
    let digest = |image: &Named| image.export.root().expect("it has one").digest;
    assert_eq!(layout.find(Some("1")).expect("there").digest, digest(&one));
    assert_eq!(layout.find(Some("2")).expect("there").digest, digest(&two));
    assert_eq!(layout.find(Some("docker.io/library/app:2")).expect("there").digest, digest(&two));
    assert_eq!(layout.find(Some(&digest(&one).to_string())).expect("there").digest, digest(&one));
    let error = layout.find(None).expect_err("none is tagged latest");
    assert!(error.is_not_found(), "{error}");

    let amd64 = Platform::new("linux", "amd64");
    let read = read_image(&layout, &images[1].root, &amd64).expect("it is whole");
    let blob = folder.path().join("blobs/sha256").join(read.parsed.layers[0].digest.hex());
    let content = fs::read(&blob).expect("it is there");
    fs::write(&blob, content.iter().map(|it| it ^ 1).collect::<Vec<_>>()).expect("writable");
    let mut open =
        registry::BlobSource::open(&layout, &read.parsed.layers[0]).expect("it can be opened");
    let error = io::copy(&mut open, &mut io::sink()).expect_err("the bytes are others");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(
        !fs::read_dir(folder.path())
            .expect("readable")
            .any(|it| { it.expect("readable").file_name().to_string_lossy().contains("tmp") })
    );
}

#[test]
fn indexes_are_resolved_by_platform() {
    let store = MemoryStore::default();
    let (amd64, arm64) = (image_of(&store, &["x"], "amd64"), image_of(&store, &["y"], "arm64"));
    let mut index = Index {
        schema_version: 2,
        media_type: media_type::OCI_INDEX.to_owned(),
        manifests: Vec::new(),
        annotations: BTreeMap::new(),
        other: Default::default(),
    };
    for (image, architecture) in [(&amd64, "amd64"), (&arm64, "arm64")] {
        let mut descriptor = image.root_descriptor().expect("it has a root");
        descriptor.platform = Some(Platform::new("linux", architecture));
        index.manifests.push(descriptor);
    }
    let index = RawDocument::new(media_type::OCI_INDEX, serde_json::to_vec(&index).expect("valid"));
    let export = Export {
        documents: [amd64.documents, arm64.documents.clone(), vec![index]].concat(),
        configs: [amd64.configs, arm64.configs].concat(),
        ..Export::default()
    };
    let tar = archive(Format::Docker, &[Named { names: vec![name("multi")], export }], &store);
    let copy = MemoryStore::default();
    let found = load(tar.as_slice(), "`x.tar`", &copy).expect("the archive is good");
    let read =
        read_image(&copy, &found[0].root, &Platform::new("linux", "arm64")).expect("it is there");
    assert_eq!(read.manifest, arm64.documents[0]);
    assert!(read.index.is_some());
    let error = read_image(&copy, &found[0].root, &Platform::new("linux", "s390x"))
        .expect_err("it is not there");
    assert_eq!(error.hint().as_deref(), Some("there is linux/amd64, linux/arm64"));
}

/// Makes an archive as Docker before 25 did, its second layer a link to another folder.
fn old_archive(config_layers: &[&[u8]], layer: &[u8], link: &str) -> Vec<u8> {
    let diff_ids: Vec<_> = config_layers.iter().map(|it| Digest::of(it).to_string()).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}
    })
    .to_string();
    let manifest =
        r#"[{"Config":"c.json","RepoTags":["old:1"],"Layers":["a/layer.tar","b/layer.tar"]}]"#;
    let mut tar = TarWriter::new_plain(Vec::new());
    let mut add = |path: &str, kind: Kind, mut content: &[u8]| {
        let entry = Entry {
            path: path.as_bytes().to_vec(),
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            xattrs: BTreeMap::new(),
        };
        tar.append(&entry, &mut content).expect("writing to memory");
    };
    let file = |content: &[u8]| Kind::File { size: content.len() as u64 };
    add("a", Kind::Directory, b"");
    add("a/VERSION", file(b"1.0"), b"1.0");
    add("a/json", file(b"{}"), b"{}");
    add("a/layer.tar", file(layer), layer);
    add("b/layer.tar", Kind::Symlink { target: link.as_bytes().to_vec() }, b"");
    add("c.json", file(config.as_bytes()), config.as_bytes());
    add("manifest.json", file(manifest.as_bytes()), manifest.as_bytes());
    add("repositories", file(b"{}"), b"{}");
    tar.finish().expect("writing to memory")
}

#[test]
fn old_docker_archives_are_read() {
    let store = MemoryStore::default();
    let layer = b"a layer".as_slice();
    let found =
        load(old_archive(&[layer, layer], layer, "../a/layer.tar").as_slice(), "`o.tar`", &store)
            .expect("the archive is good");
    assert_eq!(found[0].names, [name("old:1")]);
    let read =
        read_image(&store, &found[0].root, &Platform::new("linux", "amd64")).expect("it is whole");
    assert_eq!(read.parsed.layers.len(), 2);
    assert_eq!(read.parsed.layers[1].digest, Digest::of(layer));
    assert_eq!(read.parsed.layers[0].media_type, media_type::OCI_LAYER);

    let gzip = [&[0x1f, 0x8b, 8], layer].concat();
    let found =
        load(old_archive(&[layer, layer], &gzip, "../a/layer.tar").as_slice(), "`o.tar`", &store)
            .expect("the archive is good");
    let read =
        read_image(&store, &found[0].root, &Platform::new("linux", "amd64")).expect("it is whole");
    assert_eq!(read.parsed.layers[0].media_type, media_type::OCI_LAYER_GZIP);
}

#[test]
fn compressed_archives_are_read() {
    let store = MemoryStore::default();
    let tar = archive(Format::Docker, &[named(&store, "one", &["app:1"])], &store);
    let compressed = zstd::encode_all(tar.as_slice(), 1).expect("writing to memory");
    let found = load(compressed.as_slice(), "`x.tar.zst`", &MemoryStore::default())
        .expect("the archive is good");
    assert_eq!(found[0].names, [name("app:1")]);
}

#[test]
fn broken_archives_are_refused() {
    let layer = b"a layer".as_slice();
    let mut wrong_blob = archive(Format::Oci, &[named(&MemoryStore::default(), "x", &[])], &{
        let store = MemoryStore::default();
        named(&store, "x", &[]);
        store
    });
    let position =
        wrong_blob.windows(4).position(|it| it == b"\"os\"").expect("the config is in it");
    wrong_blob[position + 1] = b'O';
    let cases: [(&str, Vec<u8>, &str); 9] = [
        (
            "bad-archive",
            old_archive(&[layer, layer], b"BZh9 a layer", "../a/layer.tar"),
            "in a compression that",
        ),
        ("bad-archive", old_archive(&[layer, layer], layer, "../../etc/passwd"), "does not belong"),
        ("bad-archive", old_archive(&[layer, layer], layer, "/etc/passwd"), "does not belong"),
        ("bad-archive", old_archive(&[layer, layer], layer, "layer.tar"), "lacks `b/layer.tar`"),
        (
            "bad-document",
            old_archive(&[layer], layer, "../a/layer.tar"),
            "has 2 layers in its manifest and 1",
        ),
        (
            "digest-mismatch",
            old_archive(&[b"x", layer], layer, "../a/layer.tar"),
            "digest mismatch",
        ),
        ("local-io", wrong_blob, "cannot store `blobs/sha256/"),
        ("bad-archive", b"hello".to_vec(), "it is no tar"),
        ("bad-archive", vec![0; 1024], "is no image archive"),
    ];
    for (code, tar, text) in cases {
        let error = load(tar.as_slice(), "`x.tar`", &MemoryStore::default()).expect_err(text);
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
    let whole = old_archive(&[layer, layer], layer, "../a/layer.tar");
    for length in [1, 511, 513, 1600, whole.len() / 2] {
        let error =
            load(&whole[..length], "`x.tar`", &MemoryStore::default()).expect_err("it is cut off");
        assert!(
            matches!(error, Error::Tar { .. } | Error::Archive { .. } | Error::Local { .. }),
            "{length}: {error}"
        );
    }
}

#[test]
fn what_the_store_has_wrong_is_not_exported() {
    let store = MemoryStore::default();
    let image = named(&store, "one", &["app:1"]);
    let manifest: Manifest =
        serde_json::from_slice(&image.export.documents[0].bytes).expect("valid");
    store.replace(manifest.layers[0].digest, b"oen".to_vec());
    assert!(write_archive(io::sink(), Format::Oci, std::slice::from_ref(&image), &store).is_err());
    let folder = tempfile::tempdir().expect("a folder can be made");
    let error = write_layout(folder.path(), &[image], &store).expect_err("a blob is wrong");
    assert!(
        matches!(&error, Error::File { path, .. } if path.starts_with(folder.path())),
        "{error}"
    );
    assert!(Layout::open(Path::new(folder.path())).is_err(), "no index was written");
}
