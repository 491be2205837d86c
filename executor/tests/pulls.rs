//! Layers of base images come from registries: once, and not again from the start.

mod server;

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use executor::Session;
use image::{
    Digest, ImageRef, Platform,
    document::media_type,
    entry::{Entry, Kind, Time},
    layer::IndexedTarWriter,
};
use registry::{Client, Config, Credentials, RegistryConfig};
use serde_json::{Value, json};
use server::{Answer, Home, Server};

/// An image of one layer, and a server that has it.
struct Scene {
    server: Server,
    layer: Vec<u8>,
    n_sent: Arc<AtomicU32>,
}

fn described(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len() })
}

impl Scene {
    fn new() -> Self {
        let content: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut writer = IndexedTarWriter::new(Vec::new());
        let entry = Entry {
            path: b"file".to_vec(),
            kind: Kind::File { size: content.len() as u64 },
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Time { secs: 1, nanos: 0 },
            xattrs: Default::default(),
        };
        writer.append(entry, &mut content.as_slice()).expect("an entry");
        let (layer, index) = writer.finish().expect("the end");
        let platform = Platform::host();
        let config = json!({
            "architecture": platform.architecture, "os": platform.os, "config": {},
            "rootfs": { "type": "layers", "diff_ids": [index.diff_id] },
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
            "config": described(media_type::OCI_CONFIG, &config),
            "layers": [described(media_type::OCI_LAYER, &layer)],
        });
        let manifest = manifest.to_string();
        let (digest, n_sent) = (Digest::of(&layer).to_string(), Arc::new(AtomicU32::new(0)));
        let (bytes, counter) = (layer.clone(), n_sent.clone());
        let server = Server::start(move |request| {
            if request.path.contains("/manifests/") {
                return Answer::new(200, manifest.clone())
                    .with("Content-Type", media_type::OCI_MANIFEST);
            }
            if request.path.ends_with(&digest) {
                counter.fetch_add(1, Ordering::SeqCst);
                // Long enough that the others ask meanwhile.
                std::thread::sleep(std::time::Duration::from_millis(200));
                let range = request.header("range").and_then(|it| it.strip_prefix("bytes="));
                return match range.and_then(|it| it.strip_suffix('-')?.parse::<usize>().ok()) {
                    Some(start) => Answer::new(206, &bytes[start..]).with(
                        "Content-Range",
                        &format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len()),
                    ),
                    None => Answer::new(200, bytes.clone()),
                };
            }
            match request.path.contains("/blobs/") {
                true => Answer::new(200, config.clone()),
                false => Answer::new(200, ""),
            }
        });
        Self { server, layer, n_sent }
    }

    fn host(&self) -> String {
        self.server.url("").trim_start_matches("http://").to_owned()
    }

    fn pull(&self, home: &Home) -> Session {
        let mut config = Config::default();
        let plain = RegistryConfig { http: Some(true), ..RegistryConfig::default() };
        config.registries.insert(self.host(), plain);
        let mut session = home.session();
        session.client = Client::new(config, Credentials::none());
        let name = ImageRef::parse(&format!("{}/team/app:1", self.host())).expect("a name");
        session.pull_image(&name, &Platform::host()).expect("it is pulled");
        session
    }

    fn ranges(&self) -> Vec<Option<String>> {
        let digest = Digest::of(&self.layer).to_string();
        let of_layer = self.server.requests().into_iter().filter(|it| it.path.ends_with(&digest));
        of_layer.map(|it| it.header("range").map(str::to_owned)).collect()
    }
}

#[test]
fn a_download_that_was_cut_off_goes_on_in_the_next_process() {
    for (partial, expected) in [
        // What a killed process left.
        (&|layer: &[u8]| layer[..500_000].to_vec() as Vec<u8>, vec![Some("bytes=500000-")]),
        // All of it, but for the name.
        (&|layer: &[u8]| layer.to_vec(), vec![]),
        // What a power cut made of it: found at the end, and thrown away.
        (&|layer: &[u8]| vec![0; layer.len() / 2], vec![Some("half"), None]),
        // More than there is.
        (&|layer: &[u8]| [layer, layer].concat(), vec![None]),
    ] as [(&dyn Fn(&[u8]) -> Vec<u8>, Vec<Option<&str>>); 4]
    {
        let (scene, home) = (Scene::new(), Home::new());
        let root = home.session().store.root().to_owned();
        let digest = Digest::of(&scene.layer);
        std::fs::write(root.join("partial").join(digest.hex()), partial(&scene.layer))
            .expect("written");
        let session = scene.pull(&home);
        let found = session.store.read_blob(&digest, u64::MAX - 1).expect("it is whole");
        assert!(found == scene.layer);
        let half = format!("bytes={}-", scene.layer.len() / 2);
        let expected: Vec<Option<String>> = expected
            .into_iter()
            .map(|it| it.map(|it| if it == "half" { half.clone() } else { it.to_owned() }))
            .collect();
        assert_eq!(scene.ranges(), expected);
        assert_eq!(std::fs::read_dir(root.join("partial")).expect("a folder").count(), 0);
    }
}

#[test]
fn many_that_pull_the_same_transfer_it_once() {
    let (scene, home) = (Scene::new(), Home::new());
    std::thread::scope(|scope| {
        for _ in 0..6 {
            // A session of its own, as another process would have.
            scope.spawn(|| scene.pull(&home));
        }
    });
    assert_eq!(scene.n_sent.load(Ordering::SeqCst), 1);
}
