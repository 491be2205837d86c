//! Documents as other builders write them, read and written again, and images whose parts contradict each other.

use image::{
    DiffId, Digest,
    canonical::to_canonical_json,
    document::{
        Descriptor, History, ImageConfig, Index, MAX_DOCUMENT, Manifest, RunConfig, media_type,
    },
    error::{DocumentError, ImageProblem},
    validate::validate,
};

const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn manifest_text(extra: &str) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"{}","digest":"{EMPTY}","size":0}},"layers":[]{extra}}}"#,
        media_type::OCI_MANIFEST,
        media_type::OCI_CONFIG,
    )
}

#[test]
fn documents_survive_with_all_that_is_unknown() {
    let config = r#"{"architecture":"amd64","config":{"User":"1","Env":["PATH=/bin","A=\u003cb\u003e"],"Cmd":["sh"],"Labels":{"a":"1","b":"2"},"X":{"y":[1]}},"created":"2026-01-01T00:00:00Z","history":[{"created_by":"RUN a \u0026\u0026 b"}],"os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]},"moby.buildkit.x":7}"#;
    let parsed = ImageConfig::parse(config.as_bytes()).expect("a good config");
    let written = to_canonical_json(&parsed).expect("JSON");
    assert_eq!(String::from_utf8_lossy(&written), config);
    assert_eq!(parsed.platform().to_string(), "linux/amd64");

    let text = manifest_text(r#","annotations":{"a":"b"},"subject":{"size":1}"#);
    let parsed =
        Manifest::parse(text.as_bytes(), media_type::OCI_MANIFEST).expect("a good manifest");
    assert_eq!(String::from_utf8_lossy(&to_canonical_json(&parsed).expect("JSON")), text);
}

#[test]
fn null_is_an_empty_list() {
    let config = r#"{"architecture":"amd64","os":"linux","config":null,"history":null,"rootfs":{"type":"layers","diff_ids":null}}"#;
    assert!(ImageConfig::parse(config.as_bytes()).is_ok_and(|it| it.rootfs.diff_ids.is_empty()));
}

#[test]
fn documents_of_two_kinds_are_refused() {
    let parse = |text: &str| Manifest::parse(text.as_bytes(), media_type::OCI_MANIFEST);
    assert!(parse(&manifest_text("")).is_ok());
    for extra in [r#","manifests":[]"#, r#","Manifests":null"#, r#","fsLayers":[]"#] {
        assert!(
            matches!(parse(&manifest_text(extra)), Err(DocumentError::Ambiguous { .. })),
            "{extra}"
        );
    }
    let index = |extra: &str| {
        let text = format!(r#"{{"schemaVersion":2,"manifests":[]{extra}}}"#);
        Index::parse(text.as_bytes(), media_type::OCI_INDEX)
    };
    assert!(index("").is_ok());
    for extra in [r#","layers":[]"#, r#","config":{}"#, r#","CONFIG":{}"#] {
        assert!(matches!(index(extra), Err(DocumentError::Ambiguous { .. })), "{extra}");
    }
}

#[test]
fn media_types_must_agree() {
    let text = manifest_text("");
    for media_type in [media_type::DOCKER_MANIFEST, media_type::OCI_INDEX, "text/html", ""] {
        let parsed = Manifest::parse(text.as_bytes(), media_type);
        assert!(matches!(parsed, Err(DocumentError::MediaType { .. })), "{media_type}");
    }
    let old = text.replace(r#""schemaVersion":2"#, r#""schemaVersion":1"#);
    let parsed = Manifest::parse(old.as_bytes(), media_type::OCI_MANIFEST);
    assert!(matches!(parsed, Err(DocumentError::SchemaVersion { found: 1, .. })));
    let parsed = Manifest::parse(&vec![b' '; MAX_DOCUMENT + 1], media_type::OCI_MANIFEST);
    assert!(matches!(parsed, Err(DocumentError::TooLarge { .. })));
    for bad in [
        "",
        "[]",
        "null",
        "{",
        r#"{"schemaVersion":2,"config":{"digest":"../x"}}"#,
        &"[".repeat(10_000),
    ] {
        assert!(Manifest::parse(bad.as_bytes(), media_type::OCI_MANIFEST).is_err(), "{bad}");
    }
}

#[test]
fn variables_keep_their_place() {
    let mut config =
        RunConfig { env: vec!["A=1".into(), "B".into(), "C=a=b".into()], ..RunConfig::default() };
    assert_eq!(
        (config.env_get("A"), config.env_get("B"), config.env_get("C")),
        (Some("1"), Some(""), Some("a=b"))
    );
    assert_eq!(config.env_get("a"), None);
    config.env_set("A", "2");
    config.env_set("D", "");
    assert_eq!(config.env, ["A=2", "B", "C=a=b", "D="]);
}

#[test]
fn contradictions_are_all_found() {
    let mut config =
        ImageConfig { os: "linux".into(), architecture: "amd64".into(), ..ImageConfig::default() };
    config.rootfs.diff_ids = vec![DiffId(Digest::of(b""))];
    config.history = vec![History::default(), History { empty_layer: true, ..History::default() }];
    let descriptor = |media_type: &str, bytes: &[u8]| Descriptor {
        media_type: media_type.to_owned(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        urls: Vec::new(),
        annotations: Default::default(),
        platform: None,
        other: Default::default(),
    };
    let bytes = to_canonical_json(&config).expect("JSON");
    let mut manifest = Manifest {
        schema_version: 2,
        media_type: media_type::OCI_MANIFEST.to_owned(),
        config: descriptor(media_type::OCI_CONFIG, &bytes),
        layers: vec![descriptor(media_type::OCI_LAYER_ZSTD, b"")],
        annotations: Default::default(),
        other: Default::default(),
    };
    assert_eq!(validate(&manifest, &config, &bytes), []);

    config.os.clear();
    config.history.clear();
    config.config.env = vec!["=x".to_owned()];
    manifest.layers.push(descriptor(media_type::DOCKER_LAYER_GZIP, b""));
    let problems = validate(&manifest, &config, b"{}");
    assert_eq!(problems.len(), 5, "{problems:?}");
    assert!(matches!(problems[0], ImageProblem::Config { .. }));
    assert!(problems.contains(&ImageProblem::LayerCount { n_layers: 2, n_diff_ids: 1 }));
}
