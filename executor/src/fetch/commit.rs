//! Which commit is meant: what the address says, checked, and what the server makes of it.

use std::ffi::OsStr;

use cache::StepKey;
use planner::{
    git_url::{GitUrl, Mtime},
    plan::GitSource,
};
use serde_json::Value;

use super::{
    COMMIT,
    program::{Program, args},
    redacted,
};
use crate::{error::ExecutorError, key::KeyBuilder};

/// What is wanted, with all defaults filled in.
pub(super) struct Source {
    pub(super) remote: String,
    pub(super) scheme: String,
    pub(super) host: String,
    pub(super) reference: String,
    pub(super) checksum: String,
    pub(super) subdir: String,
    pub(super) keep_git_dir: bool,
    pub(super) submodules: bool,
    pub(super) fetch_by_commit: bool,
    pub(super) mtime: Mtime,
}

impl Source {
    pub(super) fn new(git: &GitSource) -> Self {
        let url = &git.url;
        let remote =
            if url.like_local { format!("https://{}", url.remote) } else { url.remote.clone() };
        let (scheme, host) = match GitUrl::parse(&remote) {
            Ok(parsed) => (parsed.scheme, parsed.host),
            Err(_) => (String::new(), String::new()),
        };
        Self {
            scheme,
            host,
            remote,
            reference: url.reference.clone(),
            checksum: git.checksum.clone().unwrap_or_default().to_ascii_lowercase(),
            subdir: url.subdir.trim_matches('/').to_owned(),
            keep_git_dir: git.keep_git_dir,
            submodules: url.submodules.unwrap_or(true),
            fetch_by_commit: url.fetch_by_commit,
            mtime: url.mtime.unwrap_or(Mtime::Commit),
        }
    }

    fn error(&self, message: String) -> ExecutorError {
        ExecutorError::Git { url: redacted(&self.remote), message }
    }

    /// Refuses what git would take for something else than it is.
    pub(super) fn check(&self) -> Result<(), ExecutorError> {
        if !matches!(self.scheme.as_str(), "http" | "https" | "ssh" | "git")
            || self.host.starts_with('-')
            || self.remote.starts_with('-')
            || self.remote.contains(char::is_control)
        {
            return Err(self.error("it is no address of a repository".to_owned()));
        }
        if !self.reference.is_empty() && !is_reference(&self.reference) {
            return Err(self
                .error(format!("`{}` is no name of a branch, a tag or a commit", self.reference)));
        }
        if !self.checksum.bytes().all(|it| it.is_ascii_hexdigit()) {
            return Err(self.error(format!(
                "`{}` is no checksum: that of a commit has hexadecimal digits",
                self.checksum
            )));
        }
        if self.fetch_by_commit && !is_commit(&self.checksum) && !is_commit(&self.reference) {
            return Err(
                self.error("fetch-by-commit needs the whole checksum of a commit".to_owned())
            );
        }
        if self.subdir.split('/').any(|it| it == "..") {
            return Err(self.error(format!("`{}` leads out of the repository", self.subdir)));
        }
        if is_commit(&self.reference) && !self.reference.starts_with(&self.checksum) {
            return Err(self.mismatch(&self.reference));
        }
        Ok(())
    }

    fn mismatch(&self, found: &str) -> ExecutorError {
        ExecutorError::ChecksumMismatch {
            url: redacted(&self.remote),
            expected: self.checksum.clone(),
            found: found.to_owned(),
        }
    }

    /// The key of the result, where it is known without asking the server.
    pub(super) fn sure_key(&self) -> Option<(StepKey, Value)> {
        if is_commit(&self.reference) {
            return Some(self.key(&self.reference, &self.reference).finish());
        }
        let mut key = self.key(&self.checksum, &self.reference);
        key.text("checked", &self.reference);
        is_commit(&self.checksum).then(|| key.finish())
    }

    /// Whether `.git` comes along; a part of a repository is none.
    pub(super) fn keeps_git(&self) -> bool {
        self.keep_git_dir && matches!(self.subdir.as_str(), "" | ".")
    }

    /// What tells the result from others: the tag itself where it is kept, else the commit.
    pub(super) fn identity<'a>(&self, found: &'a Commit) -> &'a str {
        match &found.peeled {
            Some(peeled) if !self.keeps_git() => peeled,
            _ => &found.sha,
        }
    }

    pub(super) fn key(&self, sha: &str, asked: &str) -> KeyBuilder {
        let mut key = KeyBuilder::new("git");
        key.raw("address", self.remote.as_bytes());
        key.text("url", &redacted(&self.remote));
        key.text(COMMIT, sha);
        key.text("subdir", &self.subdir);
        key.text("git dir", if self.keeps_git() { asked } else { "" });
        key.text("keep", if self.keeps_git() { "yes" } else { "no" });
        key.text("submodules", if self.submodules { "yes" } else { "no" });
        key.text("mtime", if self.mtime == Mtime::Commit { "commit" } else { "checkout" });
        key
    }
}

/// What a name stands for.
pub(super) struct Commit {
    /// The name as asked for, or the default branch.
    pub(super) asked: String,
    /// The whole reference, or the commit itself if it was asked for.
    pub(super) name: String,
    /// The commit, or the tag with a message.
    pub(super) sha: String,
    /// The commit behind such a tag.
    pub(super) peeled: Option<String>,
}

/// Finds the commit.
pub(super) fn resolve(program: &Program<'_>, source: &Source) -> Result<Commit, ExecutorError> {
    let mut asked = source.reference.clone();
    if is_commit(&asked) {
        return Ok(Commit { name: asked.clone(), sha: asked.clone(), asked, peeled: None });
    }
    if source.fetch_by_commit {
        let sha = source.checksum.clone();
        let name = match asked.as_str() {
            "" => sha.clone(),
            it if it.starts_with("refs/") => it.to_owned(),
            it => format!("refs/heads/{it}"),
        };
        return Ok(Commit { asked, name, sha, peeled: None });
    }
    if asked.is_empty() {
        asked = default_branch(program)?;
    }
    let peeled_name = format!("{asked}^{{}}");
    let output = program.run(None, args!["ls-remote", "--", "origin", &asked, &peeled_name])?;
    let output = String::from_utf8_lossy(&output);
    let sha_of = |name: &str| {
        let mut lines = output.lines().filter_map(|it| it.split_once('\t'));
        lines.find(|(sha, it)| *it == name && is_commit(sha)).map(|(sha, _)| sha.to_owned())
    };
    let short = asked.strip_prefix("refs/").unwrap_or(&asked);
    let head = asked.strip_prefix("refs/heads/").unwrap_or(&asked);
    let tag = asked.strip_prefix("refs/tags/").unwrap_or(&asked);
    // Where a branch and a tag have the same name, git checks the branch out.
    let names = [format!("refs/{short}"), format!("refs/heads/{head}"), format!("refs/tags/{tag}")];
    let found = names.into_iter().find_map(|name| sha_of(&name).map(|sha| (name, sha)));
    let Some((name, sha)) = found else {
        return Err(program.error(&format!("repository does not contain ref {asked}")));
    };
    let peeled = sha_of(&format!("{name}^{{}}"));
    let matches = |it: &str| it.starts_with(&source.checksum);
    if !matches(&sha) && !peeled.as_deref().is_some_and(matches) {
        return Err(source.mismatch(peeled.as_deref().unwrap_or(&sha)));
    }
    Ok(Commit { asked, name, sha, peeled })
}

/// Asks for the branch that is checked out if none is named.
fn default_branch(program: &Program<'_>) -> Result<String, ExecutorError> {
    let output = program.run(None, args!["ls-remote", "--symref", "--", "origin", "HEAD"])?;
    let output = String::from_utf8_lossy(&output);
    let branch =
        output.lines().find_map(|it| it.strip_prefix("ref: refs/heads/")?.strip_suffix("\tHEAD"));
    match branch {
        Some(branch) if is_reference(branch) => Ok(branch.to_owned()),
        _ => Err(program.error("could not find the default branch of the repository")),
    }
}

/// Whether a text is the whole checksum of a commit, SHA-1 or SHA-256.
pub(super) fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a text can be a reference, and cannot be taken for an option, a pattern or a range.
fn is_reference(text: &str) -> bool {
    let is_odd =
        |it: char| it.is_control() || matches!(it, ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\');
    !text.starts_with(['-', '/', '+'])
        && !text.ends_with('/')
        && !text.contains("..")
        && !text.contains("@{")
        && !text.contains("//")
        && !text.contains(is_odd)
        && !text.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_cannot_be_options() {
        for good in ["main", "v1.0", "refs/tags/v1", "feature/x-y", "pull/1/head", "ünicode", "a@b"]
        {
            assert!(is_reference(good), "{good}");
        }
        for bad in [
            "",
            "-x",
            "--upload-pack=sh",
            "a b",
            "a:b",
            "+a",
            "a..b",
            "*",
            "a\nb",
            "HEAD^",
            "@{1}",
            "/a",
            "a//b",
        ] {
            assert!(!is_reference(bad), "{bad}");
        }
        assert!(is_commit("d1500a9f6b22cbc62a65f0949d511eaf725cf1e6"));
        assert!(!is_commit("d1500a9f"));
    }
}
