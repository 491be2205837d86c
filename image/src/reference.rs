//! Names of images: `docker.io/library/busybox:latest@sha256:…`.
//!
//! What people write is short, `busybox`; what registries need is long. Parsing normalises: the domain defaults to
//! `docker.io`, and official images there live below `library/`. No tag is added unless asked for, because
//! `busybox` and `busybox@sha256:…` mean different things with and without one.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Digest, error::ReferenceError};

const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DOMAIN: &str = "index.docker.io";
const OFFICIAL_PREFIX: &str = "library/";
const DEFAULT_TAG: &str = "latest";
const MAX_REPOSITORY_LEN: usize = 255;
const MAX_TAG_LEN: usize = 128;

/// A normalised image reference: the domain and the path are always there.
///
/// [`Display`](fmt::Display) writes the canonical form, which parses to the same value again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRef {
    /// The registry, for example `docker.io` or `127.0.0.1:5000`.
    pub domain: String,
    /// The repository in it, for example `library/busybox`.
    pub path: String,
    /// The tag as written.
    pub tag: Option<String>,
    /// The digest as written.
    pub digest: Option<Digest>,
}

impl ImageRef {
    /// Parses and normalises a reference as a person writes it.
    ///
    /// # Errors
    ///
    /// [`ReferenceError`], also for the bare 64 digits of an image id, and for digests other than SHA-256.
    ///
    /// # Source
    ///
    /// `ParseNormalizedNamed` of the distribution project's reference package.
    ///
    /// # Examples
    ///
    /// ```
    /// # use image::ImageRef;
    /// let name = ImageRef::parse("busybox")?;
    /// assert_eq!(name.to_string(), "docker.io/library/busybox");
    /// assert_eq!(name.with_default_tag().to_string(), "docker.io/library/busybox:latest");
    /// # Ok::<(), image::error::ReferenceError>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.len() == 64 && text.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ReferenceError::ImageId { text: text.to_owned() });
        }
        let format_error = || ReferenceError::Format { text: text.chars().take(500).collect() };

        let (domain, rest) = split_domain(text);
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (rest, None),
        };
        let (name, tag) = match rest.split_once(':') {
            Some((name, tag)) => (name, Some(tag)),
            None => (rest, None),
        };
        if name.bytes().any(|it| it.is_ascii_uppercase()) {
            return Err(ReferenceError::Uppercase { name: name.to_owned() });
        }
        // One element of Docker Hub is an official image; `user/app` and other registries stand as they are.
        let official = domain == DEFAULT_DOMAIN && !name.contains('/');
        let path = format!("{}{name}", if official { OFFICIAL_PREFIX } else { "" });

        if !is_domain(domain) || !path.split('/').all(is_path_component) || !tag.is_none_or(is_tag)
        {
            return Err(format_error());
        }
        let digest = match digest {
            None => None,
            Some(digest) if !has_digest_form(digest) => return Err(format_error()),
            Some(digest) => Some(
                digest
                    .parse()
                    .map_err(|source| ReferenceError::Digest { text: text.to_owned(), source })?,
            ),
        };
        if path.len() > MAX_REPOSITORY_LEN {
            return Err(ReferenceError::TooLong { n_bytes: path.len() });
        }
        Ok(Self { domain: domain.to_owned(), path, tag: tag.map(str::to_owned), digest })
    }

    /// Returns the shortest form that people write: `busybox:1.36` for `docker.io/library/busybox:1.36`.
    pub fn familiar(&self) -> String {
        let name = match self.domain.as_str() {
            DEFAULT_DOMAIN => match self.path.strip_prefix(OFFICIAL_PREFIX) {
                Some(name) if !name.contains('/') => name.to_owned(),
                _ => self.path.clone(),
            },
            _ => self.repository(),
        };
        format!("{name}{}", Suffix(self))
    }

    /// Returns the reference with the tag `latest` if it has neither tag nor digest.
    pub fn with_default_tag(&self) -> Self {
        let mut out = self.clone();
        if out.tag.is_none() && out.digest.is_none() {
            out.tag = Some(DEFAULT_TAG.to_owned());
        }
        out
    }

    /// Returns the reference with this digest in place of its own.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// Returns the name without tag and digest: `docker.io/library/busybox`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// Returns the tag, or `latest` if there is none.
    pub fn tag_or_latest(&self) -> &str {
        self.tag.as_deref().unwrap_or(DEFAULT_TAG)
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.domain, self.path, Suffix(self))
    }
}

/// Writes `:tag@digest`, as far as they are there.
struct Suffix<'a>(&'a ImageRef);

impl fmt::Display for Suffix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(tag) = &self.0.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.0.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for ImageRef {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

impl Serialize for ImageRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ImageRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Takes the registry off the front. What stands before the first slash is one if it could not be a user of Docker Hub:
/// it is `localhost`, has a dot or a colon, or a capital.
fn split_domain(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((LEGACY_DOMAIN, rest)) => (DEFAULT_DOMAIN, rest),
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':'])
                || first.bytes().any(|it| it.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_DOMAIN, text),
    }
}

/// Says whether `text` is `host`, `host:port`, or an IPv6 address in brackets with or without a port.
fn is_domain(text: &str) -> bool {
    let (host_is_good, rest) = match text.strip_prefix('[').and_then(|it| it.split_once(']')) {
        Some((address, rest)) => (
            !address.is_empty() && address.bytes().all(|it| it.is_ascii_hexdigit() || it == b':'),
            rest,
        ),
        None => {
            let end = text.find(':').unwrap_or(text.len());
            (text[..end].split('.').all(is_domain_component), &text[end..])
        }
    };
    let port_is_good = match rest.strip_prefix(':') {
        Some(port) => !port.is_empty() && port.bytes().all(|it| it.is_ascii_digit()),
        None => rest.is_empty(),
    };
    host_is_good && port_is_good
}

fn is_domain_component(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-')
}

/// Says whether `text` is runs of lowercase letters and digits, with `.`, `_`, `__` or any number of `-` between them.
fn is_path_component(text: &str) -> bool {
    let is_alphanumeric = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit();
    let ends_well = |it: Option<&u8>| it.is_some_and(|it| is_alphanumeric(*it));
    let bytes = text.as_bytes();
    ends_well(bytes.first())
        && ends_well(bytes.last())
        && bytes.split(|it| is_alphanumeric(*it)).all(|between| {
            matches!(between, b"" | b"." | b"_" | b"__") || between.iter().all(|it| *it == b'-')
        })
}

fn is_tag(text: &str) -> bool {
    let is_word = |it: u8| it.is_ascii_alphanumeric() || it == b'_';
    text.len() <= MAX_TAG_LEN
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|it| is_word(it) || matches!(it, b'.' | b'-'))
}

/// Says whether `text` looks like a digest of any algorithm, so that an unsupported one is named as such.
fn has_digest_form(text: &str) -> bool {
    text.split_once(':').is_some_and(|(algorithm, hex)| {
        algorithm.bytes().next().is_some_and(|it| it.is_ascii_alphabetic())
            && algorithm.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_+.".contains(&it))
            && hex.len() >= 32
            && hex.bytes().all(|it| it.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_table_does_not_cover() {
        for (text, canonical) in [
            ("[::1]:5000/app", "[::1]:5000/app"),
            ("[fe80::1]/app:x", "[fe80::1]/app:x"),
            ("localhost/app", "localhost/app"),
            ("Foo/app", "Foo/app"),
            ("a--b/c__d.e", "docker.io/a--b/c__d.e"),
        ] {
            assert_eq!(ImageRef::parse(text).map(|it| it.to_string()).as_deref(), Ok(canonical));
        }
        for text in [
            "", "/", "a/", "x.y/", "[::1/app", "[]/app", "a.b:/c", "a.b:x/c", "-a.b/c", "a@",
            "a:b:c", "a@b@c",
        ] {
            assert!(ImageRef::parse(text).is_err(), "{text}");
        }
        assert!(matches!(ImageRef::parse("Busybox"), Err(ReferenceError::Uppercase { .. })));
        let sha512 = format!("busybox@sha512:{}", "0".repeat(128));
        assert!(matches!(ImageRef::parse(&sha512), Err(ReferenceError::Digest { .. })));
    }
}
