//! E: what results look like outside.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt, path::Path};

use image::{
    document::{ImageConfig, Index, Manifest},
    entry::{Entry, Kind},
    layer::{Limits, Mode, Record, TarReader},
};
use serde_json::Value;

use crate::kiln::*;

const TEXT: &str = "FROM scratch\nCOPY --chown=7:8 --chmod=0640 <<f /d/f\nx\nf\n";

/// Builds `dockerfile` with these outputs and options, and returns the standard output.
fn export(kiln: &Kiln, dockerfile: &str, args: &[&str]) -> Vec<u8> {
    fs::write(kiln.path("Dockerfile"), dockerfile).expect("written");
    let output = kiln.run(&[&["build", "-f", "Dockerfile", "context"], args].concat());
    assert!(output.status.success(), "{args:?}: {output:?}");
    output.stdout
}

/// The entries of an archive.
fn entries(tar: &[u8]) -> BTreeMap<String, Entry> {
    let mut reader = TarReader::with(tar, Mode::Archive, Limits::default());
    let mut found = BTreeMap::new();
    while let Some(record) = reader.next().expect("a tar") {
        if let Record::Entry(entry) = record {
            found.insert(String::from_utf8_lossy(&entry.path).into_owned(), entry);
        }
    }
    found
}

fn index_of(layout: &Path) -> Index {
    serde_json::from_slice(&fs::read(layout.join("index.json")).expect("an index"))
        .expect("an index")
}

#[test]
fn e1_forms_of_output() {
    let kiln = Kiln::new();
    export(&kiln, TEXT, &["-o", "folder"]);
    assert_eq!(fs::read_to_string(kiln.path("folder/d/f")).expect("a file"), "x\n");
    assert!(entries(&export(&kiln, TEXT, &["-o", "-"])).contains_key("d/f"));
    export(
        &kiln,
        TEXT,
        &["-o", "type=local,dest=a", "-o", "type=tar,dest=b", "-o", "type=oci,dest=c"],
    );
    assert!(kiln.path("a/d/f").exists() && kiln.path("b").exists() && kiln.path("c").exists());
    for wrong in ["type=none", "type=local", "dest=x", "type=local,dest=x,what=1"] {
        let output = kiln.run(&["build", "-f", "Dockerfile", "-o", wrong, "context"]);
        assert_eq!(output.status.code(), Some(2), "{wrong}");
    }
}

#[test]
fn e2_names_of_images() {
    let kiln = Kiln::new();
    export(
        &kiln,
        TEXT,
        &["-t", "one", "-t", "registry.example/two:3", "-o", "type=image,\"name=four:5,six\""],
    );
    let images = kiln.run(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    let images = String::from_utf8_lossy(&images.stdout).into_owned();
    for name in ["one:latest", "registry.example/two:3", "four:5", "six:latest"] {
        assert!(images.lines().any(|it| it == name), "{name}: {images}");
    }
}

#[test]
fn e3_media_types() {
    let kiln = Kiln::new();
    let types = |args: &str| {
        let _ = fs::remove_dir_all(kiln.path("l"));
        export(&kiln, TEXT, &["-o", &format!("type=oci,tar=false,dest=l{args}")]);
        let index = index_of(&kiln.path("l"));
        let manifest: Manifest = read_blob(&kiln.path("l"), &index.manifests[0].digest);
        [
            index.manifests[0].media_type.clone(),
            manifest.config.media_type,
            manifest.layers[0].media_type.clone(),
        ]
    };
    assert!(types("").iter().all(|it| it.starts_with("application/vnd.oci.image.")));
    let docker = types(",oci-mediatypes=false");
    assert!(docker.iter().all(|it| it.starts_with("application/vnd.docker.")), "{docker:?}");
}

#[test]
fn e4_compression() {
    let layer = |args: &str| {
        let kiln = Kiln::new();
        let output = format!("type=oci,tar=false,dest=l{args}");
        export(&kiln, TEXT, &["--build-arg", "SOURCE_DATE_EPOCH=1", "-o", &output]);
        let manifest: Manifest =
            read_blob(&kiln.path("l"), &index_of(&kiln.path("l")).manifests[0].digest);
        let config: ImageConfig = read_blob(&kiln.path("l"), &manifest.config.digest);
        let bytes =
            fs::read(blob_path(&kiln.path("l"), &manifest.layers[0].digest)).expect("a blob");
        (manifest.layers[0].media_type.clone(), bytes[..4].to_vec(), config.rootfs.diff_ids)
    };
    let (gzip, zstd, none) = (
        layer(""),
        layer(",compression=zstd,compression-level=9"),
        layer(",compression=uncompressed"),
    );
    assert!(gzip.0.ends_with("+gzip") && gzip.1.starts_with(&[0x1f, 0x8b]));
    assert!(zstd.0.ends_with("+zstd") && zstd.1 == [0x28, 0xb5, 0x2f, 0xfd]);
    assert!(none.0.ends_with(".tar"));
    assert!(gzip.2 == zstd.2 && zstd.2 == none.2, "the same layer");
    // A base keeps its own unless all is asked for.
    let (kiln, other) = (Kiln::new(), Kiln::new());
    let archive = other.path("gzip.tar");
    let output = format!("type=oci,name=gzip:latest,dest={}", archive.display());
    export(&other, TEXT, &["-o", &output]);
    assert!(kiln.run(&["load", "-i", &archive.to_string_lossy()]).status.success());
    let media_types = |args: &str| {
        let _ = fs::remove_dir_all(kiln.path("l"));
        let output = format!("type=oci,tar=false,dest=l,compression=zstd{args}");
        export(&kiln, "FROM gzip\nCOPY <<g /g\ng\n", &["-o", &output]);
        let layout = kiln.path("l");
        let manifest: Manifest = read_blob(&layout, &index_of(&layout).manifests[0].digest);
        let last = |it: &str| it.rsplit('.').next().unwrap_or_default().to_owned();
        manifest.layers.iter().map(|it| last(&it.media_type)).collect::<Vec<_>>()
    };
    assert_eq!(media_types(""), ["tar+gzip", "tar+zstd"]);
    assert_eq!(media_types(",force-compression=true"), ["tar+zstd", "tar+zstd"]);
}

#[test]
fn e5_archives_and_layouts() {
    let kiln = Kiln::new();
    export(
        &kiln,
        TEXT,
        &["-t", "a:1", "-o", "type=oci,dest=oci.tar", "-o", "type=docker,dest=docker.tar"],
    );
    let names = |file: &str| {
        entries(&fs::read(kiln.path(file)).expect("an archive")).into_keys().collect::<Vec<_>>()
    };
    let (oci, docker) = (names("oci.tar"), names("docker.tar"));
    for name in ["index.json", "oci-layout"] {
        assert!(oci.iter().any(|it| it == name) && docker.iter().any(|it| it == name), "{name}");
    }
    assert!(
        docker.iter().any(|it| it == "manifest.json")
            && !oci.iter().any(|it| it == "manifest.json")
    );
    for (tag, text) in
        [("a:1", TEXT.to_owned()), ("b:2", TEXT.replace('x', "y")), ("a:1", TEXT.replace('x', "z"))]
    {
        export(&kiln, &text, &["-o", &format!("type=oci,tar=false,dest=l,name={tag}")]);
    }
    let index = index_of(&kiln.path("l"));
    let mut found: Vec<_> = index
        .manifests
        .iter()
        .map(|it| {
            (
                it.annotations["io.containerd.image.name"].clone(),
                it.annotations["org.opencontainers.image.ref.name"].clone(),
            )
        })
        .collect();
    found.sort();
    let pair = |a: &str, b: &str| (format!("docker.io/library/{a}"), b.to_owned());
    assert_eq!(found, [pair("a:1", "1"), pair("b:2", "2")], "one entry for each tag");
}

#[test]
fn e6_files() {
    let kiln = Kiln::new();
    fs::create_dir(kiln.path("out")).expect("made");
    fs::write(kiln.path("out/old"), "old").expect("written");
    export(&kiln, TEXT, &["-o", "out"]);
    assert!(kiln.path("out/old").exists(), "what is there stays");
    let file = fs::metadata(kiln.path("out/d/f")).expect("a file");
    assert_eq!((file.uid(), file.mode() & 0o777), (rustix::process::getuid().as_raw(), 0o640));
    let platforms = "--platform=linux/amd64,linux/arm64";
    export(&kiln, TEXT, &[platforms, "-o", "split"]);
    assert!(
        kiln.path("split/linux_amd64/d/f").exists() && kiln.path("split/linux_arm64/d/f").exists()
    );
    export(&kiln, TEXT, &[platforms, "-o", "type=local,dest=merged,platform-split=false"]);
    assert!(kiln.path("merged/d/f").exists());
    export(&kiln, TEXT, &["-o", "type=local,dest=forced,platform-split=true"]);
    assert_eq!(fs::read_dir(kiln.path("forced")).expect("a folder").count(), 1);
}

#[test]
fn e7_a_tar_of_the_files() {
    let kiln = Kiln::new();
    let found = entries(&export(
        &kiln,
        "FROM box\nRUN ln /dir/old /dir/hard && mknod /dir/p p && chmod 4711 /dir/old\n",
        &["-o", "type=tar,dest=-"],
    ));
    assert_eq!((found["dir"].mode, found["dir"].uid, found["dir"].gid), (0o750, 5, 6));
    assert_eq!(found["link"].kind, Kind::Symlink { target: b"dir".to_vec() });
    assert!(
        ["dir/old", "dir/hard"].iter().any(|it| matches!(found[*it].kind, Kind::Hardlink { .. }))
    );
    assert_eq!(
        (&found["dir/p"].kind, found["dir/hard"].mode.max(found["dir/old"].mode)),
        (&Kind::Fifo, 0o4711)
    );
}

#[test]
fn e8_several_platforms() {
    let kiln = Kiln::new();
    let index = |args: &[&str]| {
        let _ = fs::remove_dir_all(kiln.path("l"));
        export(
            &kiln,
            "FROM scratch\nARG TARGETARCH\nCOPY <<f /f\n$TARGETARCH\nf\n",
            &[&["-o", "type=oci,tar=false,dest=l"], args].concat(),
        );
        let top = index_of(&kiln.path("l"));
        let inner = top.manifests[0]
            .media_type
            .contains("index")
            .then(|| read_blob::<Index>(&kiln.path("l"), &top.manifests[0].digest));
        inner.map(|it| {
            it.manifests
                .iter()
                .filter_map(|it| it.platform.as_ref().map(ToString::to_string))
                .collect::<Vec<_>>()
        })
    };
    assert_eq!(
        index(&["--platform", "linux/amd64,linux/arm64"]),
        Some(vec!["linux/amd64".to_owned(), "linux/arm64".to_owned()])
    );
    assert_eq!(index(&["--platform", "linux/amd64"]), None);
    assert!(
        index(&["--platform", "linux/arm64", "--build-arg", "BUILDKIT_MULTI_PLATFORM=1"]).is_some()
    );
}

#[test]
fn e9_annotations() {
    let kiln = Kiln::new();
    export(
        &kiln,
        TEXT,
        &[
            "--platform=linux/amd64,linux/arm64",
            "--annotation=a=all",
            "--annotation=manifest[linux/arm64]:b=one",
            "--annotation=index:c=index",
            "--annotation=manifest-descriptor:d=descriptor",
            "--annotation=index-descriptor:e=root",
            "-o",
            "type=oci,tar=false,dest=l",
        ],
    );
    let layout = kiln.path("l");
    let root = &index_of(&layout).manifests[0];
    assert_eq!(root.annotations.get("e").map(String::as_str), Some("root"));
    let index: Index = read_blob(&layout, &root.digest);
    assert_eq!(index.annotations["c"], "index");
    let manifests: Vec<Manifest> =
        index.manifests.iter().map(|it| read_blob(&layout, &it.digest)).collect();
    assert!(manifests.iter().all(|it| it.annotations["a"] == "all"));
    assert_eq!(manifests.iter().filter(|it| it.annotations.contains_key("b")).count(), 1);
    assert!(index.manifests.iter().all(|it| it.annotations["d"] == "descriptor"));
    let of_one = ["--annotation=manifest-descriptor:d=one", "-o", "type=oci,tar=false,dest=one"];
    export(&kiln, TEXT, &of_one);
    assert_eq!(index_of(&kiln.path("one")).manifests[0].annotations["d"], "one");
    for (wrong, problem) in [
        ("--annotation=index:c=x", "is for an index"),
        ("--annotation=index-descriptor:c=x", "is for an index"),
        ("--annotation=manifest[linux/s390x]:c=x", "is for `linux/s390x`, which was not built"),
        ("--annotation=manifset:c=x", "`manifset` is no type of annotation"),
    ] {
        let log = kiln.fails(TEXT, &[wrong, "-o", "type=oci,dest=x.tar"]);
        assert!(log.contains(problem), "{log}");
    }
}

/// The statement of the only attestation in a layout, its manifest, and the index of the image.
fn attestation(layout: &Path) -> (Value, Value, Index) {
    let index: Index = read_blob(layout, &index_of(layout).manifests[0].digest);
    let of_image = |it: &&image::document::Descriptor| {
        it.annotations
            .get("vnd.docker.reference.type")
            .is_some_and(|it| it == "attestation-manifest")
    };
    let described = index.manifests.iter().find(of_image).expect("an attestation");
    let manifest: Value = read_blob(layout, &described.digest);
    let statement = manifest["layers"][0]["digest"].as_str().expect("a digest");
    let statement = read_blob(layout, &statement.parse().expect("a digest"));
    (statement, manifest, index)
}

const ATTESTED: &str = "FROM box AS base\nARG V\n\
    RUN --mount=type=secret,id=tok --network=none echo $V > /v\n\
    FROM scratch\nCOPY --from=base /v /\n";

#[test]
fn e10_provenance_says_from_what_and_how() {
    let kiln = Kiln::new();
    let of = |asked: &str| {
        let _ = fs::remove_dir_all(kiln.path("l"));
        let args =
            ["--build-arg", "V=hidden", "-t", "team/app:1", "-o", "type=oci,tar=false,dest=l"];
        export(&kiln, ATTESTED, &[&args[..], &["--metadata-file", "m", asked]].concat());
        attestation(&kiln.path("l")).0
    };
    let max = of("--provenance");
    assert_eq!(max["predicateType"], "https://slsa.dev/provenance/v1");
    let definition = &max["predicate"]["buildDefinition"];
    let request = &definition["externalParameters"]["request"];
    assert_eq!(request["args"]["build-arg:V"], "hidden");
    assert_eq!(request["secrets"][0]["id"], "tok");
    assert_eq!(definition["externalParameters"]["configSource"]["path"], "Dockerfile");
    let material = &definition["resolvedDependencies"][0];
    assert!(
        material["uri"].as_str().expect("a URI").starts_with("pkg:docker/box@latest?platform=")
    );
    let steps = &definition["internalParameters"]["buildConfig"]["llbDefinition"];
    let run = &steps[1]["op"]["Op"]["exec"]["meta"]["args"];
    assert_eq!(run[2], "echo $V > /v");
    assert_eq!(steps[2]["inputs"], serde_json::json!(["step1:0"]));
    let metadata = &max["predicate"]["runDetails"]["metadata"];
    assert_eq!(metadata["buildkit_completeness"]["request"], true);
    let lines = &metadata["buildkit_metadata"]["source"]["locations"]["step1"]["locations"][0];
    assert_eq!(lines["ranges"][0]["start"]["line"], 3);
    let told: Value =
        serde_json::from_slice(&fs::read(kiln.path("m")).expect("a file")).expect("JSON");
    assert_eq!(told["buildx.build.provenance"], max["predicate"]);

    let min = of("--provenance=mode=min,builder-id=https://ci.example/7,reproducible=true");
    assert!(!min.to_string().contains("hidden") && !min.to_string().contains("tok"), "{min}");
    let details = &min["predicate"]["runDetails"];
    assert_eq!(details["builder"]["id"], "https://ci.example/7");
    assert_eq!(details["metadata"]["buildkit_completeness"]["request"], false);
    assert_eq!(details["metadata"]["buildkit_reproducible"], true);

    let old = of("--attest=type=provenance,version=v0.2");
    assert_eq!(old["predicateType"], "https://slsa.dev/provenance/v0.2");
    assert_eq!(old["predicate"]["buildType"], "https://mobyproject.org/buildkit@v1");
    assert_eq!(old["predicate"]["invocation"]["parameters"]["args"]["build-arg:V"], "hidden");
    assert_eq!(old["predicate"]["materials"][0], *material);
}

#[test]
fn e10_provenance_of_equal_builds_is_equal() {
    let layout = |kiln: &Kiln| {
        let args = [
            "--provenance",
            "--build-arg",
            "SOURCE_DATE_EPOCH=5",
            "-o",
            "type=oci,tar=false,dest=l",
        ];
        export(kiln, TEXT, &args);
        attestation(&kiln.path("l")).2
    };
    assert_eq!(layout(&Kiln::new()), layout(&Kiln::new()));
}

#[test]
fn e11_a_list_of_materials_is_refused_with_what_to_do() {
    let kiln = Kiln::new();
    for asked in ["--sbom", "--sbom=generator=x", "--attest=type=sbom"] {
        let said = kiln.fails(TEXT, &[asked]);
        assert!(said.contains("kiln runs no scanner"), "{said}");
    }
    kiln.build_with(TEXT, &["--sbom=false"]);
}

#[test]
fn e12_attestations_stand_in_the_index() {
    let kiln = Kiln::new();
    let args = ["--provenance", "-t", "team/app:1", "-t", "other"];
    export(
        &kiln,
        TEXT,
        &[&args[..], &["-o", "type=oci,tar=false,dest=l,oci-mediatypes=false"]].concat(),
    );
    let (statement, manifest, index) = attestation(&kiln.path("l"));
    let [image, attested] = &index.manifests[..] else { panic!("{index:?}") };
    assert_eq!(image.platform, Some(image::Platform::host()));
    assert_eq!(attested.platform, Some(image::Platform::new("unknown", "unknown")));
    assert_eq!(attested.annotations["vnd.docker.reference.digest"], image.digest.to_string());
    assert_eq!(manifest["artifactType"], "application/vnd.docker.attestation.manifest.v1+json");
    assert_eq!(manifest["subject"]["digest"], image.digest.to_string());
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.oci.empty.v1+json");
    let layer = &manifest["layers"][0];
    assert_eq!(layer["mediaType"], "application/vnd.in-toto+json");
    assert_eq!(layer["annotations"]["in-toto.io/predicate-type"], statement["predicateType"]);
    let names: Vec<_> =
        statement["subject"].as_array().expect("subjects").iter().map(|it| &it["name"]).collect();
    assert_eq!(names.len(), 2);
    assert!(names[0].as_str().expect("a name").starts_with("pkg:docker/team/app@1?platform="));
    assert_eq!(statement["subject"][0]["digest"]["sha256"], image.digest.hex());

    // As before there were artifacts: an image of no platform.
    export(&kiln, TEXT, &["--provenance", "-o", "type=oci,tar=false,dest=old,oci-artifact=false"]);
    let (_, manifest, _) = attestation(&kiln.path("old"));
    assert!(manifest.get("subject").is_none(), "{manifest}");
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.oci.image.config.v1+json");

    // The store keeps it, and what leaves the store has it.
    export(&kiln, TEXT, &[&args[..], &["-o", "type=image"]].concat());
    assert!(kiln.run(&["system", "prune", "-f"]).status.success());
    assert!(
        kiln.run(&["save", "--format", "oci", "-o", "saved.tar", "team/app:1"]).status.success()
    );
    let saved = entries(&fs::read(kiln.path("saved.tar")).expect("a file"));
    let n_blobs =
        saved.keys().filter(|it| it.starts_with("blobs/sha256/") && it.len() > 20).count();
    // Layer, config, manifest, statement, its empty config, its manifest, index.
    assert_eq!(n_blobs, 7, "{saved:?}");
    // Docker's table of contents names the image, not what is said of it.
    assert!(kiln.run(&["load", "-i", "saved.tar"]).status.success());
}

#[test]
fn e12_beside_files_it_is_a_file() {
    let kiln = Kiln::new();
    let read = |path: &str| -> Value {
        serde_json::from_slice(&fs::read(kiln.path(path)).expect("a file")).expect("JSON")
    };
    export(&kiln, TEXT, &["--provenance=filename=p.json", "-o", "one"]);
    let subject = &read("one/p.json")["subject"][0];
    assert_eq!(subject["name"], "d/f");
    assert_eq!(subject["digest"]["sha256"], image::Digest::of(b"x\n").hex());
    let two = ["--provenance", "--platform", "linux/amd64,linux/arm64"];
    export(&kiln, TEXT, &[&two[..], &["-o", "two"]].concat());
    assert_eq!(read("two/linux_arm64/provenance.json")["subject"][0]["name"], "d/f");
    export(&kiln, TEXT, &[&two[..], &["-o", "type=local,dest=flat,platform-split=false"]].concat());
    read("flat/provenance.linux_amd64.json");
    read("flat/provenance.linux_arm64.json");
    let tar = entries(&export(&kiln, TEXT, &["--provenance=mode=min", "-o", "-"]));
    assert!(tar.contains_key("provenance.json"));
    let tar = entries(&export(&kiln, TEXT, &["--provenance=inline-only=true", "-o", "-"]));
    assert!(!tar.contains_key("provenance.json"));
    let own = "FROM scratch\nCOPY <<provenance.json /\n{}\nprovenance.json\n";
    let said = kiln.fails(own, &["--provenance", "-o", "own"]);
    assert!(said.contains("the image has a file `provenance.json`"), "{said}");
}

#[test]
fn e13_the_source_date_epoch() {
    let kiln = Kiln::new();
    kiln.write("f", "x");
    let text = "FROM scratch\nWORKDIR /w\nCOPY f /f\nCOPY <<h /h\nh\n";
    let built = kiln.build_with(text, &["--build-arg", "SOURCE_DATE_EPOCH=1000000000"]);
    let created = "2001-09-09T01:46:40Z";
    assert_eq!(built.config.created.as_deref(), Some(created));
    assert!(built.config.history.iter().all(|it| it.created.as_deref() == Some(created)));
    assert_eq!(built.mtime("w").secs, 1_000_000_000);
    assert_eq!(built.mtime("h").secs, 1_000_000_000);
    assert!(built.mtime("f").secs > 1_000_000_000, "files of the context keep their times");
    fs::write(kiln.path("Dockerfile"), text).expect("written");
    let status = kiln
        .command(&["build", "-f", "Dockerfile", "-o", "local", "context"])
        .env("SOURCE_DATE_EPOCH", "1000000000")
        .output()
        .expect("kiln runs");
    assert!(status.status.success(), "{status:?}");
    let file = fs::metadata(kiln.path("local/f")).expect("a file");
    assert_eq!(file.mtime(), 1_000_000_000, "files that are written are clamped");
    let built = kiln.build(&format!("ARG SOURCE_DATE_EPOCH=1000000000\n{text}"));
    assert_eq!(built.config.created.as_deref(), Some(created));
    kiln.fails(text, &["--build-arg", "SOURCE_DATE_EPOCH=soon"]);
}

#[test]
fn e14_times_are_rewritten_on_request() {
    let kiln = Kiln::new();
    kiln.write("f", "x");
    fs::write(kiln.path("Dockerfile"), "FROM box\nCOPY f /f\nRUN echo x > /g\n").expect("written");
    let output = kiln.path("out");
    let spec = format!(
        "type=oci,tar=false,compression=uncompressed,rewrite-timestamp=true,dest={}",
        output.display()
    );
    let done = kiln.run(&[
        "build",
        "-f",
        "Dockerfile",
        "--build-arg",
        "SOURCE_DATE_EPOCH=1100000000",
        "-o",
        &spec,
        "context",
    ]);
    assert!(done.status.success(), "{done:?}");
    let built = Built::read(&output, String::new());
    assert_eq!((built.mtime("f").secs, built.mtime("g").secs), (1_100_000_000, 1_100_000_000));
    assert_eq!(built.mtime("dir").secs, 1_000_000_000, "the base is untouched");
}

#[test]
fn e15_metadata_and_ids() {
    let kiln = Kiln::new();
    export(
        &kiln,
        TEXT,
        &["-t", "a:1", "--iidfile", "iid", "--metadata-file", "meta", "-o", "type=image"],
    );
    let metadata: Value =
        serde_json::from_slice(&fs::read(kiln.path("meta")).expect("a file")).expect("JSON");
    for key in [
        "containerimage.digest",
        "containerimage.config.digest",
        "containerimage.descriptor",
        "image.name",
    ] {
        assert!(!metadata[key].is_null(), "{key}: {metadata}");
    }
    let id = fs::read_to_string(kiln.path("iid")).expect("a file");
    assert_eq!(metadata["containerimage.config.digest"], id.trim());
    let log = kiln.fails("FROM box\nRUN false\n", &["--iidfile", "iid"]);
    assert!(!kiln.path("iid").exists(), "{log}");
}

#[test]
fn e15_metadata_has_findings_if_asked() {
    let kiln = Kiln::new();
    kiln.write("Dockerfile", "from scratch\nCOPY Dockerfile /\n");
    for (value, is_there) in [("1", true), ("true", true), ("0", false)] {
        let args = ["build", "-q", "--metadata-file", "meta", "context"];
        let done = kiln.command(&args).env("BUILDX_METADATA_WARNINGS", value).output();
        assert!(done.expect("kiln runs").status.success());
        let metadata = fs::read(kiln.path("meta")).expect("a file");
        let metadata: Value = serde_json::from_slice(&metadata).expect("JSON");
        let warning = &metadata["buildx.build.warnings"][0];
        assert_eq!(warning.is_object(), is_there, "{value}: {metadata}");
        if is_there {
            // ConsistentInstructionCasing, in base64.
            let short = warning["short"].as_str().expect("a text");
            assert!(short.starts_with("Q29uc2lzdGVudEluc3RydWN0aW9uQ2FzaW5n"), "{short}");
            assert_eq!(warning["range"][0]["start"]["line"], 1);
            assert_eq!(warning["sourceInfo"]["filename"], "Dockerfile");
        }
    }
}

#[test]
fn e19_squash_is_refused_with_what_to_do() {
    let log = Kiln::new().fails(TEXT, &["--squash"]);
    assert!(log.contains("--squash") && log.contains("multi-stage"), "{log}");
}
