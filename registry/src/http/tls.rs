//! The HTTP clients of one registry: certificates, proxies, time limits.
//!
//! Clients are made when first used, so that a build without network pays nothing, and a registry that speaks plain HTTP
//! does not cost the reading of a certificate bundle.

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use reqwest::{Client, ClientBuilder, Identity, Url, redirect::Policy};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use super::verifier::Verifier;
use crate::{
    config::{Endpoint, KeyPair, Limits, Transport, host_name, is_loopback},
    error::{Error, Result},
};

/// Where systems keep the bundle of trusted certificates; the first that is there is read.
const BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What tells one client from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    security: Security,
    /// For the registry itself, which alone is shown client certificates.
    own: bool,
    /// No proxy, whatever the environment says.
    direct: bool,
    /// No limit on the time until an answer comes, since the request takes long to send.
    upload: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Security {
    Plain,
    Unchecked,
    Checked,
}

/// The clients of one registry.
pub(super) struct Clients {
    limits: Limits,
    made: Mutex<BTreeMap<Kind, Client>>,
}

impl Clients {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, made: Mutex::default() }
    }

    /// Returns the client for a request to `url`, be that at the registry or where the registry pointed to.
    pub(super) fn get(&self, endpoint: &Endpoint, url: &Url, upload: bool) -> Result<Client> {
        let name = host_name(url.host_str().unwrap_or_default());
        let own = name == host_name(&endpoint.host);
        let checked = !own || endpoint.transport == Transport::Https;
        let security = match url.scheme() {
            "https" if checked => Security::Checked,
            "https" => Security::Unchecked,
            _ => Security::Plain,
        };
        let kind = Kind { security, own, direct: is_loopback(name), upload };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = made.get(&kind) {
            return Ok(client.clone());
        }
        let client = self.make(kind, endpoint)?;
        made.insert(kind, client.clone());
        Ok(client)
    }

    fn make(&self, kind: Kind, endpoint: &Endpoint) -> Result<Client> {
        let mut builder = ClientBuilder::new()
            .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .http1_only()
            .connect_timeout(self.limits.connect_timeout);
        if !kind.upload {
            builder = builder.read_timeout(self.limits.idle_timeout);
        }
        if kind.direct {
            builder = builder.no_proxy();
        }
        builder = match kind.security {
            Security::Plain => builder.tls_certs_only([]),
            Security::Unchecked => {
                let mut builder = builder.tls_certs_only([]).tls_danger_accept_invalid_certs(true);
                for pair in key_pairs(endpoint)? {
                    let mut pem = read(&pair.cert)?;
                    pem.extend(read(&pair.key)?);
                    let identity = Identity::from_pem(&pem).map_err(|_| no_key_pair(&pair))?;
                    builder = builder.identity(identity);
                }
                builder
            }
            Security::Checked => builder.tls_backend_preconfigured(tls_config(endpoint, kind.own)?),
        };
        builder.build().map_err(|error| setup(endpoint, error))
    }
}

/// HTTP clients for addresses that are no registry's: with the certificates, proxies and time limits that registries get.
///
/// They follow no redirect and repeat nothing; both is the caller's to judge.
pub struct WebClients {
    clients: Clients,
}

impl WebClients {
    /// Prepares the clients. Nothing is read before one is asked for.
    pub fn new(limits: Limits) -> Self {
        Self { clients: Clients::new(limits) }
    }

    /// Returns the client for a request to `url`.
    ///
    /// # Errors
    ///
    /// If the certificates of the system cannot be read, or there are none.
    pub fn get(&self, url: &Url) -> Result<Client> {
        let endpoint = Endpoint {
            host: url.host_str().unwrap_or_default().to_owned(),
            prefix: String::new(),
            credentials: String::new(),
            mirror_of: None,
            transport: Transport::Https,
            ca: Vec::new(),
            keypair: Vec::new(),
            tlsconfigdir: Vec::new(),
        };
        self.clients.get(&endpoint, url, false)
    }
}

/// Makes the TLS settings with checked certificates. Certificates that cannot be understood are passed over: one odd
/// authority in the bundle of the system must not make all others unusable.
fn tls_config(endpoint: &Endpoint, own: bool) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    if let Some(bundle) = system_bundle(|name| env::var_os(name).map(PathBuf::from)) {
        roots.add_parsable_certificates(certificates(&bundle)?);
    }
    let mut configured = Vec::new();
    for path in authorities(endpoint)? {
        let found = certificates(&path)?;
        let (n_added, _) = roots.add_parsable_certificates(found.iter().cloned());
        configured.extend(found);
        if n_added == 0 {
            return Err(Error::BadFile {
                path,
                problem: "contains no certificate in PEM form".to_owned(),
            });
        }
    }
    if roots.is_empty() {
        return Err(Error::NoAuthorities { address: endpoint.host.clone() });
    }
    let provider = Arc::new(default_provider());
    let verifier = Verifier::new(roots, configured, Arc::clone(&provider))
        .map_err(|error| setup(endpoint, error))?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| setup(endpoint, error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    match key_pairs(endpoint)?.into_iter().next().filter(|_| own) {
        None => Ok(config.with_no_client_auth()),
        Some(pair) => {
            let key =
                PrivateKeyDer::from_pem_slice(&read(&pair.key)?).map_err(|_| no_key_pair(&pair))?;
            config
                .with_client_auth_cert(certificates(&pair.cert)?, key)
                .map_err(|_| no_key_pair(&pair))
        }
    }
}

fn system_bundle(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    if let Some(path) = variable("SSL_CERT_FILE") {
        return Some(path);
    }
    BUNDLES.iter().map(PathBuf::from).find(|path| path.is_file())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let pem = read(path)?;
    Ok(CertificateDer::pem_slice_iter(&pem).filter_map(|it| it.ok()).collect())
}

/// Returns the files with additional authorities of `endpoint`.
fn authorities(endpoint: &Endpoint) -> Result<Vec<PathBuf>> {
    let mut files = endpoint.ca.clone();
    for folder in &endpoint.tlsconfigdir {
        files.extend(files_in(folder, "crt")?);
    }
    Ok(files)
}

fn key_pairs(endpoint: &Endpoint) -> Result<Vec<KeyPair>> {
    let mut pairs = endpoint.keypair.clone();
    for folder in &endpoint.tlsconfigdir {
        for cert in files_in(folder, "cert")? {
            pairs.push(KeyPair { key: cert.with_extension("key"), cert });
        }
    }
    Ok(pairs)
}

/// Returns the files of `folder` whose names end in `extension`, sorted; nothing if there is no such folder.
fn files_in(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let error = |source| Error::File { action: "read", path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
            return Ok(Vec::new());
        }
        Err(e) => return Err(error(e)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(error)?.path();
        if path.extension().is_some_and(|it| it == extension) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|source| Error::File { action: "read", path: path.to_owned(), source })
}

fn no_key_pair(pair: &KeyPair) -> Error {
    let problem = format!("and `{}` are no certificate and key in PEM form", pair.key.display());
    Error::BadFile { path: pair.cert.clone(), problem }
}

fn setup(endpoint: &Endpoint, error: impl std::fmt::Display) -> Error {
    Error::Setup { address: endpoint.host.clone(), problem: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn clients_that_show_certificates_are_kept_apart() {
        let mut endpoint = Config::default().destination("registry.example.com");
        let certificates =
            concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/registry/certificates");
        endpoint.ca.push(Path::new(certificates).join("self-signed.pem"));
        let clients = Clients::new(Limits::default());
        for (url, n_clients) in [
            ("https://registry.example.com/v2/", 1),
            ("https://storage.example.com/blob", 2),
            ("https://registry.example.com/v2/", 2),
            ("https://other.example.com/blob", 2),
        ] {
            let url = Url::parse(url).expect("the address is valid");
            clients.get(&endpoint, &url, false).expect("it can be set up");
            assert_eq!(clients.made.lock().expect("nobody panicked").len(), n_clients, "{url}");
        }
    }
}
