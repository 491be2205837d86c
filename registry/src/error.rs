//! Every way in which images fail to get in or out.
//!
//! Messages name the image or the address, never a credential: URLs are shown without user, query and fragment.
//! What to do about it is a separate [`hint`](Error::hint).

use std::{io, path::PathBuf, time::Duration};

use image::Digest;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No registry that was asked has the image.
    #[error("{image}: not found")]
    NotFound {
        /// The image.
        image: String,
        /// What the registry said, for example `manifest unknown`.
        reason: String,
        /// Who was asked, and what came of it where that was something else.
        tried: Vec<String>,
    },
    /// The registry does not let us, or does not say whether the image exists.
    #[error(
        "pull access denied for {image}, repository does not exist or may require authorization: {reason}"
    )]
    PullDenied {
        /// The image.
        image: String,
        /// The registry.
        address: String,
        /// What the registry said.
        reason: String,
    },
    /// The registry does not let us write.
    #[error(
        "push access denied for {image}, repository does not exist or may require authorization: {reason}"
    )]
    PushDenied {
        /// The image.
        image: String,
        /// The registry.
        address: String,
        /// What the registry said.
        reason: String,
    },
    /// User name and password are wrong, or missing.
    #[error("unauthorized: {reason} (`{address}`)")]
    Unauthorized {
        /// The registry, or its token server.
        address: String,
        /// What it said.
        reason: String,
    },
    /// None of several addresses could give the image; the source is the most telling error.
    #[error("{image} cannot be read from its registry or a mirror of it")]
    AllFailed {
        /// The image.
        image: String,
        /// Who was asked, and what came of it.
        tried: Vec<String>,
        /// The error of the one that got furthest.
        source: Box<Error>,
    },
    /// No connection could be made.
    #[error("cannot reach registry `{address}`")]
    Unreachable {
        /// The address.
        address: String,
        /// Why.
        source: Box<reqwest::Error>,
    },
    /// The certificate of the registry is not trusted.
    #[error("the certificate of `{address}` cannot be verified")]
    Untrusted {
        /// The address.
        address: String,
        /// Why.
        source: Box<reqwest::Error>,
    },
    /// The registry speaks plain HTTP where HTTPS was expected.
    #[error("http: server gave HTTP response to HTTPS client: `{address}`")]
    PlainHttp {
        /// The address.
        address: String,
        /// Why.
        source: Box<reqwest::Error>,
    },
    /// An exchange broke off.
    #[error("connection lost during {request}")]
    Interrupted {
        /// Method and address.
        request: String,
        /// Why.
        source: Box<reqwest::Error>,
    },
    /// The registry answered with a status that is not expected here.
    #[error("unexpected status from {request}: {status}{}{message}", if message.is_empty() { "" } else { ": " })]
    Status {
        /// Method and address.
        request: String,
        /// The status, for example `502 Bad Gateway`.
        status: reqwest::StatusCode,
        /// What the registry said.
        message: String,
    },
    /// The registry asks to come back later.
    #[error("toomanyrequests: `{address}` limits requests: {message}")]
    RateLimited {
        /// The address.
        address: String,
        /// What the registry said.
        message: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// The answer breaks the registry protocol.
    #[error("{request} answered with {problem}")]
    Protocol {
        /// Method and address.
        request: String,
        /// What is wrong.
        problem: String,
    },
    /// A redirect, upload address or token server that is not to be followed.
    #[error("`{from}` points to `{to}`, which is refused: {problem}")]
    Refused {
        /// The registry.
        from: String,
        /// Where it points.
        to: String,
        /// Why not.
        problem: &'static str,
    },
    /// The bytes are not those that were asked for.
    #[error("digest mismatch of {what}: expected {expected}, got {found}")]
    DigestMismatch {
        /// What was read.
        what: String,
        /// The digest asked for.
        expected: Digest,
        /// The digest of what came.
        found: Digest,
    },
    /// There are fewer or more bytes than was said.
    #[error("size mismatch of {what}: expected {expected} bytes, got {found}")]
    SizeMismatch {
        /// What was read.
        what: String,
        /// Bytes asked for.
        expected: u64,
        /// Bytes that came; reading stops soon after the expected number.
        found: u64,
    },
    /// A document is larger than it may be.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// The document.
        what: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// A document is no valid JSON, or not what it should be.
    #[error("{what} is not valid")]
    Json {
        /// The document.
        what: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A document is of a kind that cannot be used.
    #[error("{what} {problem}")]
    Document {
        /// The document.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The index has no image for the platform.
    #[error("no match for platform `{platform}` in manifest of {image}: not found")]
    NoPlatform {
        /// The image.
        image: String,
        /// What was asked for.
        platform: String,
        /// What there is.
        available: Vec<String>,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} `{}`", path.display())]
    File {
        /// What was tried: `read`, `write`, …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("`{}` {problem}", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// What is pulled cannot be written, or what is pushed cannot be read.
    #[error("cannot {action} {what}")]
    Local {
        /// `read` or `write`.
        action: &'static str,
        /// The blob or archive.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// An archive is not an image archive, or a broken one.
    #[error("{archive} {problem}")]
    Archive {
        /// The archive.
        archive: String,
        /// What is wrong with it.
        problem: String,
    },
    /// An archive cannot be read or written as a tar.
    #[error("cannot {action} {archive}")]
    Tar {
        /// `read` or `write`.
        action: &'static str,
        /// The archive.
        archive: String,
        /// Why.
        source: image::error::LayerError,
    },
    /// A credential helper failed.
    #[error("credential helper `{program}` failed: {problem}")]
    Helper {
        /// The program.
        program: String,
        /// Its words, or the system's.
        problem: String,
    },
    /// No certificates of the system were found.
    #[error("no certificate authorities found on this system, so `{address}` cannot be verified")]
    NoAuthorities {
        /// The address.
        address: String,
    },
    /// The HTTP client cannot be set up.
    #[error("cannot set up the connection to `{address}`: {problem}")]
    Setup {
        /// The address.
        address: String,
        /// Why.
        problem: String,
    },
}

/// The result of what this crate does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A name for this kind of error that never changes, for tests, scripts, and documentation.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "image-not-found",
            Self::PullDenied { .. } => "pull-denied",
            Self::PushDenied { .. } => "push-denied",
            Self::Unauthorized { .. } => "unauthorized",
            Self::AllFailed { source, .. } => source.code(),
            Self::Unreachable { .. } => "registry-unreachable",
            Self::Untrusted { .. } => "untrusted-certificate",
            Self::PlainHttp { .. } => "plain-http",
            Self::Interrupted { .. } => "connection-lost",
            Self::Status { .. } => "unexpected-status",
            Self::RateLimited { .. } => "rate-limited",
            Self::Protocol { .. } => "registry-protocol",
            Self::Refused { .. } => "refused-address",
            Self::DigestMismatch { .. } => "digest-mismatch",
            Self::SizeMismatch { .. } => "size-mismatch",
            Self::TooLarge { .. } => "document-too-large",
            Self::Json { .. } | Self::Document { .. } => "bad-document",
            Self::NoPlatform { .. } => "no-platform",
            Self::File { .. } => "file",
            Self::BadFile { .. } => "bad-file",
            Self::Local { .. } => "local-io",
            Self::Archive { .. } | Self::Tar { .. } => "bad-archive",
            Self::Helper { .. } => "credential-helper",
            Self::NoAuthorities { .. } => "no-authorities",
            Self::Setup { .. } => "connection-setup",
        }
    }

    /// What the user can do about it, if that is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NotFound { reason, tried, .. } => {
                let tried = tried.join(", ");
                match (reason.is_empty(), tried.is_empty()) {
                    (true, true) => return None,
                    (false, true) => format!("the registry says: {reason}"),
                    (true, false) => format!("asked {tried}"),
                    (false, false) => format!("the registry says: {reason}; asked {tried}"),
                }
            }
            Self::PullDenied { address, .. } | Self::PushDenied { address, .. } => {
                format!("check the name, or run `kiln login {address}`")
            }
            Self::Unauthorized { address, .. } => format!("run `kiln login {address}`"),
            Self::AllFailed { tried, source, .. } => {
                let tried = format!("asked {}", tried.join(", "));
                source.hint().map_or(tried.clone(), |hint| format!("{hint}; {tried}"))
            }
            Self::Unreachable { address, .. } => format!(
                "check the network and the proxy settings, or set `mirrors` in the table `[registry.\"…\"]` of kiln's \
                 config.toml if `{address}` cannot be reached from here"
            ),
            Self::Untrusted { address, source } => untrusted_hint(address, &causes(source)),
            Self::PlainHttp { address, .. } => format!("set `http = true` in `[registry.\"{address}\"]`"),
            Self::RateLimited { retry_after: Some(pause), .. } => {
                format!("it asks to wait {} seconds; logging in may raise the limit", pause.as_secs())
            }
            Self::RateLimited { .. } => "wait, or log in, which may raise the limit".to_owned(),
            Self::NoPlatform { available, .. } => format!("there is {}", available.join(", ")),
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } => {
                "the registry or something on the way to it changes what it delivers; try again, then ask its operator"
                    .to_owned()
            }
            Self::NoAuthorities { .. } => {
                "install the package `ca-certificates`, or name a bundle in SSL_CERT_FILE".to_owned()
            }
            _ => return None,
        };
        Some(hint)
    }

    /// Says whether the image or blob is not there, as opposed to any other trouble.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::NotFound { .. } | Self::NoPlatform { .. } => true,
            Self::AllFailed { source, .. } => source.is_not_found(),
            _ => false,
        }
    }

    /// Says whether trying again may help.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Interrupted { .. } | Self::RateLimited { .. } => true,
            Self::SizeMismatch { expected, found, .. } => found < expected,
            Self::Status { status, .. } => status.is_server_error() || status.as_u16() == 408,
            _ => false,
        }
    }

    /// How far the exchange got; of several errors the one that got furthest is told.
    pub(crate) fn progress(&self) -> u8 {
        match self {
            Self::Unreachable { .. } | Self::Setup { .. } | Self::NoAuthorities { .. } => 0,
            Self::Interrupted { .. } | Self::Untrusted { .. } | Self::PlainHttp { .. } => 1,
            Self::NotFound { .. } => 2,
            Self::Status { .. } | Self::RateLimited { .. } => 3,
            Self::PullDenied { .. } | Self::PushDenied { .. } | Self::Unauthorized { .. } => 3,
            _ => 4,
        }
    }

    /// Names what happened in a few words, for the list of addresses that were tried.
    pub(crate) fn in_short(&self) -> String {
        match self {
            Self::NotFound { reason, .. } if reason.is_empty() => "not found".to_owned(),
            Self::NotFound { reason, .. } => reason.clone(),
            Self::Unreachable { .. } => "unreachable".to_owned(),
            Self::Untrusted { .. } => "untrusted certificate".to_owned(),
            Self::PlainHttp { .. } => "speaks plain HTTP".to_owned(),
            Self::PullDenied { .. } | Self::PushDenied { .. } | Self::Unauthorized { .. } => {
                "access denied".to_owned()
            }
            Self::Status { status, .. } => status.to_string(),
            other => other.code().replace('-', " "),
        }
    }
}

/// Returns the messages of `error` and of all that caused it, in one text to search.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// Says what to do about a certificate that was refused with these `causes`: the words are those of rustls.
fn untrusted_hint(address: &str, causes: &str) -> String {
    let allow_any =
        format!("allow any certificate with `insecure = true` in `[registry.\"{address}\"]`");
    if causes.contains("not valid for name") {
        return format!(
            "use a name that is in the certificate, get one with this name as its subjectAltName, or {allow_any}"
        );
    }
    if causes.contains("certificate expired") || causes.contains("certificate not valid yet") {
        return format!("check this machine's clock, ask for a new certificate, or {allow_any}");
    }
    format!(
        "name the certificate of the registry or of its authority with `ca = [\"FILE\"]` in \
         `[registry.\"{address}\"]`, or allow any with `insecure = true` there"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_about_certificates_follow_the_cause() {
        let hint = |causes: &str| untrusted_hint("r.example.com:5000", causes);
        for (causes, expected) in [
            ("invalid peer certificate: certificate not valid for name \"a\"", "subjectAltName"),
            ("invalid peer certificate: certificate expired: verification time 2", "clock"),
            ("invalid peer certificate: certificate not valid yet: verification time 1", "clock"),
            ("invalid peer certificate: UnknownIssuer", "`ca = [\"FILE\"]`"),
            ("invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))", "`ca = [\"FILE\"]`"),
        ] {
            let hint = hint(causes);
            assert!(hint.contains(expected), "{causes}: {hint}");
            assert!(hint.contains("[registry.\"r.example.com:5000\"]"), "{hint}");
        }
    }
}
