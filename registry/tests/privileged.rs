//! The client and a real registry, Debian's `docker-registry`: plain, with passwords, with TLS.
//!
//! Needs no root, but programs that are not part of this project. Nothing is skipped: without them the tests fail and say what to install.

mod store;

use std::{
    fs,
    io::Write as _,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use image::{Digest, ImageRef, Platform};
use registry::{Client, Config, Credential, Credentials, Error, KnownPlaces};
use store::{MemoryStore, image_of};

/// A registry that runs as long as this value lives.
struct Registry {
    process: Child,
    host: String,
    /// Where it keeps its data, and the test its certificates.
    folder: tempfile::TempDir,
}

impl Registry {
    /// Starts a registry on a free port. `extra` makes further lines of its configuration from its folder: below `http:`, and at the top.
    fn start(extra: impl Fn(&Path) -> (String, String)) -> Self {
        let program = PathBuf::from("/usr/bin/docker-registry");
        assert!(
            program.exists(),
            "install the package docker-registry (apt-get install docker-registry)"
        );
        let folder = tempfile::tempdir().expect("a folder can be made");
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|it| it.local_addr())
            .expect("a port is free")
            .port();
        let host = format!("127.0.0.1:{port}");
        let (below_http, at_top) = extra(folder.path());
        let data = folder.path().join("data");
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: \
             true}}\nhttp:\n  addr: {host}\n{below_http}\n{at_top}\n",
            data.display()
        );
        let path = folder.path().join("config.yml");
        fs::write(&path, config).expect("writable");
        let process = Command::new(program)
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the registry can be run");
        let registry = Self { process, host, folder };
        let start = Instant::now();
        while TcpStream::connect(&registry.host).is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "the registry does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    /// Starts a registry that speaks HTTPS with the `server.pem` and `server.key` that `make` puts into its folder.
    fn start_tls(make: impl Fn(&Path)) -> Self {
        Self::start(|folder| {
            make(folder);
            let file = |name| folder.join(name).display().to_string();
            let tls = format!(
                "  tls: {{certificate: {}, key: {}}}",
                file("server.pem"),
                file("server.key")
            );
            (tls, String::new())
        })
    }

    fn name(&self, rest: &str) -> ImageRef {
        ImageRef::parse(&format!("{}/{rest}", self.host)).expect("the name is valid")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn config(text: &str) -> Config {
    toml::from_str(text).expect("the configuration is valid")
}

/// Pushes an image with a layer of some megabytes and pulls it again.
async fn round_trip(client: &Client, registry: &Registry) {
    let store = MemoryStore::default();
    let noise: String =
        (0..400_000_u32).map(|it| it.wrapping_mul(2_654_435_761).to_string()).collect();
    let image = image_of(&store, &["small", &noise, ""], "amd64");
    let to = registry.name("team/app:1");
    client.push(&to, &image, &KnownPlaces::new(), &store, &|_, _| {}).await.expect("it is taken");

    let pulled =
        client.pull_image(&to, &Platform::new("linux", "amd64")).await.expect("it is there");
    assert_eq!(pulled.manifest, image.documents[0]);
    for layer in &pulled.parsed.layers {
        let mut bytes = Vec::new();
        client.blob(&to, layer, &mut bytes, &|_| {}).await.expect("it is there");
        assert_eq!(Some(bytes), store.get(&layer.digest));
    }
    assert_eq!(client.tags(&to).await.expect("it answers"), ["1"]);
    assert_eq!(client.resolve(&to).await.expect("it answers").digest, pulled.manifest.digest);

    // From the other repository, without its layers at hand.
    let places = pulled.parsed.layers.iter().map(|it| (it.digest, vec![to.clone()])).collect();
    let (copy, empty) = (registry.name("other/app:2"), MemoryStore::default());
    client.push(&copy, &image, &places, &empty, &|_, _| {}).await.expect("the layers are mounted");
    client.pull_image(&copy, &Platform::new("linux", "amd64")).await.expect("it is there");

    let missing =
        client.manifest(&registry.name("team/app:no")).await.expect_err("it is not there");
    assert!(missing.is_not_found(), "{missing}");
    assert!(
        missing.hint().is_some_and(|it| it.contains("manifest unknown")),
        "{:?}",
        missing.hint()
    );
    let missing = registry.name(&format!("team/app@{}", Digest::of(b"no")));
    assert!(client.resolve(&missing).await.expect_err("it is not there").is_not_found());
}

#[tokio::test]
async fn privileged_plain_registry() {
    let registry = Registry::start(|_| Default::default());
    round_trip(&Client::new(Config::default(), Credentials::none()), &registry).await;
}

#[tokio::test]
async fn privileged_registry_with_passwords() {
    // `secret` for `me`, hashed with bcrypt as the registry wants it.
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/registry/htpasswd");
    let registry = Registry::start(|_| {
        (String::new(), format!("auth:\n  htpasswd: {{realm: test, path: {path}}}"))
    });
    let stranger = Client::new(Config::default(), Credentials::none());
    let error = stranger.manifest(&registry.name("x")).await.expect_err("we are not let in");
    assert!(matches!(error, Error::PullDenied { .. }), "{error}");
    assert!(stranger.login(&registry.host, "me", "wrong").await.is_err());
    stranger.login(&registry.host, "me", "secret").await.expect("we are let in");

    let credentials = Credentials::in_folder(registry.folder.path());
    let password =
        Credential::Password { username: "me".to_owned(), password: "secret".to_owned() };
    credentials.store(&registry.host, &password).expect("writable");
    round_trip(&Client::new(Config::default(), credentials), &registry).await;
}

#[tokio::test]
async fn privileged_registry_with_its_own_authority() {
    let registry = Registry::start_tls(make_certificates);
    let host = &registry.host;
    let table = |lines: &str| config(&format!("[registry.\"{host}\"]\n{lines}"));
    let ca = registry.folder.path().join("ca.pem");

    let strict = Client::new(table("http = false"), Credentials::none());
    let error = strict.ping(host).await.expect_err("nobody knows that authority");
    assert_eq!(error.code(), "untrusted-certificate", "{error:?}");
    let other = Registry::start(|folder| {
        make_certificates(folder);
        Default::default()
    });
    let other_ca = other.folder.path().join("ca.pem");
    let wrong = Client::new(table(&format!("ca = [{other_ca:?}]")), Credentials::none());
    assert_eq!(
        wrong.ping(host).await.expect_err("it is another authority").code(),
        "untrusted-certificate"
    );

    round_trip(&Client::new(table(&format!("ca = [{ca:?}]")), Credentials::none()), &registry)
        .await;
    for lines in ["insecure = true\nhttp = false", "insecure = true\nhttp = true", ""] {
        Client::new(table(lines), Credentials::none()).ping(host).await.expect(lines);
    }
    let plain = Client::new(table("http = true"), Credentials::none());
    assert!(plain.ping(host).await.is_err(), "it does not speak plain HTTP");
}

#[tokio::test]
async fn privileged_registry_with_a_self_signed_certificate() {
    let registry = Registry::start_tls(|folder| self_signed(folder, "IP:127.0.0.1", "20990101"));
    let host = &registry.host;
    let client = |lines: &str| {
        Client::new(config(&format!("[registry.\"{host}\"]\n{lines}")), Credentials::none())
    };
    let folder = registry.folder.path();
    let own = folder.join("server.pem");
    round_trip(&client(&format!("ca = [{own:?}]")), &registry).await;

    // As in /etc/docker/certs.d/HOST.
    let certs = folder.join("certs.d");
    fs::create_dir(&certs).expect("a folder can be made");
    fs::copy(&own, certs.join("ca.crt")).expect("writable");
    client(&format!("tlsconfigdir = [{certs:?}]")).ping(host).await.expect("it is configured");

    // Among others in one file.
    let other = tempfile::tempdir().expect("a folder can be made");
    self_signed(other.path(), "IP:127.0.0.1", "20990101");
    let other_pem = other.path().join("server.pem");
    let both = folder.join("both.pem");
    let texts = [&other_pem, &own].map(|it| fs::read_to_string(it).expect("readable"));
    fs::write(&both, texts.concat()).expect("writable");
    client(&format!("ca = [{both:?}]")).ping(host).await.expect("it is configured");

    for lines in ["http = false".to_owned(), format!("ca = [{other_pem:?}]")] {
        assert_untrusted(&client(&lines), host, "ca = [").await;
    }
    // What is configured for one registry says nothing about another.
    let text = format!("[registry.\"{host}\"]\nhttp = false\n[registry.\"other\"]\nca = [{own:?}]");
    assert_untrusted(&Client::new(config(&text), Credentials::none()), host, "ca = [").await;
}

#[tokio::test]
async fn privileged_self_signed_certificates_are_read() {
    for (names, end, hint) in [
        ("DNS:registry.example.com,IP:127.0.0.2", "20990101", "subjectAltName"),
        ("IP:127.0.0.1", "20210101", "clock"),
    ] {
        let registry = Registry::start_tls(|folder| self_signed(folder, names, end));
        let host = &registry.host;
        let ca = registry.folder.path().join("server.pem");
        let table = format!("[registry.\"{host}\"]\nca = [{ca:?}]");
        assert_untrusted(&Client::new(config(&table), Credentials::none()), host, hint).await;
    }
}

/// Demands an error that names the registry, and a hint with `hint` in it.
async fn assert_untrusted(client: &Client, host: &str, hint: &str) {
    let error = client.ping(host).await.expect_err("the certificate is not to be trusted");
    assert_eq!(error.code(), "untrusted-certificate", "{error:?}");
    assert!(error.to_string().contains(host), "{error}");
    assert!(error.hint().is_some_and(|it| it.contains(hint)), "{:?}", error.hint());
}

/// Makes an authority, and a certificate of it for 127.0.0.1.
fn make_certificates(folder: &Path) {
    openssl(
        folder,
        &[
            &[
                "req",
                "-x509",
                "-subj",
                "/CN=test authority",
                "-days",
                "2",
                "-keyout",
                "ca.key",
                "-out",
                "ca.pem",
            ],
            KEY,
        ]
        .concat(),
    );
    openssl(
        folder,
        &[&["req", "-subj", "/CN=registry", "-keyout", "server.key", "-out", "server.csr"], KEY]
            .concat(),
    );
    let mut extensions = fs::File::create(folder.join("extensions")).expect("writable");
    extensions.write_all(b"subjectAltName=IP:127.0.0.1\n").expect("writable");
    openssl(
        folder,
        &[
            "x509",
            "-req",
            "-in",
            "server.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "extensions",
            "-out",
            "server.pem",
        ],
    );
}

/// Makes a self-signed certificate as `openssl req -x509` does, for these subjectAltNames, valid from 2020 to `end` (YYYYMMDD).
fn self_signed(folder: &Path, names: &str, end: &str) {
    let names = format!("subjectAltName={names}");
    let request = ["req", "-subj", "/CN=registry", "-keyout", "server.key", "-out", "server.csr"];
    let extensions = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", &names];
    openssl(folder, &[&request, KEY, &extensions].concat());
    // Only `openssl ca` takes dates in the past.
    let settings = "[ca]\ndefault_ca = self\n[self]\ndatabase = issued\nrand_serial = yes\nnew_certs_dir = .\n\
                    default_md = sha256\npolicy = any\ncopy_extensions = copy\n[any]\ncommonName = supplied\n";
    fs::write(folder.join("ca.cnf"), settings).expect("writable");
    fs::write(folder.join("issued"), "").expect("writable");
    let end = format!("{end}000000Z");
    let sign =
        ["ca", "-batch", "-notext", "-config", "ca.cnf", "-selfsign", "-keyfile", "server.key"];
    let files = ["-in", "server.csr", "-out", "server.pem"];
    openssl(
        folder,
        &[&sign[..], &files, &["-startdate", "20200101000000Z", "-enddate", &end]].concat(),
    );
}

/// What `openssl req` needs to make a key.
const KEY: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

fn openssl(folder: &Path, args: &[&str]) {
    let output = Command::new("openssl").args(args).current_dir(folder).output();
    let output = output.expect("install the package openssl (apt-get install openssl)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
