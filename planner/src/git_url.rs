//! Addresses of git repositories, as contexts and `ADD` take them.
//!
//! `https://host/repo.git#REF:SUBDIR`, `git@host:repo.git?branch=main`, and for contexts only the old
//! `github.com/owner/repo`. Whether something is a git address at all is decided from its text alone.

use alloc::{borrow::ToOwned, format, string::String, vec::Vec};

use image::percent;

/// The address of a repository, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitUrl {
    /// `http`, `https`, `ssh` or `git`.
    pub scheme: String,
    /// What stands before `@`, for example `git` or `name:password`.
    pub user: Option<String>,
    /// The host, with its port.
    pub host: String,
    /// The path on the host, percent-decoded.
    pub path: String,
    /// What git is given: the address without query and fragment.
    pub remote: String,
    /// `REF:SUBDIR` after `#`; the second is empty where there is none.
    pub fragment: Option<(String, String)>,
    /// Keys and values after `?`.
    pub query: Vec<(String, String)>,
}

/// What to fetch from a repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct GitRef {
    /// What git is given. For `github.com/owner/repo` it has no scheme: `https://` goes before it.
    pub remote: String,
    /// The last part of the path, without `.git`.
    pub short_name: String,
    /// A branch, tag, commit or full reference; empty for the default branch.
    pub reference: String,
    /// The commit that must be found; may be empty.
    pub checksum: String,
    /// A folder in the repository; may be empty.
    pub subdir: String,
    /// `keep-git-dir`.
    pub keep_git_dir: Option<bool>,
    /// `submodules`.
    pub submodules: Option<bool>,
    /// `fetch-by-commit`: ask for the commit of `checksum` itself.
    pub fetch_by_commit: bool,
    /// `mtime`.
    pub mtime: Option<Mtime>,
    /// Written `github.com/owner/repo`, which is also a path: a repository for contexts only.
    pub like_local: bool,
    /// The transport is not encrypted.
    pub unencrypted: bool,
}

/// Which time the files of a checkout get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mtime {
    /// That of the checkout.
    Checkout,
    /// That of the commit.
    Commit,
}

/// A git address that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GitUrlError {
    /// It has no scheme and is not `user@host:path`.
    #[error("unknown protocol")]
    UnknownProtocol,
    /// Its scheme is not one of git's.
    #[error("{scheme}: invalid protocol")]
    InvalidProtocol {
        /// The scheme.
        scheme: String,
    },
    /// It has a `%` that two hexadecimal digits do not follow.
    #[error("invalid URL escape in {part:?}")]
    Escape {
        /// The part with the escape.
        part: String,
    },
    /// A field of `##key=value,…` or a query has no value, or a value where it must have none.
    #[error("query {key:?} has no value")]
    NoValue {
        /// The key.
        key: String,
    },
    /// A key is given twice.
    #[error("query {key:?} has multiple values")]
    Repeated {
        /// The key.
        key: String,
    },
    /// A key is not known.
    #[error("unexpected query {key:?}")]
    UnknownKey {
        /// The key.
        key: String,
    },
    /// A value is not one of those that its key takes.
    #[error("invalid {key} value: {value:?}")]
    InvalidValue {
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
    /// Two parts of the address contradict each other.
    #[error("{key} conflicts: {first:?} vs {second:?}")]
    Conflict {
        /// What they say: `ref` or `subdir`.
        key: &'static str,
        /// The one.
        first: String,
        /// The other.
        second: String,
    },
    /// Both a branch and a tag are given.
    #[error("branch conflicts with tag")]
    BranchAndTag,
    /// `fetch-by-commit` needs to know the commit.
    #[error("fetch-by-commit requires checksum")]
    NoChecksum,
}

impl GitUrl {
    /// Takes an address apart.
    ///
    /// # Errors
    ///
    /// It is no address that git could have, or has a fragment or query that cannot be read.
    pub fn parse(text: &str) -> Result<Self, GitUrlError> {
        let scheme = text
            .split_once("://")
            .filter(|(it, _)| !it.is_empty() && it.chars().all(|ch| ch.is_ascii_alphanumeric()));
        let Some((scheme, rest)) = scheme else {
            return Self::parse_scp(text).ok_or(GitUrlError::UnknownProtocol)?;
        };
        let scheme = scheme.to_ascii_lowercase();
        if !matches!(scheme.as_str(), "http" | "https" | "ssh" | "git") {
            return Err(GitUrlError::InvalidProtocol { scheme });
        }
        let (rest, query, fragment) = split_tail(rest);
        let n_authority = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(n_authority);
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user.to_owned()), host),
            None => (None, authority),
        };
        Ok(Self {
            host: host.to_owned(),
            path: decode(path)?,
            remote: format!("{scheme}://{rest}"),
            fragment: fragment.map(read_fragment).transpose()?.flatten(),
            query: read_query(query)?,
            scheme,
            user,
        })
    }

    /// Takes `user@host:path` apart.
    fn parse_scp(text: &str) -> Option<Result<Self, GitUrlError>> {
        let (user, rest) = text.split_once('@')?;
        let (host, rest) = rest.split_once(':')?;
        let is_plain = |text: &str, more: &str| {
            !text.is_empty()
                && text.chars().all(|it| it.is_ascii_alphanumeric() || more.contains(it))
        };
        if !is_plain(user, "-_") || !is_plain(host, "-.") {
            return None;
        }
        let (path, query, fragment) = split_tail(rest);
        let build = || {
            Ok(Self {
                scheme: "ssh".to_owned(),
                user: Some(user.to_owned()),
                host: host.to_owned(),
                path: path.to_owned(),
                remote: format!("{user}@{host}:{path}"),
                fragment: fragment.map(read_fragment).transpose()?.flatten(),
                query: read_query(query)?,
            })
        };
        Some(build())
    }
}

impl GitRef {
    /// Reads an address, or returns `None` where the text is not one of a git repository.
    ///
    /// # Errors
    ///
    /// It is the address of a repository, and its query or fragment is wrong.
    ///
    /// # Examples
    ///
    /// ```
    /// use planner::git_url::GitRef;
    ///
    /// let git = GitRef::parse("https://example.com/foo.git#v1:docs")?.expect("it ends in .git");
    /// assert_eq!((git.reference.as_str(), git.subdir.as_str()), ("v1", "docs"));
    /// assert_eq!(GitRef::parse("https://example.com/foo.tar")?, None);
    /// # Ok::<(), planner::git_url::GitUrlError>(())
    /// ```
    pub fn parse(text: &str) -> Result<Option<Self>, GitUrlError> {
        if text.starts_with("./") || text.starts_with("../") {
            return Ok(None);
        }
        let like_local = text.starts_with("github.com/");
        let url = if like_local {
            let url = GitUrl::parse(&format!("https://{text}"))?;
            let remote = url.remote.strip_prefix("https://").unwrap_or(&url.remote).to_owned();
            GitUrl { remote, ..url }
        } else {
            match GitUrl::parse(text) {
                Ok(url) => url,
                Err(GitUrlError::UnknownProtocol | GitUrlError::InvalidProtocol { .. }) => {
                    return Ok(None);
                }
                // What is wrong matters only if the rest says that it is for git.
                Err(error) => {
                    let n_bytes = text.find(['?', '#']).unwrap_or(text.len());
                    let is_git = n_bytes < text.len()
                        && matches!(Self::parse(&text[..n_bytes]), Ok(Some(_)));
                    return if is_git { Err(error) } else { Ok(None) };
                }
            }
        };
        let is_http = matches!(url.scheme.as_str(), "http" | "https");
        if is_http && !like_local && !url.path.ends_with(".git") {
            return Ok(None);
        }
        let (reference, subdir) = url.fragment.clone().unwrap_or_default();
        let last = url.remote.rsplit('/').next().unwrap_or_default();
        let mut git = Self {
            short_name: last.strip_suffix(".git").unwrap_or(last).to_owned(),
            reference,
            subdir,
            like_local,
            unencrypted: !like_local && matches!(url.scheme.as_str(), "http" | "git"),
            remote: url.remote,
            ..Self::default()
        };
        git.apply(&url.query)?;
        Ok(Some(git))
    }

    fn apply(&mut self, query: &[(String, String)]) -> Result<(), GitUrlError> {
        let mut tag = None;
        let mut branch = None;
        for (n_before, (key, value)) in query.iter().enumerate() {
            if query.iter().take(n_before).any(|(it, _)| it == key) {
                return Err(GitUrlError::Repeated { key: key.clone() });
            }
            let is_flag = matches!(key.as_str(), "keep-git-dir" | "submodules" | "fetch-by-commit");
            if value.is_empty() && !is_flag {
                return Err(GitUrlError::NoValue { key: key.clone() });
            }
            match key.as_str() {
                "ref" => agree("ref", &mut self.reference, value.clone())?,
                "subdir" => agree("subdir", &mut self.subdir, value.clone())?,
                "tag" => tag = Some(with_prefix("refs/tags/", value)),
                "branch" => branch = Some(with_prefix("refs/heads/", value)),
                "checksum" | "commit" => self.checksum = value.clone(),
                "keep-git-dir" => self.keep_git_dir = Some(flag(key, value)?),
                "submodules" => self.submodules = Some(flag(key, value)?),
                "fetch-by-commit" => self.fetch_by_commit = flag(key, value)?,
                "mtime" => {
                    self.mtime = Some(match value.as_str() {
                        "checkout" => Mtime::Checkout,
                        "commit" => Mtime::Commit,
                        _ => return Err(invalid(key, value)),
                    });
                }
                _ => return Err(GitUrlError::UnknownKey { key: key.clone() }),
            }
        }
        match (tag, branch) {
            (Some(_), Some(_)) => return Err(GitUrlError::BranchAndTag),
            (Some(full), None) | (None, Some(full)) => agree("ref", &mut self.reference, full)?,
            (None, None) => {}
        }
        if self.fetch_by_commit && self.checksum.is_empty() {
            return Err(GitUrlError::NoChecksum);
        }
        if self.reference.is_empty() && !self.fetch_by_commit {
            self.reference.clone_from(&self.checksum);
        }
        Ok(())
    }
}

/// Splits `rest?query#fragment`.
fn split_tail(text: &str) -> (&str, Option<&str>, Option<&str>) {
    let (text, fragment) = match text.split_once('#') {
        Some((text, fragment)) => (text, Some(fragment)),
        None => (text, None),
    };
    match text.split_once('?') {
        Some((text, query)) => (text, Some(query), fragment),
        None => (text, None, fragment),
    }
}

/// Reads `REF:SUBDIR`, or `#ref=REF,subdir=SUBDIR`.
fn read_fragment(text: &str) -> Result<Option<(String, String)>, GitUrlError> {
    let text = decode(text)?;
    if let Some(fields) = text.strip_prefix('#') {
        let mut fragment = (String::new(), String::new());
        let mut commit = None;
        for field in fields.split(',').filter(|it| !it.is_empty()) {
            let (key, value) = field
                .split_once('=')
                .ok_or_else(|| GitUrlError::NoValue { key: field.to_owned() })?;
            match key.to_ascii_lowercase().as_str() {
                "ref" => fragment.0 = value.to_owned(),
                "subdir" => fragment.1 = value.to_owned(),
                "commit" => commit = Some(value.to_owned()),
                _ => return Err(GitUrlError::UnknownKey { key: key.to_owned() }),
            }
        }
        if fragment.0.is_empty() {
            fragment.0 = commit.unwrap_or_default();
        }
        return Ok(Some(fragment));
    }
    if text.is_empty() {
        return Ok(None);
    }
    let (reference, subdir) = text.split_once(':').unwrap_or((&text, ""));
    Ok(Some((reference.to_owned(), subdir.to_owned())))
}

fn read_query(query: Option<&str>) -> Result<Vec<(String, String)>, GitUrlError> {
    query
        .unwrap_or_default()
        .split('&')
        .filter(|it| !it.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(&key.replace('+', " "))?, decode(&value.replace('+', " "))?))
        })
        .collect()
}

/// Resolves `%20` and its kin.
fn decode(text: &str) -> Result<String, GitUrlError> {
    let bytes = percent::decode(text.as_bytes());
    bytes
        .and_then(|it| String::from_utf8(it).ok())
        .ok_or_else(|| GitUrlError::Escape { part: text.to_owned() })
}

fn with_prefix(prefix: &str, value: &str) -> String {
    if value.starts_with(prefix) { value.to_owned() } else { format!("{prefix}{value}") }
}

/// Takes a value unless another one is there.
fn agree(key: &'static str, old: &mut String, new: String) -> Result<(), GitUrlError> {
    if !old.is_empty() && *old != new {
        return Err(GitUrlError::Conflict { key, first: old.clone(), second: new });
    }
    *old = new;
    Ok(())
}

/// Reads a boolean as Go does; nothing means true.
fn flag(key: &str, value: &str) -> Result<bool, GitUrlError> {
    match value {
        "" | "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(invalid(key, value)),
    }
}

fn invalid(key: &str, value: &str) -> GitUrlError {
    GitUrlError::InvalidValue { key: key.to_owned(), value: value.to_owned() }
}
