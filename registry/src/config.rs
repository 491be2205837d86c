//! What the user configured for each registry: mirrors, plain HTTP, certificates.
//!
//! The tables have the keys of `buildkitd.toml`, so that a working file can be taken over as it is:
//!
//! ```toml
//! [registry."docker.io"]
//!   mirrors = ["mirror.example.com:5000", "cache.example.com/hub"]
//! [registry."mirror.example.com:5000"]
//!   http = true
//! [registry."registry.example.com"]
//!   ca = ["/etc/certs/example.pem"]
//!   [[registry."registry.example.com".keypair]]
//!     key = "/etc/certs/client.key"
//!     cert = "/etc/certs/client.pem"
//! ```
//!
//! This module turns a registry's name into the ordered list of [`Endpoint`]s to ask: its mirrors, then itself.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    time::Duration,
};

use serde::Deserialize;

/// What is configured, by registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Tables by the name of a registry as image references write it, or by the name of a mirror.
    #[serde(rename = "registry")]
    pub registries: BTreeMap<String, RegistryConfig>,
}

/// What is configured for one registry or mirror.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryConfig {
    /// `host:port` or `host/path/prefix` of registries to read from first, in this order.
    pub mirrors: Vec<String>,
    /// It speaks plain HTTP. Together with [`insecure`](Self::insecure): HTTPS first, then plain HTTP.
    pub http: Option<bool>,
    /// Its certificate is not checked.
    pub insecure: Option<bool>,
    /// PEM files with certificates to trust besides those of the system.
    pub ca: Vec<PathBuf>,
    /// Client certificates to show.
    pub keypair: Vec<KeyPair>,
    /// Directories with `*.crt` (trusted), and `*.cert` with `*.key` (to show), as in `/etc/docker/certs.d/HOST`.
    pub tlsconfigdir: Vec<PathBuf>,
}

/// A client certificate: two PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyPair {
    /// The private key.
    pub key: PathBuf,
    /// The certificate.
    pub cert: PathBuf,
}

/// How long to wait, how often to try, how much to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How often one request is sent at most when it fails for a reason that may pass.
    pub attempts: u32,
    /// The pause before the second attempt; each further one is twice as long.
    pub first_pause: Duration,
    /// The longest pause that a registry may ask for. A longer one is an error at once.
    pub longest_pause: Duration,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long a registry may stay silent.
    pub idle_timeout: Duration,
    /// Largest manifest, index or image config, in bytes.
    pub document_bytes: u64,
    /// Largest token or error answer, in bytes.
    pub answer_bytes: u64,
    /// Blobs in transfer with one registry at a time.
    pub parallel: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            attempts: 4,
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            document_bytes: 4 << 20,
            answer_bytes: 1 << 20,
            parallel: 4,
        }
    }
}

/// How to speak with a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Transport {
    /// HTTPS with a certificate that is checked.
    Https,
    /// HTTPS with any certificate.
    HttpsUnchecked,
    /// Plain HTTP.
    Http,
    /// HTTPS with any certificate, or else plain HTTP.
    HttpsUncheckedOrHttp,
    /// Plain HTTP, or else HTTPS with any certificate: the default on this machine's own addresses, as Docker has it.
    Loopback,
}

/// One place to ask for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Host and perhaps port, as in a URL.
    pub(crate) host: String,
    /// What comes between `/v2/` and the repository: empty or `some/path/`.
    pub(crate) prefix: String,
    /// The name under which credentials are stored.
    pub(crate) credentials: String,
    /// The registry whose images it mirrors.
    pub(crate) mirror_of: Option<String>,
    pub(crate) transport: Transport,
    pub(crate) ca: Vec<PathBuf>,
    pub(crate) keypair: Vec<KeyPair>,
    pub(crate) tlsconfigdir: Vec<PathBuf>,
}

impl Config {
    /// Returns where to read images of the registry `domain` from: mirrors, then the registry.
    pub(crate) fn sources(&self, domain: &str) -> Vec<Endpoint> {
        let mirrors =
            self.registries.get(domain).map(|it| it.mirrors.as_slice()).unwrap_or_default();
        let mut endpoints: Vec<_> = mirrors.iter().map(|it| self.mirror(it, domain)).collect();
        endpoints.push(self.destination(domain));
        endpoints
    }

    /// Returns where to write images of the registry `domain` to: never a mirror.
    pub(crate) fn destination(&self, domain: &str) -> Endpoint {
        let host = match domain {
            "docker.io" | "index.docker.io" => "registry-1.docker.io",
            other => other,
        };
        self.endpoint(host, String::new(), domain, self.registries.get(domain), false)
    }

    fn mirror(&self, mirror: &str, domain: &str) -> Endpoint {
        let (plain, rest) = match mirror.split_once("://") {
            Some((scheme, rest)) => (scheme == "http", rest),
            None => (false, mirror),
        };
        let rest = rest.trim_end_matches('/');
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        let table = self.registries.get(mirror).or_else(|| self.registries.get(rest));
        let table = table.or_else(|| self.registries.get(host));
        let mirror_of = Some(domain.to_owned());
        Endpoint { mirror_of, ..self.endpoint(host, prefix, host, table, plain) }
    }

    fn endpoint(
        &self,
        host: &str,
        prefix: String,
        credentials: &str,
        table: Option<&RegistryConfig>,
        plain: bool,
    ) -> Endpoint {
        let default = RegistryConfig::default();
        let table = table.unwrap_or(&default);
        let http = table.http.or(plain.then_some(true));
        let has_certificates =
            !table.ca.is_empty() || !table.keypair.is_empty() || !table.tlsconfigdir.is_empty();
        let transport = match (http, table.insecure.unwrap_or(false)) {
            (Some(true), true) => Transport::HttpsUncheckedOrHttp,
            (Some(true), false) => Transport::Http,
            (Some(false), true) => Transport::HttpsUnchecked,
            (None, _) if is_loopback(host_name(host)) && !has_certificates => Transport::Loopback,
            (None, true) => Transport::HttpsUnchecked,
            (Some(false) | None, false) => Transport::Https,
        };
        let mut tlsconfigdir = table.tlsconfigdir.clone();
        for folder in ["/etc/docker/certs.d", "/etc/containers/certs.d"] {
            tlsconfigdir.push(PathBuf::from(folder).join(host));
        }
        Endpoint {
            host: host.to_owned(),
            prefix,
            credentials: credentials.to_owned(),
            mirror_of: None,
            transport,
            ca: table.ca.clone(),
            keypair: table.keypair.clone(),
            tlsconfigdir,
        }
    }
}

/// Returns `host` without port, and without the brackets of an IPv6 address.
pub(crate) fn host_name(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    match host.split_once(':') {
        Some((name, port)) if !port.contains(':') => name,
        _ => host,
    }
}

/// Says whether `name` is this machine: `localhost`, `127.0.0.0/8`, `::1`.
pub(crate) fn is_loopback(name: &str) -> bool {
    name == "localhost"
        || name.parse::<Ipv4Addr>().is_ok_and(|it| it.is_loopback())
        || name.parse::<Ipv6Addr>().is_ok_and(|it| it.is_loopback())
}

/// Says whether `name` is an address that only means something on this machine or network.
pub(crate) fn is_private(name: &str) -> bool {
    let private_v4 = |it: Ipv4Addr| {
        it.is_loopback()
            || it.is_private()
            || it.is_link_local()
            || it.is_unspecified()
            || it.is_broadcast()
    };
    if let Ok(address) = name.parse::<Ipv4Addr>() {
        return private_v4(address);
    }
    if let Ok(address) = name.parse::<Ipv6Addr>() {
        return address.is_loopback()
            || address.is_unspecified()
            || address.is_unique_local()
            || address.is_unicast_link_local()
            || address.to_ipv4_mapped().is_some_and(private_v4);
    }
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        toml::from_str(text).expect("the configuration is valid")
    }

    #[test]
    fn mirrors_come_first_and_have_their_own_tables() {
        let config = config(
            r#"
            [registry."docker.io"]
            mirrors = ["10.0.0.1:5000", "https://cache.example.com/hub/"]
            [registry."10.0.0.1:5000"]
            http = true
            [registry."cache.example.com"]
            insecure = true
            "#,
        );
        let sources = config.sources("docker.io");
        let seen: Vec<_> =
            sources.iter().map(|it| (it.host.as_str(), it.prefix.as_str(), it.transport)).collect();
        assert_eq!(
            seen,
            [
                ("10.0.0.1:5000", "", Transport::Http),
                ("cache.example.com", "hub/", Transport::HttpsUnchecked),
                ("registry-1.docker.io", "", Transport::Https),
            ]
        );
        assert_eq!(sources[0].mirror_of.as_deref(), Some("docker.io"));
        assert_eq!(sources[0].credentials, "10.0.0.1:5000");
        assert_eq!(sources[2].credentials, "docker.io");
        assert_eq!(config.destination("docker.io").host, "registry-1.docker.io");
    }

    #[test]
    fn unknown_keys_are_named() {
        for (text, key) in [
            ("[registry.\"a\"]\nmirror = []", "mirror"),
            ("[registri.\"a\"]\nhttp = true", "registri"),
        ] {
            let error = toml::from_str::<Config>(text).expect_err("the key is unknown").to_string();
            assert!(error.contains(&format!("`{key}`")), "{error}");
        }
    }

    #[test]
    fn transports_follow_the_table_and_the_address() {
        let transport = |host: &str, table: &str| {
            config(&format!("[registry.\"{host}\"]\n{table}")).destination(host).transport
        };
        assert_eq!(transport("localhost:5000", ""), Transport::Loopback);
        assert_eq!(transport("127.8.0.1", ""), Transport::Loopback);
        assert_eq!(transport("[::1]:5000", ""), Transport::Loopback);
        assert_eq!(transport("localhost:5000", "http = false"), Transport::Https);
        assert_eq!(transport("localhost:5000", "ca = [\"x\"]"), Transport::Https);
        assert_eq!(transport("localhost:5000", "http = true"), Transport::Http);
        assert_eq!(transport("example.com", ""), Transport::Https);
        assert_eq!(
            transport("example.com", "http = true\ninsecure = true"),
            Transport::HttpsUncheckedOrHttp
        );
        assert_eq!(transport("example.com", "insecure = true"), Transport::HttpsUnchecked);
    }

    #[test]
    fn private_addresses_are_recognised() {
        for name in [
            "localhost",
            "127.0.0.1",
            "10.1.2.3",
            "192.168.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "::1",
            "fe80::1",
        ] {
            assert!(is_private(name), "{name}");
        }
        for name in ["example.com", "8.8.8.8", "2001:4860:4860::8888"] {
            assert!(!is_private(name), "{name}");
        }
        assert_eq!(host_name("[::1]:5000"), "::1");
        assert_eq!(host_name("a.b:5000"), "a.b");
    }
}
