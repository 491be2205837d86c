//! One request to a registry: retries, redirects, tokens.
//!
//! From the inside out: `exchange` sends once and sorts out what is worth another try; `follow` goes after redirects and leaves
//! the credential behind when they lead elsewhere; `authorized` answers challenges; `send` tries again. What comes out is a
//! response whose status the caller judges, but never 401, 403, 408, 429 or 5xx.

mod answer;
mod tls;
mod verifier;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use reqwest::{
    Body, Method, Response, StatusCode, Url,
    header::{
        ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION,
    },
};
use tokio::sync::{OnceCell, Semaphore};

pub use self::answer::http_date;
pub(crate) use self::answer::{address, interrupted, message, read_body, read_message, shown};
use self::tls::Clients;
pub use self::tls::WebClients;
use crate::{
    auth::{
        Credentials,
        challenge::Scope,
        token::{Authorizer, Grant},
    },
    config::{Endpoint, Limits, Transport, host_name, is_private},
    error::{Error, Result, causes},
};

const MAX_REDIRECTS: usize = 10;

/// A registry or mirror, and what is known of it so far.
pub(crate) struct Host {
    pub(crate) endpoint: Endpoint,
    pub(crate) limits: Limits,
    /// Bounds the blobs in transfer.
    pub(crate) permits: Semaphore,
    clients: Clients,
    base: OnceCell<Url>,
    authorizer: Authorizer,
    /// It asked not to be asked before then.
    paused_until: Mutex<Option<Instant>>,
}

/// A request without a body or with a small one, so that it can be sent again.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn new(method: Method, url: Url) -> Self {
        let mut headers = HeaderMap::new();
        // The digest is that of the bytes as stored.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        Self { method, url, headers, body: Vec::new() }
    }

    pub(crate) fn accept(mut self, media_types: &[&str]) -> Self {
        if let Ok(value) = HeaderValue::from_str(&media_types.join(", ")) {
            self.headers.insert(ACCEPT, value);
        }
        self
    }

    pub(crate) fn body(mut self, content_type: &str, body: Vec<u8>) -> Self {
        if let Ok(value) = HeaderValue::from_str(content_type) {
            self.headers.insert(CONTENT_TYPE, value);
        }
        self.body = body;
        self
    }

    /// Returns method and address as messages show them.
    pub(crate) fn shown(&self) -> String {
        format!("{} request to `{}`", self.method, shown(&self.url))
    }
}

/// Counts the attempts of one piece of work.
pub(crate) struct Attempts<'a> {
    host: &'a Host,
    n_failed: u32,
    pause: Duration,
}

impl Attempts<'_> {
    /// Waits before the next attempt, or gives `error` back if there is to be none.
    pub(crate) async fn after(&mut self, error: Error) -> Result<()> {
        self.n_failed += 1;
        if !error.is_transient() || self.n_failed >= self.host.limits.attempts {
            return Err(error);
        }
        let mut pause = self.pause;
        if let Error::RateLimited { retry_after: Some(asked), .. } = &error {
            if *asked > self.host.limits.longest_pause {
                return Err(error);
            }
            pause = *asked;
            self.host.pause(pause);
        }
        self.pause *= 2;
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Forgets the failures so far, since there was progress.
    pub(crate) fn reset(&mut self) {
        self.n_failed = 0;
        self.pause = self.host.limits.first_pause;
    }
}

impl Host {
    pub(crate) fn new(endpoint: Endpoint, limits: Limits, credentials: Arc<Credentials>) -> Self {
        Self {
            authorizer: Authorizer::new(credentials, endpoint.credentials.clone()),
            clients: Clients::new(limits.clone()),
            permits: Semaphore::new(limits.parallel.max(1)),
            endpoint,
            limits,
            base: OnceCell::new(),
            paused_until: Mutex::default(),
        }
    }

    pub(crate) fn attempts(&self) -> Attempts<'_> {
        Attempts { host: self, n_failed: 0, pause: self.limits.first_pause }
    }

    /// Returns the address of `path` below `/v2/`, after finding out whether the registry speaks HTTPS.
    pub(crate) async fn url(&self, path: &str) -> Result<Url> {
        let base = self.base.get_or_try_init(|| self.find_base()).await?;
        let url = base.join(&format!("v2/{path}"));
        let mut url = url.map_err(|error| self.setup(&error.to_string()))?;
        if let Some(registry) = &self.endpoint.mirror_of {
            url.query_pairs_mut().append_pair("ns", registry);
        }
        Ok(url)
    }

    /// Sends `request` as often as it takes. Returns a response with any status but 401, 403, 408, 429 and 5xx.
    pub(crate) async fn send(&self, request: &Request, scope: &Scope) -> Result<Response> {
        let mut attempts = self.attempts();
        loop {
            match self.authorized(request, scope).await {
                Ok(response) => return Ok(response),
                Err(error) => attempts.after(error).await?,
            }
        }
    }

    /// Sends `request` as often as it takes to also read the answer, which may have `limit` bytes.
    pub(crate) async fn fetch(
        &self,
        request: &Request,
        scope: &Scope,
        limit: u64,
    ) -> Result<(StatusCode, HeaderMap, Vec<u8>)> {
        let mut attempts = self.attempts();
        loop {
            let outcome = async {
                let response = self.authorized(request, scope).await?;
                let (status, headers) = (response.status(), response.headers().clone());
                let limit = if status.is_success() { limit } else { self.limits.answer_bytes };
                let body = read_body(response, limit, &request.shown()).await?;
                Ok((status, headers, body))
            };
            match outcome.await {
                Ok(answer) => return Ok(answer),
                Err(error) => attempts.after(error).await?,
            }
        }
    }

    /// Sends `request` once, and again with a credential if the registry wants one.
    pub(crate) async fn authorized(&self, request: &Request, scope: &Scope) -> Result<Response> {
        let mut grant = self.authorizer.known(scope).await;
        loop {
            let (response, at_home) = self.follow(request, grant.as_ref()).await?;
            let status = response.status();
            let may_ask = status == StatusCode::UNAUTHORIZED
                && at_home
                && !grant.as_ref().is_some_and(|it| it.fresh);
            if may_ask {
                let challenges = response.headers().clone();
                if let Some(next) =
                    self.authorizer.answer(self, &challenges, scope, grant.as_ref()).await?
                {
                    grant = Some(next);
                    continue;
                }
            }
            if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
                let reason = self.denial(response).await;
                return Err(Error::Unauthorized {
                    address: self.endpoint.credentials.clone(),
                    reason,
                });
            }
            return Ok(response);
        }
    }

    /// Sends a streamed `body` once, without following redirects or asking for credentials.
    pub(crate) async fn upload(
        &self,
        request: &Request,
        scope: &Scope,
        body: Body,
    ) -> Result<Response> {
        let grant = self.authorizer.known(scope).await.filter(|_| self.is_home(&request.url));
        let client = self.clients.get(&self.endpoint, &request.url, true)?;
        let mut builder = client
            .request(request.method.clone(), request.url.clone())
            .headers(request.headers.clone());
        if let Some(grant) = grant {
            builder = builder.header(AUTHORIZATION, grant.header);
        }
        let response = builder.body(body).send().await;
        self.judge(request, &request.url, response).await
    }

    /// Follows the redirects of a reading request. Also says whether the response is the registry's own.
    pub(crate) async fn follow(
        &self,
        request: &Request,
        grant: Option<&Grant>,
    ) -> Result<(Response, bool)> {
        let mut url = request.url.clone();
        let mut at_home = self.is_home(&url) || grant.is_some_and(|it| it.for_token_server);
        for _ in 0..=MAX_REDIRECTS {
            let grant = grant.filter(|_| at_home);
            let response = self.exchange(request, &url, grant).await?;
            let reads = request.method == Method::GET || request.method == Method::HEAD;
            if !reads || !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok((response, at_home));
            }
            let next = self.target(&url, response.headers())?;
            // Once away from the registry, no way back to its credential: the detour chose where it leads.
            at_home = at_home && next.origin() == url.origin();
            url = next;
        }
        Err(Error::Protocol {
            request: request.shown(),
            problem: format!("more than {MAX_REDIRECTS} redirects"),
        })
    }

    /// Reads where a response from `from` points to, and refuses what leads to less security than there was.
    pub(crate) fn target(&self, from: &Url, headers: &HeaderMap) -> Result<Url> {
        let location = headers.get(LOCATION).and_then(|it| it.to_str().ok());
        let problem =
            |problem: &str| Error::Protocol { request: shown(from), problem: problem.to_owned() };
        let location = location.ok_or_else(|| problem("a redirect without address"))?;
        let mut to = from.join(location).map_err(|_| problem("an address that is none"))?;
        let _ = to.set_username("");
        let _ = to.set_password(None);
        self.check_target(from, &to)?;
        Ok(to)
    }

    fn check_target(&self, from: &Url, to: &Url) -> Result<()> {
        let refused = |problem| Err(Error::Refused { from: address(from), to: shown(to), problem });
        let host = |url: &Url| host_name(url.host_str().unwrap_or_default()).to_owned();
        match to.scheme() {
            "https" => {}
            "http" if from.scheme() == "http" => {}
            "http" => return refused("the connection would no longer be encrypted"),
            _ => return refused("it is neither HTTP nor HTTPS"),
        }
        if from.scheme() == "https"
            && is_private(&host(to))
            && host(to) != host(from)
            && !is_private(&host(from))
        {
            return refused("it is an address of a private network");
        }
        Ok(())
    }

    /// Sends `request` to `url` once.
    async fn exchange(
        &self,
        request: &Request,
        url: &Url,
        grant: Option<&Grant>,
    ) -> Result<Response> {
        let pause = *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = pause {
            tokio::time::sleep_until(until.into()).await;
        }
        let client = self.clients.get(&self.endpoint, url, false)?;
        let mut builder =
            client.request(request.method.clone(), url.clone()).headers(request.headers.clone());
        if let Some(grant) = grant {
            builder = builder.header(AUTHORIZATION, grant.header.clone());
        }
        if !request.body.is_empty() {
            builder = builder.body(request.body.clone());
        }
        self.judge(request, url, builder.send().await).await
    }

    /// Turns failures that may pass, and those of the connection, into errors.
    async fn judge(
        &self,
        request: &Request,
        url: &Url,
        response: reqwest::Result<Response>,
    ) -> Result<Response> {
        let response = response.map_err(|error| connection_error(request, url, error))?;
        let status = response.status();
        if status == StatusCode::TOO_MANY_REQUESTS {
            let retry_after = answer::retry_after(response.headers(), SystemTime::now());
            let message = read_message(response, self.limits.answer_bytes).await;
            return Err(Error::RateLimited { address: address(url), message, retry_after });
        }
        if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT {
            let message = read_message(response, self.limits.answer_bytes).await;
            let request = format!("{} request to `{}`", request.method, shown(url));
            return Err(Error::Status { request, status, message });
        }
        Ok(response)
    }

    /// Returns the words of a refusal.
    async fn denial(&self, response: Response) -> String {
        let status = response.status();
        let mut reason = read_message(response, self.limits.answer_bytes).await;
        if reason.is_empty() {
            reason = status.canonical_reason().unwrap_or("no reason given").to_lowercase();
        }
        if let Some(note) = self.authorizer.note() {
            reason = format!("{reason} ({note})");
        }
        reason
    }

    /// Finds out whether to speak HTTPS.
    async fn find_base(&self) -> Result<Url> {
        let base = |scheme: &str| {
            let url = Url::parse(&format!("{scheme}://{}/", self.endpoint.host));
            url.map_err(|error| self.setup(&error.to_string()))
        };
        match self.endpoint.transport {
            Transport::Https | Transport::HttpsUnchecked => base("https"),
            Transport::Http => base("http"),
            Transport::HttpsUncheckedOrHttp => {
                let url = base("https")?;
                match self.probe(&url).await {
                    Ok(_) => Ok(url),
                    Err(_) => base("http"),
                }
            }
            Transport::Loopback => {
                let url = base("http")?;
                match self.probe(&url).await {
                    // What Go and nginx say to someone who speaks plain HTTP to their HTTPS port.
                    Ok(response) if response.status() == StatusCode::BAD_REQUEST => base("https"),
                    Ok(_) => Ok(url),
                    Err(error @ Error::Unreachable { .. }) => Err(error),
                    Err(_) => base("https"),
                }
            }
        }
    }

    async fn probe(&self, base: &Url) -> Result<Response> {
        let url = base.join("v2/").map_err(|error| self.setup(&error.to_string()))?;
        let client = self.clients.get(&self.endpoint, &url, false)?;
        let request = Request::new(Method::GET, url.clone());
        client
            .get(url.clone())
            .send()
            .await
            .map_err(|error| connection_error(&request, &url, error))
    }

    fn is_home(&self, url: &Url) -> bool {
        self.base.get().is_some_and(|base| base.origin() == url.origin())
    }

    fn pause(&self, pause: Duration) {
        let until = Instant::now() + pause;
        let mut paused = self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        *paused = Some(paused.map_or(until, |it| it.max(until)));
    }

    fn setup(&self, problem: &str) -> Error {
        Error::Setup { address: self.endpoint.host.clone(), problem: problem.to_owned() }
    }
}

/// Tells the ways apart in which a request got no answer.
fn connection_error(request: &Request, url: &Url, error: reqwest::Error) -> Error {
    let error = error.without_url();
    let causes = causes(&error);
    let address = address(url);
    let source = Box::new(error);
    if causes.contains("certificate") {
        return Error::Untrusted { address, source };
    }
    if causes.contains("corrupt message") {
        return Error::PlainHttp { address, source };
    }
    if source.is_connect() {
        return Error::Unreachable { address, source };
    }
    Error::Interrupted {
        request: format!("{} request to `{}`", request.method, shown(url)),
        source,
    }
}
