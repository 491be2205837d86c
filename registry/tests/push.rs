//! What a client tells a registry when it pushes, and what it makes of the answers.

mod fake;
mod store;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use fake::{Fake, Reply, Request, client, client_with, config};
use image::{
    Digest, ImageRef, Platform,
    document::{Descriptor, Index, Manifest, media_type},
};
use registry::{Credential, Credentials, Error, Export, KnownPlaces, RawDocument};
use store::{MemoryStore, image_of};

/// What a registry has, and what it is asked to be difficult about.
#[derive(Default)]
struct State {
    blobs: BTreeMap<(String, Digest), Vec<u8>>,
    documents: BTreeMap<String, Vec<u8>>,
    /// Where uploads are to be sent: before the path.
    location: String,
    mounts: bool,
    /// Replies to the next uploads instead of taking them.
    spoil: Vec<Reply>,
}

/// A registry that takes what it must take and no more.
fn registry(
    state: &Arc<Mutex<State>>,
) -> impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + use<> {
    let state = Arc::clone(state);
    move |request, _| {
        let mut state = state.lock().expect("unpoisoned");
        let (method, target) = request.line.split_once(' ')?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query: BTreeMap<_, _> = query.split('&').filter_map(|it| it.split_once('=')).collect();
        let digest = |text: &str| text.replace("%3A", ":").parse::<Digest>().ok();
        let (repository, rest) = path.strip_prefix("/v2/")?.split_once('/')?;
        let begun = |state: &State| {
            Reply::new(202, "").header(
                "Location",
                format!("{}/v2/{repository}/blobs/uploads/id?state=1", state.location),
            )
        };
        match (method, rest) {
            ("HEAD", blob) if blob.starts_with("blobs/") => {
                let key = (repository.to_owned(), digest(blob.strip_prefix("blobs/")?)?);
                Some(Reply::new(if state.blobs.contains_key(&key) { 200 } else { 404 }, ""))
            }
            ("POST", "blobs/uploads/") => match (query.get("mount"), query.get("from")) {
                (Some(mount), Some(from)) => {
                    let found =
                        state.blobs.get(&(from.replace("%2F", "/"), digest(mount)?)).cloned();
                    let Some(found) = found.filter(|_| state.mounts) else {
                        return Some(begun(&state));
                    };
                    state.blobs.insert((repository.to_owned(), digest(mount)?), found);
                    Some(Reply::new(201, ""))
                }
                _ => Some(begun(&state)),
            },
            ("DELETE", "blobs/uploads/id") => Some(Reply::new(204, "")),
            ("PUT", "blobs/uploads/id") => {
                if let Some(reply) = state.spoil.pop() {
                    return Some(reply);
                }
                let digest = digest(query.get("digest")?)?;
                let good = query.get("state") == Some(&"1") && Digest::of(&request.body) == digest;
                if good {
                    state.blobs.insert((repository.to_owned(), digest), request.body.clone());
                }
                Some(Reply::new(if good { 201 } else { 400 }, ""))
            }
            ("PUT", manifest) => {
                let name = manifest.strip_prefix("manifests/")?;
                let has =
                    |it: &Descriptor| state.blobs.contains_key(&(repository.to_owned(), it.digest));
                let complete = match request.header("content-type") {
                    media_type::OCI_MANIFEST => {
                        let manifest: Manifest = serde_json::from_slice(&request.body).ok()?;
                        manifest.layers.iter().chain([&manifest.config]).all(has)
                    }
                    media_type::OCI_INDEX => {
                        let index: Index = serde_json::from_slice(&request.body).ok()?;
                        index
                            .manifests
                            .iter()
                            .all(|it| state.documents.contains_key(&it.digest.to_string()))
                    }
                    _ => return None,
                };
                if !complete {
                    return None;
                }
                state.documents.insert(name.to_owned(), request.body.clone());
                Some(Reply::new(201, "").header("Docker-Content-Digest", Digest::of(&request.body)))
            }
            _ => None,
        }
    }
}

fn name(fake: &Fake, rest: &str) -> ImageRef {
    ImageRef::parse(&format!("{}/{rest}", fake.host())).expect("the name is valid")
}

async fn push(
    fake: &Fake,
    to: &str,
    image: &Export,
    store: &MemoryStore,
) -> Result<Descriptor, Error> {
    client(&[fake]).push(&name(fake, to), image, &KnownPlaces::new(), store, &|_, _| {}).await
}

fn n_lines(fake: &Fake, start: &str) -> usize {
    fake.lines().iter().filter(|it| it.starts_with(start)).count()
}

#[tokio::test]
async fn blobs_come_first_and_are_not_sent_twice() {
    let (state, store) = (Arc::default(), MemoryStore::default());
    let fake = Fake::start(registry(&state));
    let big = "x".repeat(300_000);
    let image = image_of(&store, &["one", &big, "one", ""], "amd64");
    let progress = Mutex::new(BTreeMap::new());
    let note = |blob: &Descriptor, n: u64| {
        progress.lock().expect("unpoisoned").insert(blob.digest, (n, blob.size));
    };
    let pushed = client(&[&fake])
        .push(&name(&fake, "app:1"), &image, &KnownPlaces::new(), &store, &note)
        .await;
    assert_eq!(pushed.expect("it is taken").digest, image.documents[0].digest);
    assert_eq!(n_lines(&fake, "PUT /v2/app/blobs/"), 4, "one layer is there twice");
    assert!(progress.lock().expect("unpoisoned").values().all(|(n, size)| n == size));
    let at = |state: &Mutex<State>, key: &str| {
        state.lock().expect("unpoisoned").documents.get(key).cloned()
    };
    assert_eq!(at(&state, "1"), Some(image.documents[0].bytes.clone()));

    push(&fake, "app:2", &image, &store).await.expect("it is taken");
    assert_eq!(n_lines(&fake, "PUT /v2/app/blobs/"), 4, "all was there");
    let by_digest = format!("app@{}", image.documents[0].digest);
    push(&fake, &by_digest, &image, &store).await.expect("it is taken");
    assert!(at(&state, "latest").is_none());
}

#[tokio::test]
async fn indexes_come_after_their_images() {
    let (state, store) = (Arc::default(), MemoryStore::default());
    let fake = Fake::start(registry(&state));
    let (amd, arm) = (image_of(&store, &["x"], "amd64"), image_of(&store, &["y"], "arm64"));
    let manifests = [("amd64", &amd), ("arm64", &arm)].map(|(architecture, image)| Descriptor {
        platform: Some(Platform::new("linux", architecture)),
        ..image.root_descriptor().expect("it has one")
    });
    let index = Index {
        schema_version: 2,
        media_type: media_type::OCI_INDEX.to_owned(),
        manifests: manifests.to_vec(),
        annotations: Default::default(),
        other: Default::default(),
    };
    let index = RawDocument::new(media_type::OCI_INDEX, serde_json::to_vec(&index).expect("valid"));
    let all = Export {
        documents: [amd.documents, arm.documents, vec![index]].concat(),
        configs: [amd.configs, arm.configs].concat(),
        ..Export::default()
    };
    push(&fake, "app", &all, &store).await.expect("it is taken");
    assert_eq!(state.lock().expect("unpoisoned").documents.len(), 3);
    assert!(fake.lines().last().is_some_and(|it| it == "PUT /v2/app/manifests/latest"));
}

#[tokio::test]
async fn known_blobs_are_mounted_or_else_sent() {
    for mounts in [true, false] {
        let (state, store) =
            (Arc::new(Mutex::new(State { mounts, ..State::default() })), MemoryStore::default());
        let fake = Fake::start(registry(&state));
        let image = image_of(&store, &["base", "own"], "amd64");
        let base = Digest::of(b"base");
        state.lock().expect("unpoisoned").blobs.insert(("base".to_owned(), base), b"base".to_vec());
        let elsewhere = ImageRef::parse("quay.io/base").expect("valid");
        let known = KnownPlaces::from([(base, vec![elsewhere, name(&fake, "base")])]);
        let to = name(&fake, "app:1");
        client(&[&fake]).push(&to, &image, &known, &store, &|_, _| {}).await.expect("it is taken");
        assert_eq!(n_lines(&fake, "POST /v2/app/blobs/uploads/?mount="), 1);
        assert_eq!(n_lines(&fake, "PUT /v2/app/blobs/"), if mounts { 2 } else { 3 });
        assert_eq!(n_lines(&fake, "DELETE /v2/app/blobs/uploads/id"), usize::from(!mounts));
    }
}

#[tokio::test]
async fn failures_that_may_pass_are_tried_again() {
    for spoil in [
        vec![Reply::new(500, "")],
        vec![Reply::new(502, ""), Reply::new(503, "")],
        vec![Reply::new(404, r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}"#)],
        vec![Reply::new(416, "")],
        vec![Reply::new(429, "").header("Retry-After", 0)],
    ] {
        let (state, store) =
            (Arc::new(Mutex::new(State { spoil, ..State::default() })), MemoryStore::default());
        let fake = Fake::start(registry(&state));
        push(&fake, "app", &image_of(&store, &["x"], "amd64"), &store)
            .await
            .expect("it is taken in the end");
    }
    let spoil = vec![Reply::new(500, r#"{"errors":[{"message":"disk full"}]}"#); 20];
    let (state, store) =
        (Arc::new(Mutex::new(State { spoil, ..State::default() })), MemoryStore::default());
    let fake = Fake::start(registry(&state));
    let error = push(&fake, "app", &image_of(&store, &["x"], "amd64"), &store)
        .await
        .expect_err("it never works");
    assert!(error.to_string().contains("500 Internal Server Error: disk full"), "{error}");
    assert_eq!(n_lines(&fake, "PUT /v2/app/manifests/"), 0);
}

#[tokio::test]
async fn uploads_elsewhere_get_no_credential() {
    let (state, store) = (Arc::new(Mutex::new(State::default())), MemoryStore::default());
    let storage = Fake::start_at("127.0.0.2", registry(&state));
    state.lock().expect("unpoisoned").location = format!("http://{}", storage.host());
    let inner = registry(&state);
    let fake = Fake::start(move |request, n| match request.header("authorization") {
        "" => Some(Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\"")),
        _ => inner(request, n),
    });
    let password =
        Credential::Password { username: "me".to_owned(), password: "secret".to_owned() };
    let client =
        client_with(config(&[&fake, &storage]), Credentials::none().with(&fake.host(), password));
    let image = image_of(&store, &["x"], "amd64");
    client
        .push(&name(&fake, "app"), &image, &KnownPlaces::new(), &store, &|_, _| {})
        .await
        .expect("it is taken");
    assert_eq!(n_lines(&storage, "PUT "), 2);
    assert!(storage.requests().iter().all(|it| !it.headers.contains_key("authorization")));
}

#[tokio::test]
async fn blobs_that_are_not_what_they_should_be_are_not_sent() {
    let (state, store) = (Arc::default(), MemoryStore::default());
    let fake = Fake::start(registry(&state));
    let image = image_of(&store, &["right"], "amd64");
    store.replace(Digest::of(b"right"), b"wrong".to_vec());
    let error = push(&fake, "app", &image, &store).await.expect_err("the blob is another");
    assert!(matches!(error, Error::Local { .. }), "{error:?}");
    assert!(
        !state.lock().expect("unpoisoned").blobs.keys().any(|(_, it)| *it == Digest::of(b"right"))
    );
    assert_eq!(n_lines(&fake, "PUT /v2/app/manifests/"), 0);
    let missing = image_of(&MemoryStore::default(), &["missing"], "amd64");
    let error = push(&fake, "app", &missing, &store).await.expect_err("the blob is not there");
    assert!(matches!(error, Error::Local { .. }), "{error:?}");
}

#[tokio::test]
async fn refusals_say_what_docker_says() {
    let denied =
        r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#;
    let fake = Fake::start(move |_, _| Some(Reply::new(403, denied)));
    let store = MemoryStore::default();
    let error = push(&fake, "app", &image_of(&store, &["x"], "amd64"), &store)
        .await
        .expect_err("it is refused");
    let host = fake.host();
    assert_eq!(
        error.to_string(),
        format!(
            "push access denied for {host}/app, repository does not exist or may require authorization: requested access \
             to the resource is denied"
        )
    );
}
