//! Every way the values of this crate can be wrong.
//!
//! One enum per kind of input, so that a caller who parses a name does not have to think about tars. Messages are lower-case
//! fragments without a final full stop and with user text in backticks; the text of a cause is never repeated.
//! [`DigestError`](crate::digest::DigestError) stands with the digests.

use crate::digest::DigestError;

/// Text that names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// The text does not have the form of a reference.
    #[error("invalid reference format: `{text}`")]
    Format {
        /// The text.
        text: String,
    },
    /// The repository has capitals in it.
    #[error("repository name `{name}` must be lowercase")]
    Uppercase {
        /// The repository as written.
        name: String,
    },
    /// The text is the bare id of an image.
    #[error("`{text}` is an image id of 64 hexadecimal digits, not an image name")]
    ImageId {
        /// The text.
        text: String,
    },
    /// The repository is too long.
    #[error("repository name must not be more than 255 characters, it has {n_bytes}")]
    TooLong {
        /// Its length.
        n_bytes: usize,
    },
    /// The part after `@` is no digest.
    #[error("invalid digest in reference `{text}`")]
    Digest {
        /// The text.
        text: String,
        /// What is wrong with it.
        source: DigestError,
    },
}

/// Text that names no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlatformError {
    /// A wildcard.
    #[error("wildcards are not supported in platform `{text}`")]
    Wildcard {
        /// The text.
        text: String,
    },
    /// A part has characters that no platform has.
    #[error("`{part}` is an invalid component of platform `{text}`")]
    Component {
        /// The part between slashes.
        part: String,
        /// The text.
        text: String,
    },
    /// A single word that is neither a known operating system nor a known architecture.
    #[error("`{text}` is no known operating system or architecture")]
    Unknown {
        /// The text.
        text: String,
    },
    /// More than three parts.
    #[error("platform `{text}` has more parts than `os/architecture/variant`")]
    TooManyParts {
        /// The text.
        text: String,
    },
}
