//! What a client makes of what registries answer when asked for an image.

mod fake;
mod store;

use std::time::{Duration, Instant};

use fake::{Fake, Reply, client, client_with, config};
use image::{
    Digest, ImageRef, Platform,
    document::{Descriptor, Index, Manifest, media_type},
};
use registry::{Credentials, Error, Export, RegistryConfig};
use store::{MemoryStore, describe, image_of};

fn name(fake: &Fake, rest: &str) -> ImageRef {
    ImageRef::parse(&format!("{}/{rest}", fake.host())).expect("the name is valid")
}

fn amd64() -> Platform {
    Platform::new("linux", "amd64")
}

/// Answers for a whole image at `/v2/app/`, under the tag `1`.
fn serve(image: &Export, layers: &MemoryStore) -> impl Fn(&str) -> Option<Reply> + Clone + use<> {
    let mut answers = Vec::new();
    let root = image.root().expect("it has one").clone();
    let documents = image.documents.iter().map(|it| (it.digest.to_string(), it.clone()));
    for (tag, document) in documents.chain([("1".to_owned(), root)]) {
        let reply = Reply::new(200, &document.bytes)
            .header("Content-Type", &document.media_type)
            .header("Docker-Content-Digest", document.digest);
        answers.push((format!("/v2/app/manifests/{tag}"), reply));
    }
    for blob in image.blobs().expect("the documents are good") {
        let config = image.configs.iter().find(|it| Digest::of(it) == blob.digest).cloned();
        let bytes = config.or_else(|| layers.get(&blob.digest)).expect("it is somewhere");
        answers.push((format!("/v2/app/blobs/{}", blob.digest), Reply::new(200, bytes)));
    }
    move |line| {
        let (_, path) = line.split_once(' ')?;
        answers.iter().find(|(it, _)| it == path).map(|(_, reply)| reply.clone())
    }
}

async fn read_blob(
    client: &registry::Client,
    image: &ImageRef,
    blob: &Descriptor,
) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    client.blob(image, blob, &mut out, &|_| {}).await.map(|()| out)
}

#[tokio::test]
async fn images_are_pulled_by_tag_and_digest() {
    let store = MemoryStore::default();
    let image = image_of(&store, &["layer"], "arm64"); // Whatever its platform is, as it is no index.
    let script = serve(&image, &store);
    let fake = Fake::start(move |request, _| script(&request.line));
    let client = client(&[&fake]);
    let digest = image.documents[0].digest;
    for rest in ["app:1".to_owned(), format!("app@{digest}"), format!("app:other@{digest}")] {
        let name = name(&fake, &rest);
        let pulled = client.pull_image(&name, &amd64()).await.expect("the image is there");
        assert_eq!(pulled.manifest, image.documents[0]);
        assert_eq!(pulled.config_bytes, image.configs[0]);
        assert_eq!(pulled.source, fake.host());
        assert!(pulled.index.is_none());
        assert_eq!(client.resolve(&name).await.expect("it is there").digest, digest);
        let seen = std::sync::Mutex::new(0);
        let mut layer = Vec::new();
        client
            .blob(&name, &pulled.parsed.layers[0], &mut layer, &|n| {
                *seen.lock().expect("unpoisoned") = n
            })
            .await
            .expect("the layer is there");
        assert_eq!((layer.as_slice(), *seen.lock().expect("unpoisoned")), (&b"layer"[..], 5));
    }
}

#[tokio::test]
async fn indexes_give_the_image_of_the_platform() {
    let store = MemoryStore::default();
    let (amd, arm) = (image_of(&store, &["x"], "amd64"), image_of(&store, &["y"], "arm64"));
    let mut manifests = Vec::new();
    for (image, architecture) in [(&arm, "arm64"), (&amd, "amd64"), (&arm, "unknown")] {
        let os = if architecture == "unknown" { "unknown" } else { "linux" };
        let platform = Some(Platform::new(os, architecture));
        manifests.push(Descriptor { platform, ..image.root_descriptor().expect("it has one") });
    }
    let (media_type, annotations) = (media_type::DOCKER_INDEX.to_owned(), Default::default());
    let index =
        Index { schema_version: 2, media_type, manifests, annotations, other: Default::default() };
    let bytes = serde_json::to_vec(&index).expect("valid");
    let mut all = amd.clone();
    all.documents.extend(arm.documents);
    all.configs.extend(arm.configs);
    all.documents.push(registry::RawDocument::new(media_type::DOCKER_INDEX, bytes));
    let script = serve(&all, &store);
    let fake = Fake::start(move |request, _| script(&request.line));
    let client = client(&[&fake]);

    let pulled = client.pull_image(&name(&fake, "app:1"), &amd64()).await.expect("it is there");
    assert_eq!(pulled.manifest, amd.documents[0]);
    assert_eq!(pulled.index.as_ref(), all.documents.last());
    let error = client.pull_image(&name(&fake, "app:1"), &Platform::new("linux", "s390x")).await;
    let error = error.expect_err("there is none");
    let image = format!("{}/app:1", fake.host());
    assert_eq!(
        error.to_string(),
        format!("no match for platform `linux/s390x` in manifest of {image}: not found")
    );
    assert_eq!(error.hint().as_deref(), Some("there is linux/amd64, linux/arm64"));
}

#[tokio::test]
async fn what_is_not_there_is_named_with_all_who_were_asked() {
    let unknown = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
    let mirror = Fake::start(|_, _| Some(Reply::new(404, "")));
    let registry = Fake::start_at("127.0.0.2", move |_, _| Some(Reply::new(404, unknown)));
    let mut config = config(&[&mirror, &registry]);
    if let Some(table) = config.registries.get_mut(&registry.host()) {
        table.mirrors = vec![format!("{}/some/cache/", mirror.host()), "127.0.0.1:1".to_owned()];
    }
    let client = client_with(config, Credentials::none());
    let error = client.manifest(&name(&registry, "nope")).await.expect_err("it is not there");
    assert!(error.is_not_found());
    assert_eq!(error.to_string(), format!("{}/nope:latest: not found", registry.host()));
    assert_eq!(
        error.hint(),
        Some(format!(
            "the registry says: manifest unknown; asked {}/some/cache (not found), 127.0.0.1:1 (unreachable), {} \
             (manifest unknown)",
            mirror.host(),
            registry.host()
        ))
    );
    let ns = registry.host().replace(':', "%3A");
    assert_eq!(mirror.lines(), [format!("GET /v2/some/cache/nope/manifests/latest?ns={ns}")]);
}

#[tokio::test]
async fn mirrors_are_asked_first_and_the_registry_last() {
    let store = MemoryStore::default();
    let image = image_of(&store, &["layer"], "amd64");
    let script = serve(&image, &store);
    let broken = Fake::start(|_, _| Some(Reply::new(404, "")));
    let registry = Fake::start_at("127.0.0.2", move |request, _| script(&request.line));
    let mut config = config(&[&broken, &registry]);
    if let Some(table) = config.registries.get_mut(&registry.host()) {
        table.mirrors = vec!["127.0.0.1:1".to_owned(), broken.host()];
    }
    let client = client_with(config, Credentials::none());
    let pulled = client.pull_image(&name(&registry, "app:1"), &amd64()).await.expect("it is there");
    assert_eq!(pulled.source, registry.host());
    assert_eq!(broken.lines().len(), 2, "{:?}", broken.lines());
}

#[tokio::test]
async fn unreachable_registries_are_named() {
    let client = client_with(Default::default(), Credentials::none());
    let error = client
        .manifest(&ImageRef::parse("127.0.0.1:1/x").expect("valid"))
        .await
        .expect_err("nobody is there");
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert_eq!(error.to_string(), "cannot reach registry `127.0.0.1:1`");
    assert!(error.hint().is_some_and(|it| it.contains("mirrors")));
}

#[tokio::test]
async fn loopback_registries_are_asked_which_protocol_they_speak() {
    let fake = Fake::start(|request, _| match request.line.as_str() {
        "GET /v2/" => Some(Reply::new(200, "{}")),
        "GET /v2/x/tags/list" => Some(Reply::new(200, r#"{"name":"x","tags":["b","a"]}"#)),
        _ => None,
    });
    let client = client_with(Default::default(), Credentials::none());
    assert_eq!(client.tags(&name(&fake, "x")).await.expect("it answers"), ["b", "a"]);
    client.ping(&fake.host()).await.expect("it answers");
    let http = RegistryConfig { http: Some(false), ..RegistryConfig::default() };
    let config = registry::Config { registries: [(fake.host(), http)].into() };
    let error = client_with(config, Credentials::none())
        .ping(&fake.host())
        .await
        .expect_err("it speaks no TLS");
    assert_eq!(error.code(), "plain-http", "{error:?}");
    assert!(error.hint().is_some_and(|it| it.contains("http = true")));
}

#[tokio::test]
async fn documents_that_lie_are_refused() {
    let manifest = |bytes: &str| bytes.to_owned();
    let config = r#"{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}"#;
    let oci = media_type::OCI_MANIFEST;
    let other = Digest::of(b"other");
    let cases = [
        (
            "both a manifest and an index",
            oci,
            manifest(&format!(
                r#"{{"schemaVersion":2,"config":{config},"layers":[],"manifests":[]}}"#
            )),
            None,
        ),
        (
            "came as",
            oci,
            manifest(&format!(
                r#"{{"schemaVersion":2,"mediaType":"{}","config":{config}}}"#,
                media_type::DOCKER_MANIFEST
            )),
            None,
        ),
        (
            "not supported",
            "application/x",
            manifest(&format!(r#"{{"schemaVersion":2,"config":{config}}}"#)),
            None,
        ),
        (
            "old schema 1",
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            manifest(r#"{"schemaVersion":1,"fsLayers":[]}"#),
            None,
        ),
        (
            "not what its media type",
            media_type::OCI_INDEX,
            manifest(&format!(r#"{{"schemaVersion":2,"config":{config}}}"#)),
            None,
        ),
        ("is not valid", oci, manifest("<html>"), None),
        ("digest mismatch", oci, manifest("{}"), Some(other.to_string())),
        ("that is none", oci, manifest("{}"), Some("sha256:../../x".to_owned())),
        ("larger than", oci, " ".repeat(5 << 20), None),
    ];
    for (text, content_type, body, digest) in cases {
        let fake = Fake::start(move |_, _| {
            let reply = Reply::new(200, &body).header("Content-Type", content_type);
            Some(match &digest {
                Some(digest) => reply.header("Docker-Content-Digest", digest),
                None => reply,
            })
        });
        let error = client(&[&fake]).manifest(&name(&fake, "x")).await.expect_err(text);
        assert!(error.to_string().contains(text), "{error}");
    }
    let fake = Fake::start(|_, _| {
        Some(Reply::new(200, "{}").header("Content-Type", media_type::OCI_MANIFEST))
    });
    let by_digest = name(&fake, &format!("x@{other}"));
    let error = client(&[&fake]).manifest(&by_digest).await.expect_err("it is another");
    assert!(
        matches!(error, Error::DigestMismatch { expected, .. } if expected == other),
        "{error}"
    );
}

#[tokio::test]
async fn a_list_of_tags_that_leads_in_a_circle_is_cut_off() {
    let page = format!("{{\"tags\":[\"a\"]}}{}", " ".repeat(3 << 20));
    let fake = Fake::start(move |request, _| {
        let next = if request.line.ends_with("?last=a") { "b" } else { "a" };
        let link = format!("</v2/x/tags/list?last={next}>; rel=\"next\"");
        Some(Reply::new(200, page.as_bytes()).header("Link", link))
    });
    let error = client(&[&fake]).tags(&name(&fake, "x")).await.expect_err("it has no end");
    assert!(matches!(error, Error::TooLarge { limit, .. } if limit == 64 << 20), "{error}");
}

#[tokio::test]
async fn endless_answers_are_cut_off() {
    let fake = Fake::start(|request, _| {
        let status = if request.line.contains("/tags/") { 404 } else { 200 };
        Some(Reply::new(status, vec![b' '; 1 << 16]).endless())
    });
    let client = client(&[&fake]);
    let error = client.manifest(&name(&fake, "x")).await.expect_err("it is too large");
    assert!(matches!(error, Error::TooLarge { limit, .. } if limit == 4 << 20), "{error}");
    let error = client.tags(&name(&fake, "x")).await.expect_err("it is too large");
    assert!(matches!(error, Error::TooLarge { limit, .. } if limit == 1 << 20), "{error}");
    let blob = describe(media_type::OCI_LAYER, b"layer");
    let error = read_blob(&client, &name(&fake, "x"), &blob).await.expect_err("it is too large");
    assert!(matches!(error, Error::SizeMismatch { expected: 5, .. }), "{error}");
}

#[tokio::test]
async fn head_is_replaced_where_it_does_not_work() {
    for head in [Reply::new(405, ""), Reply::new(200, "x")] {
        let store = MemoryStore::default();
        let image = image_of(&store, &["layer"], "amd64");
        let script = serve(&image, &store);
        let fake = Fake::start(move |request, _| match request.line.starts_with("HEAD ") {
            true => Some(head.clone()),
            false => script(&request.line),
        });
        let found = client(&[&fake]).resolve(&name(&fake, "app:1")).await.expect("it is there");
        assert_eq!(found, image.root_descriptor().expect("it has one"));
    }
}

/// Serves one blob with `script` and reads it.
async fn blob_from(
    content: &'static [u8],
    script: impl Fn(&str, usize) -> Option<Reply> + Send + Sync + 'static,
) -> (Result<Vec<u8>, Error>, Vec<String>) {
    // Only the range tells one request from the next.
    let fake = Fake::start(move |request, n_before| script(request.header("range"), n_before));
    let client = client(&[&fake]);
    let result =
        read_blob(&client, &name(&fake, "app"), &describe(media_type::OCI_LAYER, content)).await;
    (result, fake.requests().iter().map(|it| it.header("range").to_owned()).collect())
}

#[tokio::test]
async fn blobs_that_break_off_are_resumed() {
    const CONTENT: &[u8] = b"0123456789";
    let range = |start: usize| {
        Reply::new(206, &CONTENT[start..]).header("Content-Range", format!("bytes {start}-9/10"))
    };
    let (result, ranges) = blob_from(CONTENT, move |asked, _| match asked {
        "" => Some(Reply::new(200, CONTENT).cut(1)),
        "bytes=1-" => Some(range(1).cut(4)),
        "bytes=5-" => Some(range(5)),
        _ => None,
    })
    .await;
    assert_eq!(result.expect("it is whole"), CONTENT);
    assert_eq!(ranges, ["", "bytes=1-", "bytes=5-"]);

    let (result, _) =
        blob_from(CONTENT, |_, n| Some(Reply::new(200, CONTENT).cut(if n == 0 { 7 } else { 10 })))
            .await;
    assert_eq!(result.expect("ranges may be ignored"), CONTENT);

    let stalled = Duration::from_secs(2);
    let (result, ranges) = blob_from(CONTENT, move |asked, _| match asked {
        "" => Some(Reply::new(200, CONTENT).cut(3).stall(stalled)),
        "bytes=3-" => Some(range(3)),
        _ => None,
    })
    .await;
    assert_eq!(result.expect("it is whole"), CONTENT);
    assert_eq!(ranges.len(), 2);
}

#[tokio::test]
async fn blobs_that_are_wrong_are_refused() {
    const CONTENT: &[u8] = b"0123456789";
    let (result, _) = blob_from(CONTENT, |_, _| Some(Reply::new(200, b"0123456780"))).await;
    assert!(matches!(result, Err(Error::DigestMismatch { .. })), "{result:?}");
    let (result, ranges) = blob_from(CONTENT, |_, _| Some(Reply::new(200, b"01234567890"))).await;
    assert!(
        matches!(result, Err(Error::SizeMismatch { expected: 10, found: 11, .. })),
        "{result:?}"
    );
    assert_eq!(ranges.len(), 1);
    let (result, ranges) = blob_from(CONTENT, |_, _| Some(Reply::new(200, CONTENT).cut(0))).await;
    assert!(matches!(result, Err(Error::Interrupted { .. })), "{result:?}");
    assert_eq!(ranges.len(), 4);
    for bad in ["bytes 1-9/10", "bytes 4-9/11", "bytes 4-8/10", "", "bytes */10"] {
        let (result, _) = blob_from(CONTENT, move |asked, _| match asked {
            "" => Some(Reply::new(200, CONTENT).cut(4)),
            _ => Some(Reply::new(206, &CONTENT[4..]).header("Content-Range", bad)),
        })
        .await;
        assert!(matches!(result, Err(Error::Protocol { .. })), "{bad}: {result:?}");
    }
    let (result, _) = blob_from(b"", |_, _| Some(Reply::new(200, ""))).await;
    assert_eq!(result.expect("an empty blob is one"), b"");
}

#[tokio::test]
async fn failures_that_may_pass_are_tried_again() {
    const CONTENT: &[u8] = b"0123456789";
    let (result, ranges) = blob_from(CONTENT, |_, n| {
        Some(if n < 2 { Reply::new(502, "") } else { Reply::new(200, CONTENT) })
    })
    .await;
    assert_eq!(result.expect("the third time works"), CONTENT);
    assert_eq!(ranges.len(), 3);

    let (result, ranges) = blob_from(CONTENT, |_, _| Some(Reply::new(503, "busy"))).await;
    let error = result.expect_err("it never works");
    assert!(error.to_string().ends_with("503 Service Unavailable: busy"), "{error}");
    assert_eq!(ranges.len(), 4);

    let start = Instant::now();
    let (result, _) = blob_from(CONTENT, |_, n| {
        Some(if n == 0 {
            Reply::new(429, "").header("Retry-After", 1)
        } else {
            Reply::new(200, CONTENT)
        })
    })
    .await;
    assert_eq!(result.expect("the second time works"), CONTENT);
    assert!(start.elapsed() >= Duration::from_secs(1));

    let (result, ranges) = blob_from(CONTENT, |_, _| {
        Some(
            Reply::new(429, r#"{"errors":[{"message":"slow down"}]}"#).header("Retry-After", 86400),
        )
    })
    .await;
    let error = result.expect_err("nobody waits that long");
    assert!(error.to_string().contains("slow down"), "{error}");
    assert_eq!(ranges.len(), 1);
}

#[tokio::test]
async fn layers_and_diff_ids_must_go_together() {
    let store = MemoryStore::default();
    let mut image = image_of(&store, &["a", "b"], "amd64");
    let mut manifest: Manifest = serde_json::from_slice(&image.documents[0].bytes).expect("valid");
    manifest.layers.pop();
    let bytes = serde_json::to_vec(&manifest).expect("valid");
    image.documents = vec![registry::RawDocument::new(media_type::OCI_MANIFEST, bytes)];
    let script = serve(&image, &store);
    let fake = Fake::start(move |request, _| script(&request.line));
    let error = client(&[&fake])
        .pull_image(&name(&fake, "app:1"), &amd64())
        .await
        .expect_err("one is missing");
    assert!(
        error.to_string().contains("has 1 layers in its manifest and 2 in its config"),
        "{error}"
    );
}

#[test]
fn futures_can_be_spawned() {
    fn is_send<T: Send>(_: T) {}
    let client = client_with(Default::default(), Credentials::none());
    let image = ImageRef::parse("x").expect("valid");
    let blob = describe(media_type::OCI_LAYER, b"x");
    let mut out = Vec::new();
    let store = MemoryStore::default();
    is_send(client.pull_image(&image, &amd64()));
    is_send(client.resolve(&image));
    is_send(client.blob(&image, &blob, &mut out, &|_| {}));
    is_send(client.push(&image, &Export::default(), &Default::default(), &store, &|_, _| {}));
    is_send(client.login("x", "y", "z"));
    is_send(client.tags(&image));
}
