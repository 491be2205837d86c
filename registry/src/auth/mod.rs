//! Whose password goes where.
//!
//! Credentials are those that Docker and Podman store: `config.json` with its helper programs, `auth.json` after it. They are read when
//! a registry asks for them and not before.
//!
//! 1. [`Credentials`] — looks up, stores and erases.
//! 2. `file` — the format of the files.
//! 3. `helper` — the programs that keep passwords elsewhere.
//! 4. `challenge`, `token` — what registries ask, and how it is answered.

pub(crate) mod challenge;
mod file;
mod helper;
pub(crate) mod token;

use std::{ffi::OsString, fmt, path::PathBuf};

pub(crate) use self::file::domain_of;
use self::file::{CredentialFile, server_key};
use crate::error::{Error, Result};

/// What proves who we are.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A user name and a password or access token.
    Password {
        /// The user.
        username: String,
        /// The password.
        password: String,
    },
    /// A refresh token for the token server.
    IdentityToken(String),
    /// A bearer token for the registry itself.
    RegistryToken(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { username, .. } => write!(f, "Password({username:?}, …)"),
            Self::IdentityToken(_) => f.write_str("IdentityToken(…)"),
            Self::RegistryToken(_) => f.write_str("RegistryToken(…)"),
        }
    }
}

/// Where credentials are looked up, in this order: given ones, `DOCKER_AUTH_CONFIG`, Docker's file, Podman's files.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    given: Vec<(String, Credential)>,
    /// The content of a file in Docker's format, from the environment.
    text: Option<String>,
    /// The file that `login` writes.
    docker: Option<PathBuf>,
    /// Files that are only read.
    podman: Vec<PathBuf>,
}

/// Where [`Credentials::store`] put a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The file that was changed.
    pub file: PathBuf,
    /// The helper program that keeps the secret; without one it is in the file, readable to who can read that.
    pub helper: Option<String>,
}

impl Credentials {
    /// No credentials.
    pub fn none() -> Self {
        Self::default()
    }

    /// Credentials of the user whose environment `variable` reads.
    ///
    /// # Examples
    ///
    /// ```
    /// let credentials = registry::Credentials::from_environment(|name| std::env::var_os(name));
    /// # drop(credentials);
    /// ```
    pub fn from_environment(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let folder = |name: &str| variable(name).filter(|it| !it.is_empty()).map(PathBuf::from);
        let home = folder("HOME");
        let docker = folder("DOCKER_CONFIG").or_else(|| home.as_ref().map(|it| it.join(".docker")));
        let config = folder("XDG_CONFIG_HOME").or_else(|| home.map(|it| it.join(".config")));
        let podman = [
            folder("REGISTRY_AUTH_FILE"),
            folder("XDG_RUNTIME_DIR").map(|it| it.join("containers/auth.json")),
            config.map(|it| it.join("containers/auth.json")),
        ];
        Self {
            given: Vec::new(),
            text: variable("DOCKER_AUTH_CONFIG")
                .and_then(|it| it.into_string().ok())
                .filter(|it| !it.is_empty()),
            docker: docker.map(|it| it.join("config.json")),
            podman: podman.into_iter().flatten().collect(),
        }
    }

    /// Credentials in the `config.json` of `folder` only.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self { docker: Some(folder.into().join("config.json")), ..Self::default() }
    }

    /// Returns these credentials with one more, that goes before all others.
    pub fn with(mut self, registry: &str, credential: Credential) -> Self {
        self.given.insert(0, (domain_of(registry).to_owned(), credential));
        self
    }

    /// Finds the credential for a repository of a registry. May run a helper program, so it may take its time.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, or a helper fails other than by not knowing the registry.
    pub fn lookup(&self, registry: &str, repository: &str) -> Result<Option<Credential>> {
        let domain = domain_of(registry);
        if let Some((_, credential)) = self.given.iter().find(|(it, _)| it == domain) {
            return Ok(Some(credential.clone()));
        }
        if let Some(text) = &self.text {
            let file = CredentialFile::parse(PathBuf::from("DOCKER_AUTH_CONFIG"), text.as_bytes())?;
            if let Some(credential) = file.stored(domain, repository)? {
                return Ok(Some(credential));
            }
        }
        for path in self.docker.iter().chain(&self.podman) {
            let file = CredentialFile::read(path)?;
            if let Some(program) = file.helper(domain)
                && let Some(credential) = helper::get(&program, &server_key(domain))?
            {
                return Ok(Some(credential));
            }
            if let Some(credential) = file.stored(domain, repository)? {
                return Ok(Some(credential));
            }
        }
        Ok(None)
    }

    /// Keeps a credential for a registry, as `docker login` does: with the helper program if one is configured, or else in
    /// `config.json`, which only the user can read.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or written, or the helper fails.
    pub fn store(&self, registry: &str, credential: &Credential) -> Result<Stored> {
        let domain = domain_of(registry);
        let mut file = CredentialFile::read(self.writable()?)?;
        let helper = file.helper(domain);
        match &helper {
            Some(program) => {
                helper::store(program, &server_key(domain), credential)?;
                file.set(domain, None);
            }
            None => file.set(domain, Some(credential)),
        }
        file.write()?;
        Ok(Stored { file: file.path().to_owned(), helper })
    }

    /// Forgets the credential of a registry, and says whether there was one.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or written, or the helper fails.
    pub fn erase(&self, registry: &str) -> Result<bool> {
        let domain = domain_of(registry);
        let mut file = CredentialFile::read(self.writable()?)?;
        if let Some(program) = file.helper(domain) {
            helper::erase(&program, &server_key(domain))?;
        }
        let was_there = file.remove(domain);
        if was_there {
            file.write()?;
        }
        Ok(was_there)
    }

    fn writable(&self) -> Result<&PathBuf> {
        self.docker.as_ref().ok_or_else(|| Error::BadFile {
            path: PathBuf::from("config.json"),
            problem: "has no place, since neither DOCKER_CONFIG nor HOME is set".to_owned(),
        })
    }
}
