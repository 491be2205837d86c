//! Answers the challenges of one registry, and remembers the answers.
//!
//! A credential leaves here in two ways only: as basic authorization to the registry itself, and to the token server that the
//! registry names, provided that [`check_realm`] has nothing against it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex as StdMutex, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{
    Method, StatusCode, Url,
    header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE},
};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;

use super::{
    Credential, Credentials,
    challenge::{Challenge, Scope},
};
use crate::{
    config::{host_name, is_private},
    error::{Error, Result},
    http::{Host, Request, address, message, read_body, shown},
};

/// The life of a token that does not tell, and the shortest.
const SHORTEST_LIFE: u64 = 60;
/// The longest life that is believed.
const LONGEST_LIFE: u64 = 24 * 60 * 60;

/// An `Authorization` header.
#[derive(Clone)]
pub(crate) struct Grant {
    pub(crate) header: HeaderValue,
    /// It was got for this very request, so that there is no use in trying again.
    pub(crate) fresh: bool,
    /// It goes to the token server rather than to the registry.
    pub(crate) for_token_server: bool,
}

/// Knows how to be let in by one registry.
pub(crate) struct Authorizer {
    credentials: Arc<Credentials>,
    /// The name of the registry among the credentials.
    name: String,
    /// Locked while a token is fetched, so that many requests at once fetch one.
    known: Mutex<Known>,
    /// Why stored credentials could not be read.
    note: StdMutex<Option<String>>,
}

#[derive(Default)]
struct Known {
    basic: Option<HeaderValue>,
    tokens: BTreeMap<Scope, (HeaderValue, Instant)>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<Value>,
}

impl Authorizer {
    pub(crate) fn new(credentials: Arc<Credentials>, name: String) -> Self {
        Self { credentials, name, known: Mutex::default(), note: StdMutex::default() }
    }

    /// Returns what let us in before.
    pub(crate) async fn known(&self, scope: &Scope) -> Option<Grant> {
        let known = self.known.lock().await;
        known.get(scope).map(|header| Grant { header, fresh: false, for_token_server: false })
    }

    /// Returns why stored credentials could not be read.
    pub(crate) fn note(&self) -> Option<String> {
        self.note.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Answers the challenge in `headers` after `failed` did not do; nothing if there is no answer.
    pub(crate) async fn answer(
        &self,
        host: &Host,
        headers: &HeaderMap,
        scope: &Scope,
        failed: Option<&Grant>,
    ) -> Result<Option<Grant>> {
        let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|it| it.to_str().ok());
        let Some(challenge) = Challenge::parse(values) else { return Ok(None) };
        let mut known = self.known.lock().await;
        if let Some(header) = known.get(scope)
            && failed.is_none_or(|it| it.header != header)
        {
            return Ok(Some(Grant { header, fresh: false, for_token_server: false })); // Another request was quicker.
        }
        let repository = scope
            .items()
            .first()
            .and_then(|it| it.split(':').nth(1))
            .unwrap_or_default()
            .to_owned();
        let credential = self.credential(repository).await?;
        let header = match (challenge, credential) {
            (Challenge::Basic, Some(Credential::Password { username, password })) => {
                let header = basic(&username, &password);
                known.basic = Some(header.clone());
                header
            }
            (Challenge::Basic, _) => return Ok(None),
            (_, Some(Credential::RegistryToken(token))) => {
                let header = bearer(&token, &self.name)?;
                let until = Instant::now() + Duration::from_secs(SHORTEST_LIFE);
                known.tokens.insert(scope.clone(), (header.clone(), until));
                header
            }
            (Challenge::Bearer { realm, service, scope: asked }, credential) => {
                let wanted = scope.union(&asked);
                let (header, until) =
                    self.fetch(host, &realm, &service, &wanted, credential).await?;
                known.tokens.insert(scope.clone(), (header.clone(), until));
                header
            }
        };
        Ok(Some(Grant { header, fresh: true, for_token_server: false }))
    }

    /// Looks the credential up. A helper that does not work is noted only: many images need no credential.
    async fn credential(&self, repository: String) -> Result<Option<Credential>> {
        let (credentials, name) = (Arc::clone(&self.credentials), self.name.clone());
        let found =
            tokio::task::spawn_blocking(move || credentials.lookup(&name, &repository)).await;
        match found {
            Ok(Ok(credential)) => Ok(credential),
            Ok(Err(error)) => {
                let mut text = error.to_string();
                if let Some(source) = std::error::Error::source(&error) {
                    text = format!("{text}: {source}");
                }
                *self.note.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
                Ok(None)
            }
            Err(_) => Ok(None),
        }
    }

    /// Gets a token from the token server.
    async fn fetch(
        &self,
        host: &Host,
        realm: &str,
        service: &str,
        scope: &Scope,
        credential: Option<Credential>,
    ) -> Result<(HeaderValue, Instant)> {
        let no_url = || Error::Protocol {
            request: host.endpoint.host.clone(),
            problem: "an authentication challenge without the address of a token server".to_owned(),
        };
        let mut url = Url::parse(realm).map_err(|_| no_url())?;
        check_realm(&host.url("").await?, &url)?;
        let _ = url.set_username("");
        let _ = url.set_password(None);

        let mut grant = None;
        let request = match credential {
            Some(Credential::IdentityToken(refresh_token)) => {
                let scope = scope.items().join(" ");
                let fields = [
                    ("grant_type", "refresh_token"),
                    ("service", service),
                    ("client_id", "kiln"),
                    ("scope", &scope),
                    ("refresh_token", &refresh_token),
                ];
                let body = form(&fields).into_bytes();
                Request::new(Method::POST, url).body("application/x-www-form-urlencoded", body)
            }
            other => {
                if let Some(Credential::Password { username, password }) = &other {
                    url.query_pairs_mut().append_pair("account", username);
                    let header = basic(username, password);
                    grant = Some(Grant { header, fresh: true, for_token_server: true });
                }
                if !service.is_empty() {
                    url.query_pairs_mut().append_pair("service", service);
                }
                for item in scope.items() {
                    url.query_pairs_mut().append_pair("scope", &item);
                }
                Request::new(Method::GET, url)
            }
        };
        let mut attempts = host.attempts();
        let asked_at = Instant::now();
        let answer = loop {
            match self.ask(host, &request, grant.as_ref()).await {
                Ok(answer) => break answer,
                Err(error) => attempts.after(error).await?,
            }
        };
        let token =
            answer.token.or(answer.access_token).filter(|it| !it.is_empty()).ok_or_else(|| {
                Error::Protocol { request: request.shown(), problem: "no token".to_owned() }
            })?;
        let life = answer
            .expires_in
            .as_ref()
            .and_then(Value::as_u64)
            .unwrap_or(0)
            .clamp(SHORTEST_LIFE, LONGEST_LIFE);
        // Nine tenths of it, so that it does not die on the way.
        let until = asked_at + Duration::from_secs(life) * 9 / 10;
        Ok((bearer(&token, &address(&request.url))?, until))
    }

    async fn ask(
        &self,
        host: &Host,
        request: &Request,
        grant: Option<&Grant>,
    ) -> Result<TokenAnswer> {
        let (response, _) = host.follow(request, grant).await?;
        let status = response.status();
        let body = read_body(response, host.limits.answer_bytes, &request.shown()).await?;
        if !status.is_success() {
            let mut reason = message(&body);
            if reason.is_empty() {
                reason = status.to_string();
            }
            if matches!(
                status,
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST
            ) {
                if let Some(note) = self.note() {
                    reason = format!("{reason} ({note})");
                }
                return Err(Error::Unauthorized { address: self.name.clone(), reason });
            }
            return Err(Error::Status { request: request.shown(), status, message: reason });
        }
        // The source of the error would quote the token.
        serde_json::from_slice(&body).map_err(|_| Error::Protocol {
            request: request.shown(),
            problem: "something that is not a token document".to_owned(),
        })
    }
}

impl Known {
    fn get(&self, scope: &Scope) -> Option<HeaderValue> {
        let now = Instant::now();
        let token = self
            .tokens
            .get(scope)
            .filter(|(_, until)| *until > now)
            .map(|(header, _)| header.clone());
        token.or_else(|| self.basic.clone())
    }
}

/// Refuses token servers that a registry has no business to name: less secure than itself, or on a private address that is
/// not its own. A registry could otherwise have passwords sent in the clear, or to a neighbour.
fn check_realm(registry: &Url, realm: &Url) -> Result<()> {
    let refused =
        |problem| Err(Error::Refused { from: address(registry), to: shown(realm), problem });
    match realm.scheme() {
        "https" => {}
        "http" if registry.scheme() == "http" => {}
        "http" => return refused("a token server must be asked over HTTPS"),
        _ => return refused("it is neither HTTP nor HTTPS"),
    }
    let name = host_name(realm.host_str().unwrap_or_default());
    let same = realm.host_str() == registry.host_str()
        && realm.port_or_known_default() == registry.port_or_known_default();
    if is_private(name) && !same {
        return refused("a token server at a private address must be the registry itself");
    }
    Ok(())
}

fn basic(username: &str, password: &str) -> HeaderValue {
    let text = format!("Basic {}", STANDARD.encode(format!("{username}:{password}")));
    let mut header = HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""));
    header.set_sensitive(true);
    header
}

fn bearer(token: &str, from: &str) -> Result<HeaderValue> {
    let mut header =
        HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| Error::Protocol {
            request: format!("`{from}`"),
            problem: "a token that cannot be sent".to_owned(),
        })?;
    header.set_sensitive(true);
    Ok(header)
}

/// Encodes `fields` as a form.
fn form(fields: &[(&str, &str)]) -> String {
    let Ok(mut url) = Url::parse("form://form/") else { return String::new() };
    url.query_pairs_mut().extend_pairs(fields);
    url.query().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn realms_are_checked() {
        let cases = [
            ("https://registry.example", "https://auth.example/token", true),
            ("https://registry.example", "http://auth.example/token", false),
            ("https://registry.example", "http://registry.example/token", false),
            ("https://registry.example", "https://10.0.0.1/token", false),
            ("https://registry.example", "https://[::1]/token", false),
            ("https://registry.example", "file:///etc/passwd", false),
            ("http://registry.example", "http://auth.example/token", true),
            ("http://127.0.0.1:5000", "http://127.0.0.1:5000/token", true),
            ("http://127.0.0.1:5000", "http://127.0.0.1:5001/token", false),
            ("http://127.0.0.1:5000", "http://127.0.0.2:5000/token", false),
        ];
        for (registry, realm, allowed) in cases {
            let url = |text: &str| Url::parse(text).expect("it is a URL");
            assert_eq!(
                check_realm(&url(registry), &url(realm)).is_ok(),
                allowed,
                "{registry} → {realm}"
            );
        }
    }

    #[test]
    fn forms_are_encoded() {
        assert_eq!(form(&[("a", "b c&d"), ("e", "+")]), "a=b+c%26d&e=%2B");
    }
}
