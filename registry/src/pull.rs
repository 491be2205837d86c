//! Reads images from registries and mirrors, and checks every byte.

use std::{io::Write, sync::Arc};

use image::{
    Digest, ImageRef, Platform,
    document::{Descriptor, ImageConfig, Index, Manifest, media_type},
};
use reqwest::{
    Method, Response, StatusCode, Url,
    header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE},
};
use sha2::{Digest as _, Sha256};

use crate::{
    auth::{Credentials, challenge::Scope},
    client::{Client, Failures, RawDocument, RemoteImage, expect_success, pull_scope, repository},
    config::{Config, Limits, host_name, is_private},
    document::{
        MAX_DEPTH, check_layers, check_size, choose, describe, document_type, is_index, parse,
    },
    error::{Error, Result},
    http::{Host, Request, address, interrupted, read_body, shown},
};

/// What kiln reads.
pub(crate) const DOCUMENTS: [&str; 4] = [
    media_type::OCI_INDEX,
    media_type::OCI_MANIFEST,
    media_type::DOCKER_INDEX,
    media_type::DOCKER_MANIFEST,
];

/// With this much progress since the last failure, failures are counted anew, in bytes.
const PROGRESS: u64 = 1 << 20;
const CONTENT_DIGEST: &str = "docker-content-digest";

impl Client {
    /// Asks what `image` stands for now, without reading it.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::PullDenied`], [`Error::Unreachable`], and others.
    pub async fn resolve(&self, image: &ImageRef) -> Result<Descriptor> {
        let mut failures = Failures::new(named(image));
        for host in self.sources(image) {
            match self.resolve_at(&host, image).await {
                Ok(descriptor) => return Ok(descriptor),
                Err(error) => failures.add(&host, error),
            }
        }
        Err(failures.into_error())
    }

    /// Reads the manifest or index that `image` stands for, by digest if the reference has one, and else by tag.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::PullDenied`], [`Error::Unreachable`], [`Error::DigestMismatch`], and others.
    pub async fn manifest(&self, image: &ImageRef) -> Result<RawDocument> {
        self.find_manifest(image).await.map(|(document, _)| document)
    }

    /// Reads manifest and config of `image`. Of an index it takes the image that suits `platform` best; what is no index is taken
    /// whatever its platform is, as Docker does.
    ///
    /// # Errors
    ///
    /// [`Error::NoPlatform`] if the index has nothing for the platform, and those of [`manifest`](Self::manifest).
    pub async fn pull_image(&self, image: &ImageRef, platform: &Platform) -> Result<RemoteImage> {
        let (mut document, mut source) = self.find_manifest(image).await?;
        let mut index = None;
        let mut depth = 0;
        while is_index(&document.media_type) {
            depth += 1;
            if depth > MAX_DEPTH {
                let problem = format!("has indexes inside of indexes, more than {MAX_DEPTH} deep");
                return Err(Error::Document { what: named(image), problem });
            }
            let list: Index = parse(&document.bytes, || format!("index of {}", named(image)))?;
            let chosen = choose(&list, platform, || named(image))?.clone();
            let by_digest = image.with_digest(chosen.digest);
            index.get_or_insert(document);
            (document, source) = self.find_manifest(&by_digest).await?;
            check_size(document.bytes.len() as u64, chosen.size, || {
                format!("manifest of {}", named(&by_digest))
            })?;
        }
        let parsed: Manifest = parse(&document.bytes, || format!("manifest of {}", named(image)))?;
        let config_type = parsed.config.media_type.as_str();
        if !matches!(
            config_type,
            media_type::OCI_CONFIG | media_type::DOCKER_CONFIG | "application/octet-stream"
        ) {
            let problem = format!("is no container image: its config is of type `{config_type}`");
            return Err(Error::Document { what: named(image), problem });
        }
        let config_bytes = self.small_blob(image, &parsed.config).await?;
        let config: ImageConfig = parse(&config_bytes, || format!("config of {}", named(image)))?;
        check_layers(&parsed, &config, || named(image))?;
        Ok(RemoteImage {
            name: image.clone(),
            index,
            manifest: document,
            parsed,
            config_bytes,
            config,
            source,
        })
    }

    /// Writes a blob of the repository of `image` to `out` while checking it, and calls `progress` with the number of bytes so far.
    ///
    /// An exchange that breaks off is taken up again where it broke, if need be at another address.
    ///
    /// # Errors
    ///
    /// After an error what was written to `out` is to be thrown away. [`Error::DigestMismatch`] and [`Error::SizeMismatch`] if the bytes are
    /// not those of the descriptor, [`Error::Local`] if `out` fails, and those of any request.
    pub async fn blob(
        &self,
        image: &ImageRef,
        descriptor: &Descriptor,
        out: &mut (dyn Write + Send),
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<()> {
        self.transfer(image, descriptor, out, (0, Some(Sha256::new())), progress).await
    }

    /// Goes on with [`blob`](Self::blob) after the first `n_bytes`, which `out` has from an earlier attempt.
    ///
    /// Of those nothing is known here, so the digest of the whole is for the caller to check.
    ///
    /// # Errors
    ///
    /// Those of [`blob`](Self::blob), but for the digest.
    pub async fn rest_of_blob(
        &self,
        image: &ImageRef,
        descriptor: &Descriptor,
        n_bytes: u64,
        out: &mut (dyn Write + Send),
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<()> {
        let hasher = (n_bytes == 0).then(Sha256::new);
        self.transfer(image, descriptor, out, (n_bytes, hasher), progress).await
    }

    async fn transfer(
        &self,
        image: &ImageRef,
        descriptor: &Descriptor,
        out: &mut (dyn Write + Send),
        (n_bytes, hasher): (u64, Option<Sha256>),
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<()> {
        let what = format!("blob {} of {}", descriptor.digest, image.repository());
        let mut transfer = Transfer { out, progress, hasher, n_bytes, descriptor, what: &what };
        let mut failures = Failures::new(what.clone());
        for host in self.sources(image) {
            let repository = repository(&host, image);
            let outcome = async {
                let url = host.url(&format!("{repository}blobs/{}", descriptor.digest)).await?;
                transfer.run(&host, &url, &pull_scope(&repository)).await
            };
            match outcome.await {
                Ok(()) => return transfer.finish(),
                Err(error @ Error::Local { .. }) => return Err(error),
                Err(error) => failures.add(&host, error),
            }
        }
        for url in &descriptor.urls {
            let Some(host) = foreign_host(url, self.limits()) else { continue };
            let outcome = match Url::parse(url) {
                Ok(url) => transfer.run(&host, &url, &Scope::default()).await,
                Err(_) => continue,
            };
            match outcome {
                Ok(()) => return transfer.finish(),
                Err(error @ Error::Local { .. }) => return Err(error),
                Err(error) => failures.add(&host, error),
            }
        }
        Err(failures.into_error())
    }

    /// Reads a blob that may not be larger than a document.
    async fn small_blob(&self, image: &ImageRef, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let limit = self.limits().document_bytes;
        if descriptor.size > limit {
            return Err(Error::TooLarge {
                what: format!("blob {} of {}", descriptor.digest, named(image)),
                limit,
            });
        }
        let mut bytes = Vec::new();
        self.blob(image, descriptor, &mut bytes, &|_| {}).await?;
        Ok(bytes)
    }

    async fn find_manifest(&self, image: &ImageRef) -> Result<(RawDocument, String)> {
        let mut failures = Failures::new(named(image));
        for host in self.sources(image) {
            match self.manifest_at(&host, image).await {
                Ok(document) => return Ok((document, host.endpoint.host.clone())),
                Err(error) => failures.add(&host, error),
            }
        }
        Err(failures.into_error())
    }

    async fn manifest_at(&self, host: &Host, image: &ImageRef) -> Result<RawDocument> {
        let repository = repository(host, image);
        let url = host.url(&format!("{repository}manifests/{}", tag_or_digest(image))).await?;
        let request = Request::new(Method::GET, url).accept(&DOCUMENTS);
        let limit = self.limits().document_bytes;
        let (status, headers, bytes) =
            host.fetch(&request, &pull_scope(&repository), limit).await?;
        expect_success(&request, status, &bytes, &named(image))?;

        let digest = Digest::of(&bytes);
        let what = || format!("manifest of {} from `{}`", named(image), host.endpoint.host);
        let promised = image.digest.or(content_digest(&headers, &request)?);
        if let Some(expected) = promised.filter(|it| *it != digest) {
            return Err(Error::DigestMismatch { what: what(), expected, found: digest });
        }
        let media_type = document_type(&bytes, content_type(&headers), what)?;
        Ok(RawDocument { media_type, digest, bytes })
    }

    async fn resolve_at(&self, host: &Arc<Host>, image: &ImageRef) -> Result<Descriptor> {
        let repository = repository(host, image);
        let url = host.url(&format!("{repository}manifests/{}", tag_or_digest(image))).await?;
        let request = Request::new(Method::HEAD, url).accept(&DOCUMENTS);
        let response = host.send(&request, &pull_scope(&repository)).await?;
        let (status, headers) = (response.status(), response.headers());
        if status != StatusCode::METHOD_NOT_ALLOWED {
            expect_success(&request, status, b"", &named(image))?;
            let size = headers
                .get(CONTENT_LENGTH)
                .and_then(|it| it.to_str().ok())
                .and_then(|it| it.parse().ok());
            let known = content_type(headers).filter(|it| DOCUMENTS.contains(it));
            if let (Some(digest), Some(size), Some(media_type)) =
                (content_digest(headers, &request)?, size, known)
            {
                let what = || format!("manifest of {} from `{}`", named(image), host.endpoint.host);
                if let Some(expected) = image.digest.filter(|it| *it != digest) {
                    return Err(Error::DigestMismatch { what: what(), expected, found: digest });
                }
                return Ok(describe(media_type, digest, size));
            }
        }
        let document = self.manifest_at(host, image).await?;
        Ok(describe(&document.media_type, document.digest, document.bytes.len() as u64))
    }
}

/// A blob on its way.
struct Transfer<'a> {
    out: &'a mut (dyn Write + Send),
    progress: &'a (dyn Fn(u64) + Sync),
    /// None where the beginning came in an earlier attempt.
    hasher: Option<Sha256>,
    n_bytes: u64,
    descriptor: &'a Descriptor,
    what: &'a str,
}

impl Transfer<'_> {
    /// Reads what is missing from `url`, in as many exchanges as it takes.
    async fn run(&mut self, host: &Host, url: &Url, scope: &Scope) -> Result<()> {
        // The semaphore is never closed.
        let _permit = host.permits.acquire().await.ok();
        let mut attempts = host.attempts();
        loop {
            let n_before = self.n_bytes;
            match self.exchange(host, url, scope).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    if self.n_bytes - n_before >= PROGRESS {
                        attempts.reset();
                    }
                    attempts.after(error).await?;
                }
            }
        }
    }

    async fn exchange(&mut self, host: &Host, url: &Url, scope: &Scope) -> Result<()> {
        let mut request = Request::new(Method::GET, url.clone());
        let start = self.n_bytes;
        if start > 0 {
            if start == self.descriptor.size {
                return Ok(());
            }
            if let Ok(range) = HeaderValue::from_str(&format!("bytes={start}-")) {
                request.headers.insert(RANGE, range);
            }
        }
        let mut response = host.authorized(&request, scope).await?;
        let mut skip = self.check_head(&request, &response, start)?;
        if !response.status().is_success() {
            let status = response.status();
            let body = read_body(response, host.limits.answer_bytes, self.what).await?;
            return expect_success(&request, status, &body, self.what);
        }
        while let Some(chunk) =
            response.chunk().await.map_err(|error| interrupted(&request.shown(), error))?
        {
            let n_skipped = skip.min(chunk.len() as u64);
            skip -= n_skipped;
            let bytes = &chunk[usize::try_from(n_skipped).unwrap_or(chunk.len())..];
            self.take(bytes)?;
        }
        check_size(self.n_bytes, self.descriptor.size, || self.what.to_owned())
    }

    /// Checks what the answer says of itself, and returns how many of its bytes are there already.
    fn check_head(&self, request: &Request, response: &Response, start: u64) -> Result<u64> {
        let size = self.descriptor.size;
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = response
                    .headers()
                    .get(CONTENT_RANGE)
                    .and_then(|it| it.to_str().ok())
                    .unwrap_or_default();
                let expected = format!("bytes {start}-{}/", size.saturating_sub(1));
                let total = range.strip_prefix(&expected).unwrap_or_default();
                if start == 0 || (total != size.to_string() && total != "*") {
                    let problem = format!(
                        "the range `{}` instead of `{expected}{size}`",
                        range.escape_default()
                    );
                    return Err(Error::Protocol { request: request.shown(), problem });
                }
                Ok(0)
            }
            StatusCode::OK => match response.content_length() {
                Some(length) if length > size => Err(Error::SizeMismatch {
                    what: self.what.to_owned(),
                    expected: size,
                    found: length,
                }),
                _ => Ok(start),
            },
            status if status.is_success() => {
                let problem = format!("status {status} instead of the blob");
                Err(Error::Protocol { request: request.shown(), problem })
            }
            _ => Ok(0),
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<()> {
        let found = self.n_bytes + bytes.len() as u64;
        if found > self.descriptor.size {
            return Err(Error::SizeMismatch {
                what: self.what.to_owned(),
                expected: self.descriptor.size,
                found,
            });
        }
        self.out.write_all(bytes).map_err(|source| Error::Local {
            action: "write",
            what: self.what.to_owned(),
            source,
        })?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        self.n_bytes = found;
        (self.progress)(found);
        Ok(())
    }

    fn finish(self) -> Result<()> {
        let Some(hasher) = self.hasher else { return Ok(()) };
        let found = Digest::from_sha256(hasher.finalize().into());
        if found != self.descriptor.digest {
            return Err(Error::DigestMismatch {
                what: self.what.to_owned(),
                expected: self.descriptor.digest,
                found,
            });
        }
        Ok(())
    }
}

/// Returns the host of a layer that is not kept in registries. It gets no credential, and must speak HTTPS.
fn foreign_host(url: &str, limits: &Limits) -> Option<Host> {
    let url = Url::parse(url).ok()?;
    let name = url.host_str()?;
    if url.scheme() != "https" || is_private(host_name(name)) {
        return None;
    }
    let address = address(&url);
    let endpoint = Config::default().destination(&address);
    Some(Host::new(endpoint, limits.clone(), Arc::new(Credentials::none())))
}

/// Returns how messages name `image`.
fn named(image: &ImageRef) -> String {
    image.with_default_tag().to_string()
}

fn tag_or_digest(image: &ImageRef) -> String {
    image.digest.map_or_else(|| image.tag_or_latest().to_owned(), |it| it.to_string())
}

fn content_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or(value).trim())
}

fn content_digest(headers: &HeaderMap, request: &Request) -> Result<Option<Digest>> {
    let Some(value) = headers.get(CONTENT_DIGEST) else { return Ok(None) };
    let digest = value.to_str().ok().and_then(|it| it.parse().ok());
    digest.map(Some).ok_or_else(|| Error::Protocol {
        request: shown(&request.url),
        problem: "a `Docker-Content-Digest` that is none".to_owned(),
    })
}
