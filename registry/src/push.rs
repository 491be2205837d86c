//! Writes images to registries: blobs first, then manifests, what has the name last.
//!
//! A tag thus never stands for something incomplete. A blob that the repository has is not sent; one that another repository of the registry
//! has is mounted; the rest is streamed in one request each, several at a time.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Read},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_core::Stream;
use image::{Digest, ImageRef, document::Descriptor};
use reqwest::{
    Body, Method, StatusCode, Url,
    header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue},
};
use tokio::sync::mpsc;

use crate::{
    auth::challenge::Scope,
    client::{Client, RawDocument, repository},
    error::{Error, Result},
    export::{BlobSource, Export, Verified},
    http::{Host, Request, message, read_body, read_message},
};

/// Bytes that are read at a time.
const CHUNK: usize = 64 * 1024;
/// Chunks that wait to be sent.
const QUEUE: usize = 4;

/// Repositories that have blobs of the image already, by blob: the base image's, for example. Only those of the same registry are of use.
pub type KnownPlaces = BTreeMap<Digest, Vec<ImageRef>>;

impl Client {
    /// Writes an image under the tag of `to`; without a tag, but with a digest, under no name. Calls `progress` with the number of bytes of a
    /// blob that are there now, which goes back when a transfer starts again.
    ///
    /// # Errors
    ///
    /// [`Error::PushDenied`], [`Error::Unreachable`], [`Error::Local`] if a blob cannot be read or is not what its descriptor says, and others.
    pub async fn push(
        &self,
        to: &ImageRef,
        export: &Export,
        known: &KnownPlaces,
        source: &dyn BlobSource,
        progress: &(dyn Fn(&Descriptor, u64) + Sync),
    ) -> Result<Descriptor> {
        let host = self.destination(to);
        let push = Push {
            host: &host,
            to,
            export,
            known,
            source,
            progress,
            repository: repository(&host, to),
        };
        push.run().await.map_err(|error| match error {
            Error::Unauthorized { address, reason } => {
                Error::PushDenied { image: to.repository(), address, reason }
            }
            other => other,
        })
    }
}

impl Client {
    /// Sends one blob of `source` to the repository of `to`, ahead of the image that it is part of. If it is there, or can be mounted,
    /// nothing is sent.
    ///
    /// # Errors
    ///
    /// Those of [`push`](Self::push).
    pub async fn push_blob(
        &self,
        to: &ImageRef,
        blob: &Descriptor,
        known: &KnownPlaces,
        source: &dyn BlobSource,
    ) -> Result<()> {
        let host = self.destination(to);
        let (export, progress) = (Export::default(), |_: &Descriptor, _: u64| {});
        let push = Push {
            host: &host,
            to,
            export: &export,
            known,
            source,
            progress: &progress,
            repository: repository(&host, to),
        };
        let _permit = host.permits.acquire().await.ok();
        push.put_blob(blob).await
    }
}

struct Push<'a> {
    host: &'a Host,
    to: &'a ImageRef,
    export: &'a Export,
    known: &'a KnownPlaces,
    source: &'a dyn BlobSource,
    progress: &'a (dyn Fn(&Descriptor, u64) + Sync),
    repository: String,
}

impl Push<'_> {
    async fn run(&self) -> Result<Descriptor> {
        let root = self.export.root_descriptor()?;
        let queue = Mutex::new(VecDeque::from(self.export.blobs()?));
        // Four at a time, and the first failure ends all.
        tokio::try_join!(
            self.work(&queue),
            self.work(&queue),
            self.work(&queue),
            self.work(&queue)
        )?;
        let (last, children) = match self.export.documents.split_last() {
            Some(split) => split,
            None => return Ok(root),
        };
        for document in children {
            self.put_document(document, &document.digest.to_string()).await?;
        }
        let name = match (&self.to.tag, &self.to.digest) {
            (None, Some(_)) => last.digest.to_string(),
            _ => self.to.tag_or_latest().to_owned(),
        };
        self.put_document(last, &name).await?;
        Ok(root)
    }

    async fn work(&self, queue: &Mutex<VecDeque<Descriptor>>) -> Result<()> {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(descriptor) = next else { return Ok(()) };
            // The semaphore is never closed.
            let _permit = self.host.permits.acquire().await.ok();
            self.put_blob(&descriptor).await?;
        }
    }

    fn scope(&self) -> Scope {
        Scope::push(self.repository.trim_end_matches('/'))
    }

    async fn put_blob(&self, descriptor: &Descriptor) -> Result<()> {
        if self.has(descriptor).await? || self.mount(descriptor).await? {
            (self.progress)(descriptor, descriptor.size);
            return Ok(());
        }
        let mut attempts = self.host.attempts();
        let mut started_anew = false;
        loop {
            let Err(error) = self.upload(descriptor).await else { return Ok(()) };
            // The answer got lost, or another push was quicker.
            if error.is_transient() && self.has(descriptor).await.unwrap_or(false) {
                return Ok(());
            }
            match is_forgotten(&error) && !started_anew {
                true => started_anew = true,
                false => attempts.after(error).await?,
            }
        }
    }

    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        let url = self.host.url(&format!("{}blobs/{}", self.repository, descriptor.digest)).await?;
        match self.host.send(&Request::new(Method::HEAD, url), &self.scope()).await {
            Ok(response) => Ok(response.status().is_success()),
            // The answer to the upload will say why in words; this one has no body.
            Err(Error::Unauthorized { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes the blob over from another repository of the registry. Whatever stands in the way, it can still be uploaded.
    async fn mount(&self, descriptor: &Descriptor) -> Result<bool> {
        for from in self.known.get(&descriptor.digest).into_iter().flatten() {
            if from.domain != self.to.domain || from.path == self.to.path {
                continue;
            }
            let from = format!("{}{}", self.host.endpoint.prefix, from.path);
            let mut url = self.host.url(&format!("{}blobs/uploads/", self.repository)).await?;
            url.query_pairs_mut()
                .append_pair("mount", &descriptor.digest.to_string())
                .append_pair("from", &from);
            let request = Request::new(Method::POST, url);
            let Ok(response) = self.host.send(&request, &self.scope().and(&from, &["pull"])).await
            else {
                continue;
            };
            match response.status() {
                StatusCode::CREATED => return Ok(true),
                // An upload has begun instead; it is ended, and begun again without the wish.
                StatusCode::ACCEPTED => self.cancel(&request, response.headers()).await,
                _ => {}
            }
        }
        Ok(false)
    }

    /// Sends the blob in one request.
    async fn upload(&self, descriptor: &Descriptor) -> Result<()> {
        let url = self.host.url(&format!("{}blobs/uploads/", self.repository)).await?;
        let begin = Request::new(Method::POST, url);
        let response = self.host.send(&begin, &self.scope()).await?;
        if response.status() != StatusCode::ACCEPTED {
            return Err(self.unexpected(&begin, response).await);
        }
        let headers = response.headers().clone();
        let mut url = self.host.target(&begin.url, &headers)?;
        url.query_pairs_mut().append_pair("digest", &descriptor.digest.to_string());

        let mut request = Request::new(Method::PUT, url);
        request.headers.insert(CONTENT_LENGTH, HeaderValue::from(descriptor.size));
        request.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        let outcome = self.stream(&request, descriptor).await;
        let error = match outcome {
            Ok(response) if response.status() == StatusCode::CREATED => return Ok(()),
            Ok(response) => self.unexpected(&request, response).await,
            Err(error) => error,
        };
        self.cancel(&begin, &headers).await;
        Err(error)
    }

    async fn stream(
        &self,
        request: &Request,
        descriptor: &Descriptor,
    ) -> Result<reqwest::Response> {
        let what = format!("blob {}", descriptor.digest);
        let local = |source| Error::Local { action: "read", what: what.clone(), source };
        let blob = self.export.open(descriptor, self.source).map_err(local)?;
        let n_sent = Arc::new(AtomicU64::new(0));
        let failure = Arc::new(Mutex::new(None));
        let body = match descriptor.size {
            0 => Body::from(Vec::new()),
            _ => blob_body(
                Verified::new(blob, descriptor),
                Arc::clone(&n_sent),
                Arc::clone(&failure),
            ),
        };
        let scope = self.scope();
        let sending = self.host.upload(request, &scope, body);
        let mut sending = std::pin::pin!(sending);
        // The time limit of other requests would run from their first byte, so this one is watched for progress.
        let mut seen = 0;
        let mut idle = Duration::ZERO;
        let tick = Duration::from_millis(100).min(self.host.limits.idle_timeout);
        let outcome = loop {
            tokio::select! {
                outcome = &mut sending => break outcome,
                () = tokio::time::sleep(tick) => {
                    let now = n_sent.load(Ordering::Relaxed);
                    idle = if now == seen { idle + tick } else { Duration::ZERO };
                    seen = now;
                    (self.progress)(descriptor, now);
                    if idle >= self.host.limits.idle_timeout {
                        let status = StatusCode::REQUEST_TIMEOUT;
                        let message = "the registry takes no more bytes".to_owned();
                        break Err(Error::Status { request: request.shown(), status, message });
                    }
                }
            }
        };
        if let Some(source) = failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(local(source));
        }
        (self.progress)(descriptor, n_sent.load(Ordering::Relaxed));
        outcome
    }

    /// Tells the registry that nothing more will come. It would find out by itself, later.
    async fn cancel(&self, begin: &Request, headers: &reqwest::header::HeaderMap) {
        if let Ok(url) = self.host.target(&begin.url, headers) {
            let _ = self.host.authorized(&Request::new(Method::DELETE, url), &self.scope()).await;
        }
    }

    async fn put_document(&self, document: &RawDocument, name: &str) -> Result<()> {
        let url: Url = self.host.url(&format!("{}manifests/{name}", self.repository)).await?;
        let request =
            Request::new(Method::PUT, url).body(&document.media_type, document.bytes.clone());
        let response = self.host.send(&request, &self.scope()).await?;
        if !response.status().is_success() {
            return Err(self.unexpected(&request, response).await);
        }
        let told = response.headers().get("docker-content-digest").and_then(|it| it.to_str().ok());
        let told = told.and_then(|it| it.parse::<Digest>().ok());
        if let Some(found) = told.filter(|it| *it != document.digest) {
            let what = format!("manifest as stored by `{}`", self.host.endpoint.host);
            return Err(Error::DigestMismatch { what, expected: document.digest, found });
        }
        Ok(())
    }

    async fn unexpected(&self, request: &Request, response: reqwest::Response) -> Error {
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
            let reason = read_message(response, self.host.limits.answer_bytes).await;
            return Error::Unauthorized { address: self.host.endpoint.credentials.clone(), reason };
        }
        let body = read_body(response, self.host.limits.answer_bytes, &request.shown())
            .await
            .unwrap_or_default();
        Error::Status { request: request.shown(), status, message: message(&body) }
    }
}

impl Export {
    /// Makes an export of a pulled image, whose layers are elsewhere.
    pub fn of(image: &crate::client::RemoteImage) -> Self {
        Self {
            documents: vec![image.manifest.clone()],
            configs: vec![image.config_bytes.clone()],
            ..Self::default()
        }
    }
}

/// Says whether the registry no longer knows the upload or the token with which it was begun.
fn is_forgotten(error: &Error) -> bool {
    match error {
        Error::Status { status, .. } => matches!(status.as_u16(), 404 | 410 | 416),
        Error::Unauthorized { .. } => true,
        _ => false,
    }
}

/// Bytes that a thread reads and a connection sends.
struct Chunks {
    receiver: mpsc::Receiver<io::Result<Vec<u8>>>,
    n_sent: Arc<AtomicU64>,
}

impl Stream for Chunks {
    type Item = io::Result<Vec<u8>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.receiver.poll_recv(context);
        if let Poll::Ready(Some(Ok(chunk))) = &next {
            self.n_sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
        next
    }
}

/// Makes a request body of a blob. If reading fails, the request breaks off, and the reason is in `failure`.
fn blob_body(
    mut blob: impl Read + Send + 'static,
    n_sent: Arc<AtomicU64>,
    failure: Arc<Mutex<Option<io::Error>>>,
) -> Body {
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::task::spawn_blocking(move || {
        // One chunk is held back, so that the last one is only sent when the whole has been verified.
        let mut held: Option<Vec<u8>> = None;
        loop {
            let mut chunk = vec![0; CHUNK];
            match read_full(&mut blob, &mut chunk) {
                Ok(n) => {
                    chunk.truncate(n);
                    if let Some(held) = held.take()
                        && sender.blocking_send(Ok(held)).is_err()
                    {
                        return;
                    }
                    if n == 0 {
                        return;
                    }
                    held = Some(chunk);
                }
                Err(error) => {
                    let copy = io::Error::new(error.kind(), error.to_string());
                    *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    let _ = sender.blocking_send(Err(copy));
                    return;
                }
            }
        }
    });
    Body::wrap_stream(Chunks { receiver, n_sent })
}

fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while n < buffer.len() {
        match reader.read(&mut buffer[n..]) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(n)
}
