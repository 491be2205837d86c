//! `~/.docker/config.json`, and Podman's `auth.json`, which is like it.
//!
//! ```json
//! { "auths": { "https://index.docker.io/v1/": { "auth": "BASE64(user:password)" },
//!              "quay.io/team": { "identitytoken": "…" } },
//!   "credHelpers": { "gcr.io": "gcloud" }, "credsStore": "pass" }
//! ```
//!
//! Everything else in the file is kept as it is. The file is replaced in one step and readable to its owner only.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_PAD_INDIFFERENT},
};
use serde_json::{Map, Value, json};

use super::Credential;
use crate::error::{Error, Result};

/// Docker Hub's name in credential files.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// A file with credentials.
#[derive(Debug)]
pub(super) struct CredentialFile {
    path: PathBuf,
    content: Map<String, Value>,
}

impl CredentialFile {
    /// Reads the file; one that is not there is empty.
    pub(super) fn read(path: &Path) -> Result<Self> {
        match fs::read(path) {
            Ok(text) => Self::parse(path.to_owned(), &text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Self { path: path.to_owned(), content: Map::new() })
            }
            Err(source) => Err(Error::File { action: "read", path: path.to_owned(), source }),
        }
    }

    pub(super) fn parse(path: PathBuf, text: &[u8]) -> Result<Self> {
        if text.trim_ascii().is_empty() {
            return Ok(Self { path, content: Map::new() });
        }
        match serde_json::from_slice(text) {
            Ok(content) => Ok(Self { path, content }),
            // Line and column only: the message of the parser could quote a secret.
            Err(error) => {
                let problem =
                    format!("is not valid JSON (line {}, column {})", error.line(), error.column());
                Err(Error::BadFile { path, problem })
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the helper program that keeps the credential of `domain`, without `docker-credential-`.
    pub(super) fn helper(&self, domain: &str) -> Option<String> {
        let helpers = self.content.get("credHelpers").and_then(Value::as_object);
        let own = helpers
            .and_then(|it| it.iter().find(|(key, _)| host_of(key) == domain))
            .map(|(_, value)| value);
        let name = own.or_else(|| self.content.get("credsStore")).and_then(Value::as_str);
        name.filter(|it| !it.is_empty()).map(str::to_owned)
    }

    /// Returns the credential that is in the file itself. Of several entries the one with the longest path wins.
    pub(super) fn stored(&self, domain: &str, repository: &str) -> Result<Option<Credential>> {
        let Some(auths) = self.content.get("auths").and_then(Value::as_object) else {
            return Ok(None);
        };
        let mut scope = format!("{domain}/{repository}");
        loop {
            if let Some(credential) =
                auths.get(&scope).map(|it| self.credential(&scope, it)).transpose()?.flatten()
            {
                return Ok(Some(credential));
            }
            match scope.rfind('/') {
                Some(slash) => scope.truncate(slash),
                None => break,
            }
        }
        let mut entries: Vec<_> =
            auths.iter().filter(|(key, _)| is_server(key) && host_of(key) == domain).collect();
        entries.sort_by_key(|(key, _)| *key != DOCKER_HUB);
        for (key, entry) in entries {
            if let Some(credential) = self.credential(key, entry)? {
                return Ok(Some(credential));
            }
        }
        Ok(None)
    }

    fn credential(&self, key: &str, entry: &Value) -> Result<Option<Credential>> {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).filter(|it| !it.is_empty());
        if let Some(token) = text("identitytoken") {
            return Ok(Some(Credential::IdentityToken(token.to_owned())));
        }
        if let Some(token) = text("registrytoken") {
            return Ok(Some(Credential::RegistryToken(token.to_owned())));
        }
        if let Some(auth) = text("auth") {
            let problem =
                format!("has an `auth` for `{key}` that is not base64 of user and password");
            let invalid = || Error::BadFile { path: self.path.clone(), problem };
            let bytes = STANDARD_PAD_INDIFFERENT.decode(auth.trim()).ok();
            let decoded = bytes.and_then(|it| String::from_utf8(it).ok());
            let Some(decoded) = decoded else { return Err(invalid()) };
            let Some((username, password)) = decoded.split_once(':') else { return Err(invalid()) };
            let password = password.trim_end_matches('\0');
            return Ok(Some(password_or_token(username, password)));
        }
        match (text("username"), text("password")) {
            (Some(username), Some(password)) => Ok(Some(password_or_token(username, password))),
            _ => Ok(None),
        }
    }

    /// Enters a credential, or just the name of a registry whose credential is elsewhere.
    pub(super) fn set(&mut self, domain: &str, credential: Option<&Credential>) {
        let entry = match credential {
            None => json!({}),
            Some(Credential::Password { username, password }) => {
                json!({ "auth": STANDARD.encode(format!("{username}:{password}")) })
            }
            Some(Credential::IdentityToken(token)) => json!({ "identitytoken": token }),
            Some(Credential::RegistryToken(token)) => json!({ "registrytoken": token }),
        };
        self.remove(domain);
        let auths = self.content.entry("auths").or_insert_with(|| json!({}));
        if !auths.is_object() {
            *auths = json!({});
        }
        if let Some(auths) = auths.as_object_mut() {
            auths.insert(server_key(domain), entry);
        }
    }

    /// Removes every entry for `domain` as a whole, and says whether there was one.
    pub(super) fn remove(&mut self, domain: &str) -> bool {
        let Some(auths) = self.content.get_mut("auths").and_then(Value::as_object_mut) else {
            return false;
        };
        let n_before = auths.len();
        auths.retain(|key, _| !(is_server(key) && host_of(key) == domain));
        auths.len() != n_before
    }

    /// Replaces the file.
    pub(super) fn write(&self) -> Result<()> {
        // A link stays one, and what it points to is replaced.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let folder = path.parent().unwrap_or(Path::new("."));
        let error =
            |action, path: &Path, source| Error::File { action, path: path.to_owned(), source };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|source| error("create", folder, source))?;
        let temporary = folder.join(format!(".config.json.{}", std::process::id()));
        let written = self.write_new(&temporary).and_then(|()| fs::rename(&temporary, &path));
        written.map_err(|source| {
            let _ = fs::remove_file(&temporary);
            error("write", &path, source)
        })
    }

    fn write_new(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let mut text = serde_json::to_vec_pretty(&self.content)?;
        text.push(b'\n');
        file.write_all(&text)?;
        file.sync_all()
    }
}

/// A user called `<token>` is how helpers and files say that the password is a refresh token.
pub(super) fn password_or_token(username: &str, password: &str) -> Credential {
    match username {
        "<token>" => Credential::IdentityToken(password.to_owned()),
        _ => Credential::Password { username: username.to_owned(), password: password.to_owned() },
    }
}

/// Returns the name of a registry as image references write it.
pub(crate) fn domain_of(registry: &str) -> &str {
    host_of(registry)
}

/// Returns the name under which a registry's credential is stored.
pub(super) fn server_key(domain: &str) -> String {
    match domain {
        "docker.io" => DOCKER_HUB.to_owned(),
        other => other.to_owned(),
    }
}

/// Returns the registry that a key of the file names: `https://host/v1/` → `host`.
fn host_of(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    match key.split('/').next().unwrap_or(key) {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => "docker.io",
        other => other,
    }
}

/// Says whether a key names a whole registry, as opposed to `quay.io/team`.
fn is_server(key: &str) -> bool {
    let path = key
        .split_once("://")
        .map_or(key, |(_, rest)| rest)
        .split_once('/')
        .map_or("", |(_, path)| path);
    key.contains("://") || matches!(path.trim_end_matches('/'), "" | "v1" | "v2")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file(text: &str) -> CredentialFile {
        CredentialFile::parse(PathBuf::from("config.json"), text.as_bytes())
            .expect("the file is valid")
    }

    fn password(username: &str, password: &str) -> Option<Credential> {
        Some(Credential::Password { username: username.to_owned(), password: password.to_owned() })
    }

    #[test]
    fn all_forms_of_entries_are_read() {
        let file = file(
            r#"{"auths": {
                "https://index.docker.io/v1/": {"auth": "dXNlcjpwYTpzcw=="},
                "quay.io": {"username": "a", "password": "b"},
                "quay.io/team": {"auth": "dGVhbTp4"},
                "https://old.example/v1/": {"auth": "dXNlcjpwYTpzcw"},
                "tokens.example:5000": {"auth": "dXNlcjo=", "identitytoken": "t"},
                "empty.example": {},
                "broken.example": {"auth": "%"}
            }}"#,
        );
        assert_eq!(
            file.stored("docker.io", "library/x").expect("valid"),
            password("user", "pa:ss")
        );
        assert_eq!(file.stored("quay.io", "other/x").expect("valid"), password("a", "b"));
        assert_eq!(file.stored("quay.io", "team/x").expect("valid"), password("team", "x"));
        assert_eq!(file.stored("quay.io", "teams/x").expect("valid"), password("a", "b"));
        assert_eq!(file.stored("old.example", "x").expect("valid"), password("user", "pa:ss"));
        let token = Some(Credential::IdentityToken("t".to_owned()));
        assert_eq!(file.stored("tokens.example:5000", "x").expect("valid"), token);
        assert_eq!(file.stored("empty.example", "x").expect("valid"), None);
        assert_eq!(file.stored("tokens.example", "x").expect("valid"), None);
        let error = file.stored("broken.example", "x").expect_err("it is not base64").to_string();
        assert!(error.contains("broken.example") && error.contains("config.json"), "{error}");
    }

    #[test]
    fn helpers_are_found_by_registry() {
        let file = file(
            r#"{"credHelpers": {"gcr.io": "gcloud", "index.docker.io": "hub"}, "credsStore": "pass"}"#,
        );
        assert_eq!(file.helper("gcr.io").as_deref(), Some("gcloud"));
        assert_eq!(file.helper("docker.io").as_deref(), Some("hub"));
        assert_eq!(file.helper("quay.io").as_deref(), Some("pass"));
    }

    #[test]
    fn writing_keeps_other_keys_and_is_private() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let path = folder.path().join("sub/config.json");
        fs::create_dir(folder.path().join("sub")).expect("a folder can be made");
        fs::write(&path, r#"{"psFormat": "x", "auths": {"docker.io": {"auth": "eDp5"}}}"#)
            .expect("writable");
        let mut file = CredentialFile::read(&path).expect("readable");
        file.set("docker.io", password("me", "secret").as_ref());
        file.write().expect("writable");

        let text = fs::read_to_string(&path).expect("readable");
        let content: Value = serde_json::from_str(&text).expect("valid");
        assert_eq!(
            content,
            json!({"psFormat": "x", "auths": {DOCKER_HUB: {"auth": "bWU6c2VjcmV0"}}})
        );
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().expect("has one")).expect("readable").count(), 1);

        let mut file = CredentialFile::read(&path).expect("readable");
        assert!(file.remove("docker.io"));
        assert!(!file.remove("docker.io"));
    }

    #[test]
    fn broken_files_are_named_without_their_content() {
        let error = CredentialFile::parse(PathBuf::from("/x/config.json"), b"{\"auths\": secret}")
            .expect_err("it is not JSON")
            .to_string();
        assert_eq!(error, "`/x/config.json` is not valid JSON (line 1, column 11)");
    }
}
