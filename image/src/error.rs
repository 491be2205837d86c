//! Every way the values of this crate can be wrong.
//!
//! One enum per kind of input, so that a caller who parses a name does not have to think about tars. Messages are lower-case
//! fragments without a final full stop and with user text in backticks; the text of a cause is never repeated.
//! [`DigestError`] stands with the digests.

use std::io;

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

/// A layer that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// The tar cannot be read.
    #[error("cannot read the layer")]
    Read {
        /// The cause.
        source: io::Error,
    },
    /// The tar cannot be written.
    #[error("cannot write the layer")]
    Write {
        /// The cause.
        source: io::Error,
    },
    /// The content of a file that goes into a tar cannot be read.
    #[error("cannot read `{path}`")]
    Content {
        /// The file.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// A file that goes into a tar is shorter than it was said to be.
    #[error("`{path}` has {found} bytes where {expected} were expected")]
    Size {
        /// The file.
        path: String,
        /// The length that stands in its header.
        expected: u64,
        /// The length found.
        found: u64,
    },
    /// The tar ends inside of a header or a file.
    #[error("layer ends in the middle of {what}, at byte {offset}")]
    Truncated {
        /// What is cut off.
        what: &'static str,
        /// How many bytes there are.
        offset: u64,
    },
    /// A header is malformed, or different programs would read it differently.
    #[error("bad tar header at byte {offset}: {problem}")]
    Header {
        /// Where the header begins.
        offset: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An entry is not acceptable in a layer.
    #[error("bad entry `{path}` in layer: {problem}")]
    Entry {
        /// The path as written.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The layer is larger than allowed.
    #[error(transparent)]
    Limit(#[from] OverLimit),
    /// A stored index of a layer is damaged or of another version.
    #[error("bad layer index: {problem}")]
    Index {
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitKind {
    /// Entries of a layer or an archive.
    Entries,
    /// Its bytes, holes of files counted.
    Bytes,
    /// Bytes that come out for each byte that went in.
    Ratio,
    /// Bytes of memory that decompressing takes.
    Memory,
    /// Bytes of records about one entry. The user cannot raise this one: no program writes more.
    Records,
}

/// A layer or an archive holds more than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct OverLimit {
    /// What there is too much of.
    pub limit: LimitKind,
    /// How much is allowed.
    pub value: u64,
}

impl OverLimit {
    fn text(&self) -> String {
        let Self { limit, value } = self;
        match limit {
            LimitKind::Entries => format!("it has more than {value} entries"),
            LimitKind::Bytes => format!("it has more than {value} bytes"),
            LimitKind::Ratio => format!("it expands to more than {value} times its size"),
            LimitKind::Memory => {
                format!("decompressing it takes more than {value} bytes of memory")
            }
            LimitKind::Records => format!("it has an entry with more than {value} bytes of header"),
        }
    }

    /// Finds one among the causes of an error.
    pub fn find(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<Self>() {
                return Some(*found);
            }
            if let Some(LayerError::Limit(found)) = error.downcast_ref::<LayerError>() {
                return Some(*found);
            }
            // The error inside of this one is not its cause, but what it is.
            let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            if let Some(found) = inner.and_then(|it| Self::find(it)) {
                return Some(found);
            }
            next = error.source();
        }
        None
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self.limit {
            LimitKind::Entries => {
                "if you trust it, raise the limit with `--limit entries=NUMBER`, or `entries` below `[limits]` in the configuration"
            }
            LimitKind::Bytes => {
                "if you trust it, raise the limit with `--limit bytes=SIZE`, or `bytes` below `[limits]` in the configuration"
            }
            LimitKind::Ratio => {
                "if you trust it, raise the limit with `--limit ratio=NUMBER`, or `ratio` below `[limits]` in the configuration"
            }
            LimitKind::Memory => {
                "if you trust it, raise the limit with `--limit memory=SIZE`, or `memory` below `[limits]` in the configuration"
            }
            LimitKind::Records => return None,
        })
    }
}

impl From<OverLimit> for io::Error {
    fn from(over: OverLimit) -> Self {
        Self::new(io::ErrorKind::FileTooLarge, over)
    }
}

impl LayerError {
    /// Names an entry as unacceptable. Bytes that are no UTF-8 are shown as replacement characters.
    pub(crate) fn entry(path: &[u8], problem: &'static str) -> Self {
        Self::Entry { path: lossy(path), problem }
    }
}

/// Shows a path of an image in a message.
pub(crate) fn lossy(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// A path that leads nowhere in a tree of layers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// Too many symbolic links follow each other.
    #[error("too many symbolic links in `{path}`")]
    Loop {
        /// The path to resolve.
        path: String,
    },
    /// The path goes on below something that is no folder.
    #[error("`{found}` is no folder, in path `{path}`")]
    NotAFolder {
        /// The path to resolve.
        path: String,
        /// What is no folder.
        found: String,
    },
}

/// A JSON document that is not what it is said to be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// It is no JSON, or not of the right shape.
    #[error("malformed {what}")]
    Json {
        /// What it should be.
        what: &'static str,
        /// The cause.
        source: serde_json::Error,
    },
    /// It is too large.
    #[error("{what} has {n_bytes} bytes, at most {limit} are allowed")]
    TooLarge {
        /// What it should be.
        what: &'static str,
        /// Its length.
        n_bytes: usize,
        /// The longest that is read.
        limit: usize,
    },
    /// It says another media type of itself than the one it came with.
    #[error("expected {what} of type `{expected}`, found `{found}`")]
    MediaType {
        /// What it should be.
        what: &'static str,
        /// The type it came with, or one that it could have.
        expected: String,
        /// The type that it names.
        found: String,
    },
    /// Programs that look for other keys would take it for another kind of document (CVE-2021-41190).
    #[error("{what} has the key `{key}`, which makes it ambiguous")]
    Ambiguous {
        /// What it should be.
        what: &'static str,
        /// The key that it must not have.
        key: String,
    },
    /// It is of another version.
    #[error("{what} has schema version {found}, only 2 is supported")]
    SchemaVersion {
        /// What it should be.
        what: &'static str,
        /// The version that it names.
        found: u32,
    },
}

/// A contradiction inside of an image, see [`validate`](crate::validate::validate).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageProblem {
    /// The config is not the one that the manifest names.
    #[error(
        "manifest names config {expected} of {expected_size} bytes, found {found} of {found_size}"
    )]
    Config {
        /// The digest in the manifest.
        expected: crate::Digest,
        /// The size in the manifest.
        expected_size: u64,
        /// The digest of the config.
        found: crate::Digest,
        /// Its length in bytes.
        found_size: u64,
    },
    /// A media type that does not belong where it stands.
    #[error("{what} has the media type `{found}`")]
    MediaType {
        /// Whose.
        what: &'static str,
        /// The type.
        found: String,
    },
    /// The manifest and the config have different numbers of layers.
    #[error("manifest has {n_layers} layers, config has {n_diff_ids}")]
    LayerCount {
        /// In the manifest.
        n_layers: usize,
        /// In the config.
        n_diff_ids: usize,
    },
    /// The history is about another number of layers.
    #[error("history has {n_history} lines that made a layer, for {n_diff_ids} layers")]
    HistoryCount {
        /// Lines of history that are not empty layers.
        n_history: usize,
        /// Layers.
        n_diff_ids: usize,
    },
    /// A field that must be there is empty, or has a value that it must not have.
    #[error("config has `{value}` as {key}")]
    Field {
        /// The field.
        key: &'static str,
        /// Its value.
        value: String,
    },
}
