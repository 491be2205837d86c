//! Files from web servers.
//!
//! A download becomes a layer with one file in it: mode 0600, owned by root, its time that of `Last-Modified`. The next
//! build asks the server with the `ETag` of the answer whether there is anything new. A file whose checksum is given is
//! not asked for again at all.
//!
//! # Invariants
//!
//! - **What was not verified is not kept.** With a checksum, nothing is stored before it was compared.
//! - **A credential goes to the origin it is for,** also when that points elsewhere.
//! - **No way leads off the web:** only `http` and `https`, and never from the second to the first.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Seek, SeekFrom, Write},
    sync::Arc,
    time::Duration,
};

use image::{
    Digest, LimitKind, OverLimit,
    compress::{DecompressLimits, decompress_limited},
    digest::Hashing,
    entry::{Entry, Kind, Time},
    layer::IndexedTarWriter,
};
use planner::plan::HttpSource;
use registry::http_date;
use reqwest::{
    Response, StatusCode, Url,
    header::{
        ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_RANGE, ETAG, HeaderValue,
        IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, LOCATION, RANGE,
    },
};
use serde_json::Value;

use super::{DIGEST, Fetched, TIME, record, recorded, redacted, secret};
use crate::{
    error::ExecutorError,
    key::KeyBuilder,
    session::{Session, Task, full_message},
};

const MAX_REDIRECTS: usize = 10;
/// How often a download is begun at most when it fails for a reason that may pass.
const ATTEMPTS: u32 = 4;
/// The pause before the second attempt; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The field of a record with the tag of the answer.
const TAG: &str = "etag";

/// Downloads a file, or finds that what an earlier build downloaded is still right.
pub(super) fn fetch(
    session: &Session,
    http: &HttpSource,
    task: &Task<'_>,
) -> Result<Fetched, ExecutorError> {
    let request = Request::new(session, http)?;
    let pinned = match &http.checksum {
        None => None,
        Some(text) => Some(
            text.parse::<Digest>()
                .map_err(|_| request.error("only sha256 checksums are supported"))?,
        ),
    };
    let mut key = KeyBuilder::new("http");
    key.raw("address", http.url.as_bytes());
    key.text("url", &request.shown);
    key.text("filename", &http.filename);
    match &pinned {
        Some(digest) => key.text("checksum", &digest.to_string()),
        None => key.text("secret", request.secret.as_deref().unwrap_or_default()),
    }
    let key = key.finish();
    let _lock = session.store.step_lock(&key.0)?;
    let known = session.store.step(&key.0)?;
    if let Some(known) = &known
        && pinned.is_some()
    {
        return recorded(session, known);
    }
    let known_tag = known.as_ref().and_then(|it| it.recipe.get(TAG)).and_then(Value::as_str);
    let folder = session.store.stage_tree()?;
    let path = folder.work().join("download");
    let write_failed = |source| ExecutorError::Write { path: path.clone(), source };
    let options = || File::options().read(true).write(true).create(true).truncate(true).open(&path);
    let mut file = options().map_err(write_failed)?;
    let answer = match session.wait(request.download(session, known_tag, &mut file, task))?? {
        Answer::NotModified => match &known {
            Some(known) => return recorded(session, known),
            None => {
                return Err(
                    request.error("the server says that nothing has changed, but was not asked")
                );
            }
        },
        Answer::Downloaded(answer) => answer,
    };
    if let Some(pinned) = &pinned
        && answer.digest != *pinned
    {
        return Err(ExecutorError::ChecksumMismatch {
            url: request.shown,
            expected: pinned.to_string(),
            found: answer.digest.to_string(),
        });
    }
    file.seek(SeekFrom::Start(0)).map_err(write_failed)?;
    let entry = Entry {
        path: parser::encode(&http.filename),
        kind: Kind::File { size: answer.size },
        mode: 0o600,
        uid: 0,
        gid: 0,
        mtime: Time { secs: answer.modified.unwrap_or(0), nanos: 0 },
        xattrs: BTreeMap::new(),
    };
    let mut writer = IndexedTarWriter::new(session.store.stage_blob()?);
    let written = writer.append(entry, &mut file);
    written.map_err(|source| ExecutorError::WriteLayer {
        path: format!("/{}", http.filename),
        source,
    })?;
    let layer = super::put_layer(session, writer.finish()?)?;
    let notes = [
        (TAG, answer.tag.map_or(Value::Null, Value::from)),
        (TIME, answer.modified.map_or(Value::Null, Value::from)),
        (DIGEST, Value::from(answer.digest.to_string())),
    ];
    let record = record(session, key, format!("download of {}", request.shown), layer, &notes)?;
    recorded(session, &record)
}

/// What is asked for, and how it may be named in messages.
struct Request {
    url: Url,
    shown: String,
    /// The secret that the credential comes from.
    secret: Option<String>,
    credential: Option<HeaderValue>,
}

enum Answer {
    NotModified,
    Downloaded(Downloaded),
}

struct Downloaded {
    tag: Option<String>,
    modified: Option<i64>,
    digest: Digest,
    size: u64,
}

/// What an attempt left that broke off: the next one goes on after it, if the server still has the same.
struct Partial {
    n_bytes: u64,
    validator: HeaderValue,
}

/// Why an attempt failed.
enum Failure {
    /// It may pass.
    Passing(ExecutorError),
    /// It stays.
    Lasting(ExecutorError),
}

impl Request {
    fn new(session: &Session, http: &HttpSource) -> Result<Self, ExecutorError> {
        let shown = redacted(&http.url);
        let bad = |message: &str| ExecutorError::Fetch {
            url: shown.clone(),
            message: message.to_owned(),
        };
        let url = Url::parse(&http.url).map_err(|error| bad(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(bad("it is no address of a web server"));
        }
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let mut this = Self { url, shown, secret: None, credential: None };
        for (id, scheme) in [
            (format!("HTTP_AUTH_TOKEN_{host}"), "Bearer "),
            (format!("HTTP_AUTH_HEADER_{host}"), ""),
        ] {
            let Some(text) = secret(session, &id)? else { continue };
            let value = HeaderValue::from_str(&format!("{scheme}{text}"));
            let mut value = value
                .map_err(|_| this.error(&format!("secret `{id}` cannot be sent in a header")))?;
            value.set_sensitive(true);
            (this.secret, this.credential) = (Some(id), Some(value));
            break;
        }
        Ok(this)
    }

    fn error(&self, message: &str) -> ExecutorError {
        ExecutorError::Fetch { url: self.shown.clone(), message: message.to_owned() }
    }

    /// Downloads into `file`, which holds nothing else afterwards.
    async fn download(
        &self,
        session: &Session,
        known_tag: Option<&str>,
        file: &mut File,
        task: &Task<'_>,
    ) -> Result<Answer, ExecutorError> {
        let stopped = Arc::new(tokio::sync::Notify::new());
        let notify = Arc::clone(&stopped);
        let _guard = session.cancel.on_cancel(move || notify.notify_one());
        let mut pause = FIRST_PAUSE;
        let mut partial = None;
        for n_attempts in 1.. {
            let attempt = self.attempt(session, known_tag, file, &mut partial, task);
            let outcome = tokio::select! {
                outcome = attempt => outcome,
                () = stopped.notified() => return Err(ExecutorError::Canceled),
            };
            match outcome {
                Ok(answer) => return Ok(answer),
                Err(Failure::Passing(error)) if n_attempts < ATTEMPTS => {
                    task.warn(format!("{}; trying again", full_message(&error)));
                }
                Err(Failure::Passing(error) | Failure::Lasting(error)) => return Err(error),
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stopped.notified() => return Err(ExecutorError::Canceled),
            }
            pause *= 2;
        }
        Err(ExecutorError::Canceled)
    }

    async fn attempt(
        &self,
        session: &Session,
        known_tag: Option<&str>,
        file: &mut File,
        partial: &mut Option<Partial>,
        task: &Task<'_>,
    ) -> Result<Answer, Failure> {
        let response = self.follow(session, known_tag, partial.as_ref()).await?;
        let status = response.status();
        let begun = partial.take().filter(|_| status == StatusCode::PARTIAL_CONTENT);
        let header =
            |name| response.headers().get(name).and_then(|it: &HeaderValue| it.to_str().ok());
        let tag = header(ETAG).map(str::to_owned);
        let is_known = tag
            .as_deref()
            .is_some_and(|tag| known_tag.is_some_and(|known| strong(tag) == strong(known)));
        // Some servers send what was asked not to be sent.
        if known_tag.is_some()
            && (status == StatusCode::NOT_MODIFIED || status == StatusCode::OK && is_known)
        {
            return Ok(Answer::NotModified);
        }
        let start = begun.as_ref().map_or(0, |it| it.n_bytes);
        let range = header(CONTENT_RANGE).unwrap_or_default();
        if begun.is_some() && !range.starts_with(&format!("bytes {start}-")) {
            return Err(Failure::Passing(
                self.error("the server sent another part than was asked for"),
            ));
        }
        if status != StatusCode::OK && begun.is_none() {
            let error = self.error(&format!("the server answered {status}"));
            let passes = status.is_server_error()
                || status == StatusCode::REQUEST_TIMEOUT
                || status == StatusCode::RANGE_NOT_SATISFIABLE
                || status == StatusCode::TOO_MANY_REQUESTS;
            return Err(if passes { Failure::Passing(error) } else { Failure::Lasting(error) });
        }
        let modified =
            header(LAST_MODIFIED).and_then(http_date).and_then(|it| i64::try_from(it).ok());
        let is_packed = header(CONTENT_ENCODING).is_some_and(|it| matches!(it, "gzip" | "x-gzip"));
        let options = session.store.options();
        // Only of what is named exactly is the rest worth something.
        let validator = response.headers().get(ETAG).cloned();
        let validator = validator.filter(|it| !it.as_bytes().starts_with(b"W/") && !is_packed);
        let received = self.receive(response, file, start, task, options.limits.max_bytes).await;
        let (mut digest, mut size) = match received {
            Ok(received) => received,
            Err(failure) => {
                let n_bytes = file.metadata().map_or(0, |it| it.len());
                *partial =
                    validator.filter(|_| n_bytes > 0).map(|it| Partial { n_bytes, validator: it });
                return Err(failure);
            }
        };
        if is_packed {
            (digest, size) = self.unpack(file, options.decompress).map_err(Failure::Lasting)?;
        }
        Ok(Answer::Downloaded(Downloaded { tag, modified, digest, size }))
    }

    /// Goes after redirects.
    async fn follow(
        &self,
        session: &Session,
        known_tag: Option<&str>,
        partial: Option<&Partial>,
    ) -> Result<Response, Failure> {
        let lasting = |message: String| Failure::Lasting(self.error(&message));
        let mut url = self.url.clone();
        let mut at_home = true;
        for _ in 0..=MAX_REDIRECTS {
            let client =
                session.fetches.web.get(&url).map_err(|error| Failure::Lasting(error.into()))?;
            let mut request = client.get(url.clone()).header(ACCEPT_ENCODING, "identity");
            if let Some(credential) = self.credential.as_ref().filter(|_| at_home) {
                request = request.header(AUTHORIZATION, credential.clone());
            }
            if let Some(tag) = known_tag {
                request = request.header(IF_NONE_MATCH, tag);
            }
            if let Some(partial) = partial {
                request = request
                    .header(RANGE, format!("bytes={}-", partial.n_bytes))
                    .header(IF_RANGE, partial.validator.clone());
            }
            let response = request.send().await.map_err(|error| self.broken(error))?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION).and_then(|it| it.to_str().ok());
            let next = location.and_then(|it| url.join(it).ok());
            let next =
                next.ok_or_else(|| lasting("it is redirected, but not to an address".to_owned()))?;
            match (url.scheme(), next.scheme()) {
                (_, "https") | ("http", "http") => {}
                ("https", "http") => {
                    let next = redacted(next.as_str());
                    return Err(lasting(format!(
                        "it is redirected to `{next}`, which is not encrypted"
                    )));
                }
                (_, scheme) => {
                    return Err(lasting(format!(
                        "it is redirected to an address with `{scheme}:`"
                    )));
                }
            }
            at_home = at_home && next.origin() == url.origin();
            url = next;
            if !at_home {
                let _ = url.set_username("");
                let _ = url.set_password(None);
            }
        }
        Err(lasting(format!("it is redirected more than {MAX_REDIRECTS} times")))
    }

    async fn receive(
        &self,
        mut response: Response,
        file: &mut File,
        start: u64,
        task: &Task<'_>,
        max_bytes: u64,
    ) -> Result<(Digest, u64), Failure> {
        let failed = |source| {
            let path = "a download".into();
            Failure::Lasting(ExecutorError::Write { path, source })
        };
        let total = response.content_length().map(|it| it + start);
        file.set_len(start).and_then(|()| file.rewind()).map_err(failed)?;
        let mut out = Hashing::new(file);
        // What is there already is part of the digest.
        std::io::copy(&mut out, &mut std::io::sink()).map_err(failed)?;
        while let Some(chunk) = response.chunk().await.map_err(|error| self.broken(error))? {
            out.write_all(&chunk).map_err(failed)?;
            // No file is larger than a layer may be.
            if out.n_bytes() > max_bytes {
                let source = OverLimit { limit: LimitKind::Bytes, value: max_bytes };
                let url = self.shown.clone();
                return Err(Failure::Lasting(ExecutorError::DownloadLimit { url, source }));
            }
            task.progress(&self.shown, out.n_bytes(), total, false);
        }
        let (_, digest, size) = out.finish();
        task.progress(&self.shown, size, Some(size), true);
        Ok((digest, size))
    }

    /// Unpacks what the server packed for the way.
    fn unpack(
        &self,
        file: &mut File,
        limits: DecompressLimits,
    ) -> Result<(Digest, u64), ExecutorError> {
        let failed = |source| ExecutorError::Write { path: "a download".into(), source };
        let mut packed = tempfile::tempfile().map_err(failed)?;
        file.rewind().map_err(failed)?;
        std::io::copy(file, &mut packed).map_err(failed)?;
        packed.rewind().map_err(failed)?;
        file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
        let broken = |error: std::io::Error| match OverLimit::find(&error) {
            Some(source) => ExecutorError::DownloadLimit { url: self.shown.clone(), source },
            None => self.error(&format!("what was sent cannot be unpacked: {error}")),
        };
        let (_, mut plain) = decompress_limited(BufReader::new(packed), limits).map_err(broken)?;
        let mut out = Hashing::new(file);
        std::io::copy(&mut plain, &mut out).map_err(broken)?;
        let (_, digest, size) = out.finish();
        Ok((digest, size))
    }

    /// The error of an exchange that broke off.
    fn broken(&self, error: reqwest::Error) -> Failure {
        // A name that does not exist and a certificate that is wrong stay so.
        let error = error.without_url();
        let text = full_message(&error);
        let stays = ["certificate", "dns error", "failed to lookup", "refused"]
            .iter()
            .any(|it| text.contains(it));
        let error = self.error(&text);
        if stays { Failure::Lasting(error) } else { Failure::Passing(error) }
    }
}

/// A tag without the mark that says that it only means the same, not the same bytes.
fn strong(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}
