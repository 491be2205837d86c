//! Every way the store can fail.
//!
//! Messages are lower-case fragments without a final full stop. Each names the path, digest or entry it is about and never
//! repeats its `source`.

use std::{io, path::PathBuf};

use image::{DiffId, Digest};

/// What went wrong in the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A system call on a file of the store failed.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried: `create`, `read`, …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The folder holds files, but no store.
    #[error("`{}` is not empty and is no kiln store", path.display())]
    NotAStore {
        /// The folder.
        path: PathBuf,
    },
    /// The store was written by another version of kiln, in a format this one does not know.
    #[error("store `{}` has format `{found}`, this kiln knows format `{supported}`", path.display())]
    UnknownFormat {
        /// The root of the store.
        path: PathBuf,
        /// The format as written there.
        found: String,
        /// The format of this program.
        supported: &'static str,
    },
    /// Bytes are not those that were asked for.
    #[error("{what} has digest `{found}`, expected `{expected}`")]
    DigestMismatch {
        /// What was read or written: a path, `blob`, `layer`, …
        what: String,
        /// The digest that was asked for.
        expected: Digest,
        /// The digest of the bytes.
        found: Digest,
    },
    /// Something is larger than the caller or a limit allows.
    #[error("{what} is larger than the limit of {limit} {unit}")]
    TooLarge {
        /// What it is.
        what: String,
        /// The limit.
        limit: u64,
        /// What is counted: `bytes`, `entries`, `times its compressed size`.
        unit: &'static str,
    },
    /// A blob is not in the store.
    #[error("blob `{digest}` is not in the store")]
    BlobMissing {
        /// Its digest.
        digest: Digest,
    },
    /// A layer is not in the store in any face.
    #[error("layer `{diff_id}` is not in the store")]
    LayerMissing {
        /// Its diff id.
        diff_id: DiffId,
    },
    /// A file of the store is damaged.
    #[error("`{}` is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How that was seen.
        reason: String,
    },
    /// A layer is no readable tar, or cannot be written as one.
    #[error("cannot read or write {what} as a layer")]
    Layer {
        /// The layer.
        what: String,
        /// What the reader or writer of tars says.
        source: image::error::LayerError,
    },
    /// An entry of a layer must not be unpacked, or cannot be packed.
    #[error("bad entry `{entry}` in layer: {reason}")]
    Entry {
        /// The path of the entry in the layer.
        entry: String,
        /// Why.
        reason: String,
    },
    /// A file of a layer does not have the content that the layer was stored with.
    #[error("`{entry}` of a layer in the store is damaged")]
    Content {
        /// The path of the entry in the layer.
        entry: String,
    },
    /// A system call on an entry of a layer failed while it was unpacked or packed.
    #[error("cannot {action} `{entry}` of a layer")]
    EntryIo {
        /// What was tried: `create`, `set the owner of`, …
        action: &'static str,
        /// The path of the entry in the layer.
        entry: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// The owner of an entry has no place in the user namespace that kiln is in.
    #[error("owner {uid}:{gid} of `{entry}` in a layer is not available to this user")]
    IdNotMapped {
        /// The path of the entry in the layer.
        entry: String,
        /// Its user.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// A build id, step name or other name cannot be a file name.
    #[error("`{name}` cannot be a name here")]
    BadName {
        /// The name.
        name: String,
    },
    /// Text matches more than one image.
    #[error("`{text}` is the beginning of the ids of several images")]
    AmbiguousId {
        /// The text.
        text: String,
    },
    /// What must stay in the store leaves no room for something else.
    #[error("no room for {n_bytes} bytes in store `{}`: {used} bytes are needed, the limit is {limit}", path.display())]
    NoRoom {
        /// The root of the store.
        path: PathBuf,
        /// What was to be stored.
        n_bytes: u64,
        /// What is there and cannot go.
        used: u64,
        /// The limit.
        limit: u64,
    },
    /// A cache that others share failed.
    #[error("cannot {action} in the shared cache")]
    Remote {
        /// What was tried: `ask for a step`, …
        action: &'static str,
        /// What it says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Other processes are using the store.
    #[error("store `{}` is in use by another process", path.display())]
    InUse {
        /// The root of the store.
        path: PathBuf,
    },
    /// The trees of the store were made by somebody who sees user ids differently.
    #[error("the files in store `{}` have owners of another kind: {found}; this process has: {expected}", path.display())]
    OtherOwners {
        /// The root of the store.
        path: PathBuf,
        /// The ids as they were.
        found: String,
        /// The ids as this process has them.
        expected: String,
    },
    /// What this process writes would not belong to the user that the store belongs to.
    #[error("store `{}` belongs to user id {owner}, and this process has user id {user}", path.display())]
    AnotherUser {
        /// The root of the store.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who this process is.
        user: u32,
    },
    /// A document of an image does not parse.
    #[error("{what} is no valid JSON document of its kind")]
    Document {
        /// Which document.
        what: String,
        /// What the parser says.
        source: serde_json::Error,
    },
}

impl StoreError {
    /// What to do about it, where something general can be said.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::OtherOwners { .. } => Some(
                "use a store of your own (`--root`), or empty this one with `kiln system reset` as who it belongs to",
            ),
            Self::InUse { .. } => {
                Some("wait for the builds and containers that use it, or end them")
            }
            Self::AnotherUser { .. } => {
                Some("run kiln as that user, or use a store of your own (`--root`)")
            }
            Self::IdNotMapped { .. } => Some(
                "give this user a larger range in `/etc/subuid` and `/etc/subgid`, or run kiln as root",
            ),
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(
                    "free some space, for example with `kiln system prune`, or name another store with KILN_ROOT",
                ),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    Some("name a folder of your own for the store with KILN_ROOT or `--root`")
                }
                _ => None,
            },
            Self::Layer { source, .. } => image::OverLimit::find(source)?.hint(),
            Self::DigestMismatch { .. } | Self::Damaged { .. } | Self::Content { .. } => Some(
                "`kiln system check` looks for what is damaged in the store, with `--repair` it takes that away",
            ),
            Self::NoRoom { .. } => Some(
                "raise `max-used-space` in `[gc]` of the configuration, or remove images with `kiln rmi`",
            ),
            _ => None,
        }
    }
}

/// Shows bytes of a path inside a layer: what is not UTF-8, or a control character, is escaped.
pub(crate) fn show(path: &[u8]) -> String {
    if path.is_empty() {
        return "/".to_owned();
    }
    let mut out = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() {
                out.extend(character.escape_default());
            } else {
                out.push(character);
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

/// Turns an [`io::Error`] or an errno into a [`StoreError`] that names the file.
pub(crate) trait IoContext<T> {
    /// Names what was tried, and on which file.
    fn at(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T, StoreError>;
    /// Names what was tried, and on which entry of a layer.
    fn of(self, action: &'static str, entry: &[u8]) -> Result<T, StoreError>;
}

impl<T, E: Into<io::Error>> IoContext<T> for Result<T, E> {
    fn at(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T, StoreError> {
        self.map_err(|err| StoreError::Io { action, path: path.into(), source: err.into() })
    }

    fn of(self, action: &'static str, entry: &[u8]) -> Result<T, StoreError> {
        self.map_err(|err| StoreError::EntryIo { action, entry: show(entry), source: err.into() })
    }
}
