//! Images as archives and behind a registry, and the lies that they can tell.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use image::Digest;
use serde_json::{Value, json};

use crate::{
    lab::{Lab, compare, snapshot},
    tars::{Tar, gzip},
};

pub(crate) const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(crate) const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// One layer of an image: its blob, how that is compressed, and the digest of the tar.
#[derive(Clone)]
pub(crate) struct Layer {
    pub(crate) blob: Vec<u8>,
    pub(crate) media_type: &'static str,
    pub(crate) diff_id: String,
}

impl Layer {
    pub(crate) fn plain(tar: Vec<u8>) -> Self {
        Self { diff_id: Digest::of(&tar).to_string(), blob: tar, media_type: TAR }
    }

    pub(crate) fn gzip(tar: &[u8]) -> Self {
        Self { blob: gzip(tar), diff_id: Digest::of(tar).to_string(), media_type: GZIP }
    }

    /// Any blob; the diff id is what it is said to be.
    pub(crate) fn raw(blob: Vec<u8>, media_type: &'static str, diff_id: String) -> Self {
        Self { blob, media_type, diff_id }
    }
}

/// An image with all its documents, to be changed as one likes.
#[derive(Clone)]
pub(crate) struct Parts {
    /// Blobs by the digest that they are found under.
    pub(crate) blobs: Vec<(String, Vec<u8>)>,
    /// What `index.json` says.
    pub(crate) index: Value,
}

fn put(blobs: &mut Vec<(String, Vec<u8>)>, bytes: Vec<u8>) -> (String, usize) {
    let (digest, size) = (Digest::of(&bytes).to_string(), bytes.len());
    blobs.push((digest.clone(), bytes));
    (digest, size)
}

/// An honest image of these layers, named `hostile`, after `lie` had its way with config and manifest.
pub(crate) fn image(layers: &[Layer], lie: impl Fn(&mut Value, &mut Value)) -> Parts {
    let mut blobs = Vec::new();
    let mut descriptors = Vec::new();
    for layer in layers {
        let (digest, size) = put(&mut blobs, layer.blob.clone());
        descriptors.push(json!({"mediaType": layer.media_type, "digest": digest, "size": size}));
    }
    let diff_ids: Vec<&str> = layers.iter().map(|it| it.diff_id.as_str()).collect();
    let mut config = json!({
        "architecture": std::env::consts::ARCH.replace("x86_64", "amd64").replace("aarch64", "arm64"), "os": "linux",
        "config": {"Env": ["PATH=/bin"]}, "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let mut manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG}, "layers": descriptors,
    });
    lie(&mut config, &mut manifest);
    let (digest, size) = put(&mut blobs, config.to_string().into_bytes());
    for (key, value) in [("digest", json!(digest)), ("size", json!(size))] {
        if manifest["config"].get(key).is_none() {
            manifest["config"][key] = value;
        }
    }
    let (digest, size) = put(&mut blobs, manifest.to_string().into_bytes());
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [{
        "mediaType": MANIFEST, "digest": digest, "size": size,
        "annotations": {
            "io.containerd.image.name": "docker.io/library/hostile:latest",
            "org.opencontainers.image.ref.name": "latest",
        },
    }]});
    Parts { blobs, index }
}

impl Parts {
    pub(crate) fn archive(&self) -> Vec<u8> {
        let mut tar = Tar::new()
            .file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)
            .file("index.json", &self.index.to_string());
        for (digest, bytes) in &self.blobs {
            let path = format!("blobs/{}", digest.replace(':', "/"));
            tar = tar.header(b'0', path.as_bytes(), "", 0o644, bytes.len()).data(bytes);
        }
        tar.end()
    }

    /// Changes the bytes of the blob that `index` points to, and leaves its digest.
    fn bend(mut self, digest: &str, change: impl Fn(&mut Vec<u8>)) -> Self {
        let blob = self.blobs.iter_mut().find(|(it, _)| it == digest).expect("a blob");
        change(&mut blob.1);
        self
    }

    fn bend_layer(self, change: impl Fn(&mut Vec<u8>)) -> Self {
        let digest = self.blobs[0].0.clone();
        self.bend(&digest, change)
    }

    fn bend_manifest(self, change: impl Fn(&mut Vec<u8>)) -> Self {
        let digest = self.manifest();
        self.bend(&digest, change)
    }

    fn manifest(&self) -> String {
        self.index["manifests"][0]["digest"].as_str().expect("a digest").to_owned()
    }
}

/// A path, its media type and what is served there.
type Page = (String, &'static str, Vec<u8>);

/// A registry that serves whatever it was given.
pub(crate) struct Registry {
    pub(crate) address: String,
    served: Arc<Mutex<Vec<Page>>>,
    asked: Arc<Mutex<Vec<String>>>,
    demanded: Arc<Mutex<Option<String>>>,
}

impl Registry {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let served: Arc<Mutex<Vec<Page>>> = Arc::default();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let demanded: Arc<Mutex<Option<String>>> = Arc::default();
        let (pages, log, key) = (Arc::clone(&served), Arc::clone(&asked), Arc::clone(&demanded));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (pages, log, key) = (Arc::clone(&pages), Arc::clone(&log), Arc::clone(&key));
                std::thread::spawn(move || answer(stream, &pages, &log, &key));
            }
        });
        Self { address, served, asked, demanded }
    }

    /// Lets nobody in but this user.
    pub(crate) fn demand(&self, user: &str, password: &str) {
        let pair = format!("{user}:{password}");
        let auth = format!("Basic {}", crate::secrets::base64(pair.as_bytes()));
        *self.demanded.lock().expect("a user") = Some(auth);
    }

    /// The header that lets one in.
    pub(crate) fn authorization(&self) -> Option<String> {
        self.demanded.lock().expect("a user").clone()
    }

    /// Serves an image as `NAME:latest`.
    pub(crate) fn serve(&self, name: &str, parts: &Parts) {
        let mut pages = Vec::new();
        for (digest, bytes) in &parts.blobs {
            pages.push((
                format!("/v2/{name}/blobs/{digest}"),
                "application/octet-stream",
                bytes.clone(),
            ));
            let media_type = if String::from_utf8_lossy(bytes).contains("\"manifests\"") {
                INDEX
            } else {
                MANIFEST
            };
            pages.push((format!("/v2/{name}/manifests/{digest}"), media_type, bytes.clone()));
        }
        let target = parts.manifest();
        if let Some((_, bytes)) = parts.blobs.iter().find(|(it, _)| *it == target) {
            let media_type = if String::from_utf8_lossy(bytes).contains("\"manifests\"") {
                INDEX
            } else {
                MANIFEST
            };
            pages.push((format!("/v2/{name}/manifests/latest"), media_type, bytes.clone()));
        }
        *self.served.lock().expect("pages") = pages;
    }

    /// The request lines so far, with authorization and host.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("a log").clone()
    }
}

fn answer(
    mut stream: TcpStream,
    pages: &Mutex<Vec<Page>>,
    log: &Mutex<Vec<String>>,
    demanded: &Mutex<Option<String>>,
) {
    let Ok(copy) = stream.try_clone() else { return };
    let mut reader = BufReader::new(copy);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first).unwrap_or(0) == 0 {
            return;
        }
        let mut noted = first.trim().to_owned();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
                break;
            }
            if line.to_ascii_lowercase().starts_with("authorization:") {
                noted += &format!(" [{}]", line.trim());
            }
        }
        let path = first.split(' ').nth(1).unwrap_or_default();
        let found = pages.lock().expect("pages").iter().find(|(it, ..)| it == path).cloned();
        let demanded = demanded.lock().expect("a user").clone();
        let is_let_in = demanded.is_none_or(|it| noted.contains(&it));
        log.lock().expect("a log").push(noted);
        let (status, media_type, body) = match found {
            _ if !is_let_in => (
                "401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"r\"",
                "application/json",
                b"{}".to_vec(),
            ),
            Some((_, media_type, body)) => ("200 OK", media_type, body),
            None if path == "/v2/" => ("200 OK", "application/json", b"{}".to_vec()),
            None => ("404 Not Found", "application/json", b"{}".to_vec()),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let body = if first.starts_with("HEAD") { Vec::new() } else { body };
        if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).is_err() {
            return;
        }
    }
}

/// Images whose documents lie, by name.
fn lies() -> Vec<(&'static str, Parts)> {
    // No two cases have a blob in common: what was verified once is not asked for again.
    let count = std::cell::Cell::new(0);
    let tar = || Tar::new().file("f", "content").file("n", &count.get().to_string()).end();
    let one = || vec![Layer::gzip(&tar())];
    let honest = || image(&one(), |_, _| ());
    let zero = format!("sha256:{}", "0".repeat(64));
    let mut all: Vec<(&'static str, Parts)> = Vec::new();
    let mut add = |name, parts| {
        count.set(count.get() + 1);
        all.push((name, parts));
    };

    add("an honest image", honest());
    add("a layer with other bytes", honest().bend_layer(|it| *it = gzip(b"other")));
    add("a layer with one bit changed", honest().bend_layer(|it| it[40] ^= 1));
    add("a layer that is cut short", honest().bend_layer(|it| it.truncate(100)));
    add("a layer with bytes behind it", honest().bend_layer(|it| it.extend_from_slice(&[0; 64])));
    add("a manifest with other bytes", honest().bend_manifest(|it| it.push(b' ')));
    add("a manifest that is no JSON", honest().bend_manifest(|it| *it = b"{".to_vec()));
    add("a config with other bytes", {
        let parts = honest();
        let config = parts.blobs[1].0.clone();
        parts.bend(&config, |it| it.push(b' '))
    });
    let lied = |change: &dyn Fn(&mut Value, &mut Value)| image(&one(), change);
    add(
        "a layer that is larger than the manifest says",
        lied(&|_, m| m["layers"][0]["size"] = json!(10)),
    );
    add(
        "a layer that is smaller than the manifest says",
        lied(&|_, m| m["layers"][0]["size"] = json!(1_000_000)),
    );
    add("a layer of negative size", lied(&|_, m| m["layers"][0]["size"] = json!(-1)));
    add(
        "a layer of more bytes than there are",
        lied(&|_, m| m["layers"][0]["size"] = json!(u64::MAX)),
    );
    add("a config that is larger than it says", lied(&|_, m| m["config"]["size"] = json!(3)));
    add("a config of 100 MiB", lied(&|_, m| m["config"]["size"] = json!(100 << 20)));
    add("a manifest that is larger than the index says", {
        let mut parts = honest();
        parts.index["manifests"][0]["size"] = json!(7);
        parts
    });
    add(
        "a wrong diff id",
        lied(&|c, _| c["rootfs"]["diff_ids"][0] = json!(format!("sha256:{}", "1".repeat(64)))),
    );
    add("fewer diff ids than layers", lied(&|c, _| c["rootfs"]["diff_ids"] = json!([])));
    add("more diff ids than layers", lied(&|c, _| c["rootfs"]["diff_ids"] = json!([zero, zero])));
    add(
        "a diff id that climbs",
        lied(&|c, _| c["rootfs"]["diff_ids"][0] = json!("sha256:../../../../canary/secret")),
    );
    add(
        "a layer digest that climbs",
        lied(&|_, m| m["layers"][0]["digest"] = json!("sha256:../../../canary/secret")),
    );
    add(
        "a config digest that climbs",
        lied(&|_, m| m["config"]["digest"] = json!("../../canary/secret")),
    );
    add(
        "a digest of another kind",
        lied(&|_, m| m["layers"][0]["digest"] = json!(format!("md5:{}", "0".repeat(32)))),
    );
    add("a layer that is nowhere", lied(&|_, m| m["layers"][0]["digest"] = json!(zero)));
    add(
        "a layer that is said to be elsewhere",
        lied(&|_, m| {
            m["layers"][0]["mediaType"] =
                json!("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip");
            m["layers"][0]["digest"] = json!(zero);
            m["layers"][0]["urls"] = json!(["http://127.0.0.1:1/layer"]);
        }),
    );
    add(
        "a layer of an unknown kind",
        lied(&|_, m| m["layers"][0]["mediaType"] = json!("text/html")),
    );
    add("a plain layer that is compressed", lied(&|_, m| m["layers"][0]["mediaType"] = json!(TAR)));
    add(
        "a compressed layer that is plain",
        image(&[Layer::raw(tar(), GZIP, Digest::of(&tar()).to_string())], |_, _| ()),
    );
    add("a manifest that is an index too", lied(&|_, m| m["manifests"] = json!([])));
    add("a manifest of another type inside", lied(&|_, m| m["mediaType"] = json!(INDEX)));
    add("schema 1", lied(&|_, m| m["schemaVersion"] = json!(1)));
    add("a config that is a list", {
        let mut parts = lied(&|c, _| *c = json!([1, 2]));
        parts.index["annotations"] = json!({});
        parts
    });
    add("a config of odd types", lied(&|c, _| c["config"] = json!({"Env": "no list", "User": 7})));
    add(
        "a config without rootfs",
        lied(&|c, _| *c = json!({"architecture": "amd64", "os": "linux"})),
    );
    add(
        "an environment with odd names",
        lied(&|c, _| c["config"]["Env"] = json!(["", "=x", "NO", "A=b\nC=d", "LD_PRELOAD=/f"])),
    );
    add("an unknown platform", lied(&|c, _| c["os"] = json!("plan9")));
    add("one layer a thousand times", {
        let layers = vec![one().remove(0); 1000];
        image(&layers, |_, _| ())
    });
    add("an index of itself", {
        let mut parts = honest();
        // No digest can name what it is in, so the loop has to be a lie.
        let loop_digest = Digest::of(b"loop").to_string();
        let text = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [{"mediaType": INDEX, "digest": loop_digest, "size": 1}]});
        parts.blobs.push((loop_digest.clone(), text.to_string().into_bytes()));
        parts.index["manifests"][0]["digest"] = json!(loop_digest);
        parts.index["manifests"][0]["mediaType"] = json!(INDEX);
        parts.index["manifests"][0]["size"] = json!(text.to_string().len());
        parts
    });
    add("indexes in indexes", {
        let mut parts = honest();
        for _ in 0..50 {
            let inner = parts.index["manifests"][0].clone();
            let text =
                json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [inner]}).to_string();
            let (digest, size) = put(&mut parts.blobs, text.into_bytes());
            let it = &mut parts.index["manifests"][0];
            (it["digest"], it["size"], it["mediaType"]) =
                (json!(digest), json!(size), json!(INDEX));
        }
        parts
    });
    add("a name that climbs", {
        let mut parts = honest();
        parts.index["manifests"][0]["annotations"] = json!({"io.containerd.image.name": "../../../canary:x", "org.opencontainers.image.ref.name": "../../x"});
        parts
    });
    all
}

#[test]
fn privileged_images_that_lie_are_refused() {
    let lab = Lab::with_box();
    let before = snapshot(&lab.canary());
    let registry = Registry::new();
    let mut outcomes = Vec::new();
    fs::create_dir(lab.path("use")).expect("made");
    for (name, parts) in lies() {
        fs::write(lab.path("hostile.tar"), parts.archive()).expect("written");
        let mut lines = Vec::new();
        let _ = lab.run(&["rmi", "-f", "hostile"]);
        let loaded = lab.run(&["load", "-i", "hostile.tar"]);
        lines.push(match loaded.status {
            Some(0) if lab.run(&["image", "inspect", "hostile"]).status != Some(0) => {
                "load: good, and nothing is called so".to_owned()
            }
            Some(0) => used(&lab, "load", "hostile"),
            _ => format!("load: {}", lab.plain(loaded.error())),
        });
        lab.check(name, &before);
        // A name of its own, so that nothing is known of it.
        registry.serve(&format!("case{}", outcomes.len()), &parts);
        let image = format!("{}/case{}:latest", registry.address, outcomes.len());
        let pulled = lab.run(&["pull", &image]);
        lines.push(match pulled.status {
            Some(0) => used(&lab, "pull", &image),
            _ => format!("pull: {}", lab.plain(pulled.error())),
        });
        lab.check(name, &before);
        let text = lines.join("\n").replace(&registry.address, "REGISTRY");
        outcomes.push((name.to_owned(), text.replace(&format!("case{}", outcomes.len()), "case")));
    }
    compare("images.expected", &outcomes);
}

/// Uses an image that was taken: what is wrong with a layer may only show then.
fn used(lab: &Lab, how: &str, image: &str) -> String {
    let text = format!(
        "FROM {image}\nCOPY --from=box /bin/busybox /busybox\nRUN [\"/busybox\", \"cat\", \"/f\"]\n"
    );
    fs::write(lab.path("use/Dockerfile"), text).expect("written");
    let ran = lab.run(&["build", "--no-cache", "--progress", "plain", "use"]);
    match ran.status {
        Some(0) => {
            let seen = ran.err.lines().any(|it| it.ends_with(" content"));
            format!(
                "{how}: good, {}",
                if seen { "the file is there" } else { "the file is not there" }
            )
        }
        _ => format!("{how}: good, but not its use: {}", lab.plain(ran.error())),
    }
}
