//! What images need of a registry.
//!
//! A [`Client`] is cheap to make and to clone. It asks the mirrors of a registry first and then the registry itself, and remembers tokens
//! and connections. Reading is in `pull`, writing in `push`.

use std::sync::{Arc, Mutex, PoisonError};

use image::{
    Digest, ImageRef,
    document::{ImageConfig, Manifest},
};
use reqwest::{Method, StatusCode};
use serde::Deserialize;

use crate::{
    auth::{Credential, Credentials, challenge::Scope},
    config::{Config, Endpoint, Limits},
    error::{Error, Result},
    http::{Host, Request, message},
};

/// A list of tags is no longer than this many documents.
const PAGES_OF_TAGS: u64 = 16;
/// What a page of it counts at least, in bytes.
const SMALLEST_PAGE: u64 = 1024;

/// Speaks with registries.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    limits: Limits,
    credentials: Arc<Credentials>,
    hosts: Mutex<Vec<Arc<Host>>>,
}

/// A manifest or index as it came, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawDocument {
    /// What it is.
    pub media_type: String,
    /// The digest of the bytes.
    pub digest: Digest,
    /// The document.
    pub bytes: Vec<u8>,
}

/// An image in a registry: all but its layers.
#[derive(Debug, Clone)]
pub struct RemoteImage {
    /// The name it was asked for by.
    pub name: ImageRef,
    /// The index, if the name stands for one.
    pub index: Option<RawDocument>,
    /// The manifest.
    pub manifest: RawDocument,
    /// The manifest, read.
    pub parsed: Manifest,
    /// The image config as it came.
    pub config_bytes: Vec<u8>,
    /// The image config, read.
    pub config: ImageConfig,
    /// The address that the manifest came from: a mirror or the registry.
    pub source: String,
}

impl Client {
    /// Makes a client. Nothing is read or asked before it is needed.
    pub fn new(config: Config, credentials: Credentials) -> Self {
        Self::with_limits(config, credentials, Limits::default())
    }

    /// Makes a client with its own limits.
    pub fn with_limits(config: Config, credentials: Credentials, limits: Limits) -> Self {
        let credentials = Arc::new(credentials);
        Self { inner: Arc::new(Inner { config, limits, credentials, hosts: Mutex::default() }) }
    }

    /// Returns the limits that this client keeps.
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Asks whether the registry is there, and lets us in with the stored credential.
    ///
    /// # Errors
    ///
    /// Those of any request: unreachable, unauthorized, not a registry.
    pub async fn ping(&self, registry: &str) -> Result<()> {
        ping(&self.host(self.inner.config.destination(domain(registry)))).await
    }

    /// Asks whether the registry lets this user in. Nothing is stored; see [`Credentials::store`].
    ///
    /// # Errors
    ///
    /// [`Error::Unauthorized`] if it does not, and those of any request.
    pub async fn login(&self, registry: &str, username: &str, password: &str) -> Result<()> {
        let domain = domain(registry);
        let credential =
            Credential::Password { username: username.to_owned(), password: password.to_owned() };
        let credentials = Arc::new(Credentials::none().with(domain, credential));
        let endpoint = self.inner.config.destination(domain);
        ping(&Host::new(endpoint, self.inner.limits.clone(), credentials)).await
    }

    /// Lists the tags of the repository of `image`, in the order of the registry.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if there is no such repository, and those of any request.
    pub async fn tags(&self, image: &ImageRef) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let mut failures = Failures::new(image.repository());
        for host in self.sources(image) {
            let repository = repository(&host, image);
            let outcome = async {
                let mut url = host.url(&format!("{repository}tags/list")).await?;
                let mut tags = Vec::new();
                let limit = self.inner.limits.document_bytes.saturating_mul(PAGES_OF_TAGS);
                let mut n_bytes = 0_u64;
                loop {
                    let request = Request::new(Method::GET, url.clone());
                    let (status, headers, body) = host
                        .fetch(&request, &pull_scope(&repository), self.inner.limits.document_bytes)
                        .await?;
                    expect_success(&request, status, &body, &image.repository())?;
                    let page: Page = serde_json::from_slice(&body).map_err(|source| {
                        Error::Json { what: format!("answer to {}", request.shown()), source }
                    })?;
                    tags.extend(page.tags.unwrap_or_default());
                    // Pages may lead in a circle, and then an empty one must count, too.
                    n_bytes += (body.len() as u64).max(SMALLEST_PAGE);
                    if n_bytes > limit {
                        let what = format!("the list of tags of {}", image.repository());
                        return Err(Error::TooLarge { what, limit });
                    }
                    let link = headers.get(reqwest::header::LINK).and_then(|it| it.to_str().ok());
                    let next = link
                        .and_then(|it| it.split(['<', '>']).nth(1))
                        .and_then(|it| url.join(it).ok());
                    match next {
                        Some(next) if next.origin() == url.origin() && next != url => url = next,
                        _ => return Ok(tags),
                    }
                }
            };
            match outcome.await {
                Ok(tags) => return Ok(tags),
                Err(error) => failures.add(&host, error),
            }
        }
        Err(failures.into_error())
    }

    /// Returns where to read an image from, in order.
    pub(crate) fn sources(&self, image: &ImageRef) -> Vec<Arc<Host>> {
        self.inner.config.sources(&image.domain).into_iter().map(|it| self.host(it)).collect()
    }

    /// Returns where to write an image to.
    pub(crate) fn destination(&self, image: &ImageRef) -> Arc<Host> {
        self.host(self.inner.config.destination(&image.domain))
    }

    fn host(&self, endpoint: Endpoint) -> Arc<Host> {
        let mut hosts = self.inner.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = hosts.iter().find(|it| it.endpoint == endpoint) {
            return Arc::clone(host);
        }
        let host =
            Host::new(endpoint, self.inner.limits.clone(), Arc::clone(&self.inner.credentials));
        let host = Arc::new(host);
        hosts.push(Arc::clone(&host));
        host
    }
}

async fn ping(host: &Host) -> Result<()> {
    let request = Request::new(Method::GET, host.url("").await?);
    let (status, _, body) =
        host.fetch(&request, &Scope::default(), host.limits.answer_bytes).await?;
    match status.is_success() {
        true => Ok(()),
        false => Err(Error::Status { request: request.shown(), status, message: message(&body) }),
    }
}

fn domain(registry: &str) -> &str {
    crate::auth::domain_of(registry)
}

/// Returns the repository of `image` at `host` with a slash behind it, as addresses have it.
pub(crate) fn repository(host: &Host, image: &ImageRef) -> String {
    format!("{}{}/", host.endpoint.prefix, image.path)
}

pub(crate) fn pull_scope(repository: &str) -> Scope {
    Scope::pull(repository.trim_end_matches('/'))
}

/// Makes an error of any status but success.
pub(crate) fn expect_success(
    request: &Request,
    status: StatusCode,
    body: &[u8],
    image: &str,
) -> Result<()> {
    if status.is_success() {
        return Ok(());
    }
    let message = message(body);
    match status {
        StatusCode::NOT_FOUND => {
            Err(Error::NotFound { image: image.to_owned(), reason: message, tried: Vec::new() })
        }
        _ => Err(Error::Status { request: request.shown(), status, message }),
    }
}

/// The errors of all addresses that were asked for one image.
pub(crate) struct Failures {
    image: String,
    tried: Vec<String>,
    worst: Option<Error>,
}

impl Failures {
    pub(crate) fn new(image: String) -> Self {
        Self { image, tried: Vec::new(), worst: None }
    }

    pub(crate) fn add(&mut self, host: &Host, error: Error) {
        let error = match error {
            Error::Unauthorized { address, reason } => {
                Error::PullDenied { image: self.image.clone(), address, reason }
            }
            other => other,
        };
        self.tried.push(format!(
            "{}{} ({})",
            host.endpoint.host,
            path_shown(host),
            error.in_short()
        ));
        // The last of equals: the registry rather than its mirrors.
        if self.worst.as_ref().is_none_or(|it| it.progress() <= error.progress()) {
            self.worst = Some(error);
        }
    }

    pub(crate) fn into_error(self) -> Error {
        let (image, tried) = (self.image, self.tried);
        match self.worst {
            None => Error::NotFound { image, reason: String::new(), tried },
            Some(Error::NotFound { reason, .. }) => Error::NotFound { image, reason, tried },
            Some(error) if tried.len() == 1 => error,
            Some(error) => Error::AllFailed { image, tried, source: Box::new(error) },
        }
    }
}

fn path_shown(host: &Host) -> String {
    match host.endpoint.prefix.trim_end_matches('/') {
        "" => String::new(),
        path => format!("/{path}"),
    }
}
