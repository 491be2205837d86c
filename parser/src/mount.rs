//! What a `RUN --mount=…` says.

use alloc::{
    borrow::ToOwned,
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::fmt;

use crate::{error::MountError, suggest, values};

/// The kind of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[expect(missing_docs, reason = "the variants are the mount types of the Dockerfile reference")]
pub enum MountKind {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

impl MountKind {
    const ALL: [Self; 5] = [Self::Bind, Self::Cache, Self::Tmpfs, Self::Secret, Self::Ssh];

    /// Returns the word that stands behind `type=`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }
}

impl fmt::Display for MountKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who may use a cache mount at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Sharing {
    /// Everyone.
    #[default]
    Shared,
    /// Each user has its own.
    Private,
    /// One after the other.
    Locked,
}

/// A mount with its values read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MountSpec {
    /// `type`.
    pub kind: MountKind,
    /// `target`, `dst` or `destination`; `None` where missing or empty.
    pub target: Option<String>,
    /// `source` or `src`; `None` where missing or empty. For a secret another name of its id.
    pub source: Option<String>,
    /// `from`; `None` where missing or empty.
    pub from: Option<String>,
    /// What `ro` and `rw` say; without them bind, secret and ssh are read-only.
    pub read_only: bool,
    /// `id`; `None` where missing or empty.
    pub id: Option<String>,
    /// `sharing`.
    pub sharing: Sharing,
    /// `required`.
    pub required: bool,
    /// `size` in bytes.
    pub size: Option<u64>,
    /// `mode`.
    pub mode: Option<u32>,
    /// `uid`.
    pub uid: Option<u64>,
    /// `gid`.
    pub gid: Option<u64>,
    /// `env`.
    pub env: Option<String>,
}

/// Reads the fields of a mount whose variables are expanded.
///
/// The order counts, as in BuildKit: `required` and `size` are refused where they stand before the `type=` that has them.
///
/// # Errors
///
/// The first field that is wrong, then what is wrong with the mount as a whole.
///
/// # Source
///
/// BuildKit, `frontend/dockerfile/instructions/commands_runmount.go`.
///
/// # Examples
///
/// ```
/// use parser::mount::{MountKind, resolve};
///
/// let field = |key: &str, value: &str| (key.to_owned(), Some(value.to_owned()));
/// let mount = resolve(&[field("type", "cache"), field("target", "/c"), field("mode", "0700")])?;
/// assert_eq!((mount.kind, mount.mode), (MountKind::Cache, Some(0o700)));
/// # Ok::<(), parser::MountError>(())
/// ```
pub fn resolve(fields: &[(String, Option<String>)]) -> Result<MountSpec, MountError> {
    let mut reading = Reading::default();
    for (key, value) in fields {
        reading.field(key, value.as_deref())?;
    }
    reading.finish()
}

/// Splits the value of `--mount` into keys in lower case and values.
///
/// # Errors
///
/// [`MountError::Fields`].
pub fn split(value: &str) -> Result<Vec<(String, Option<String>)>, MountError> {
    let fields = crate::csv::fields(value)
        .map_err(|reason| MountError::Fields { value: value.into(), reason })?;
    let split = |field: String| match field.split_once('=') {
        Some((key, value)) => (key.to_lowercase(), Some(value.to_owned())),
        None => (field.to_lowercase(), None),
    };
    Ok(fields.into_iter().map(split).collect())
}

/// Finds what is wrong with a mount before its variables are known, each with the index of the field where it is in one.
/// What depends on a variable is left open.
pub(crate) fn check(fields: &[(String, Option<String>)]) -> Vec<(Option<usize>, MountError)> {
    let mut errors = Vec::new();
    let mut reading = Reading::default();
    let mut complete = true;
    for (index, (key, value)) in fields.iter().enumerate() {
        let mut deferred = false;
        let error = match value {
            Some(value) if key == "from" && holds_variable(value) => {
                Some(MountError::VariableInFrom { value: value.clone() })
            }
            Some(value) if key != "from" && is_deferred(value) => {
                deferred = true;
                (!KEYS.contains(&key.as_str())).then(|| MountError::UnknownKey { key: key.clone() })
            }
            value => reading.field(key, value.as_deref()).err(),
        };
        let known = !deferred && error.is_none();
        if key == "type" && !known {
            reading.kind = None;
        }
        complete &= known;
        errors.extend(error.map(|it| (Some(index), it)));
    }
    if complete && let Err(error) = reading.finish() {
        errors.push((None, error));
    }
    errors
}

/// A `$` at the end is no variable.
fn holds_variable(value: &str) -> bool {
    value.find('$').is_some_and(|at| at + 1 < value.len())
}

/// Quotes and escapes are taken away by the expansion, so that a value with them is not known either.
fn is_deferred(value: &str) -> bool {
    value.contains(['$', '\\', '`', '\'', '"'])
}

/// Returns what to do about a mistake.
pub fn hint(error: &MountError) -> Option<String> {
    let did_you_mean = |word: &str, options: &[&'static str]| {
        suggest::suggest(word, options.iter().copied(), true)
            .map(|it| format!("did you mean `{it}`?"))
    };
    match error {
        MountError::UnknownKey { key } => did_you_mean(key, &KEYS),
        MountError::UnknownKind { value } => {
            did_you_mean(value, &MountKind::ALL.map(MountKind::as_str))
        }
        MountError::UnknownSharing { value } => {
            did_you_mean(value, &["shared", "private", "locked"])
        }
        MountError::NotForKind { key, .. } if key == "required" => {
            Some("`required` goes with secret and ssh mounts, behind their `type=`".into())
        }
        MountError::NotForKind { key, .. } if key == "size" => {
            Some("`size` goes with tmpfs mounts, behind their `type=`".into())
        }
        MountError::VariableInFrom { .. } => Some(
            "name the image in a stage of its own, `FROM $IMAGE AS name`, and use the name".into(),
        ),
        MountError::MissingValue { key } if !KEYS.contains(&key.as_str()) => {
            did_you_mean(key, &KEYS).or_else(|| Some("write it as `KEY=VALUE`".into()))
        }
        _ => None,
    }
}

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

/// A mount while its fields are read.
#[derive(Debug)]
struct Reading {
    spec: MountSpec,
    /// `None` where the type is not known yet.
    kind: Option<MountKind>,
    read_only: Option<bool>,
    sharing: Option<Sharing>,
}

impl Default for Reading {
    fn default() -> Self {
        Self {
            spec: MountSpec::default(),
            kind: Some(MountKind::Bind),
            read_only: None,
            sharing: None,
        }
    }
}

impl Reading {
    fn field(&mut self, key: &str, value: Option<&str>) -> Result<(), MountError> {
        let Some(value) = value else {
            return self.bare(key);
        };
        let text = || (!value.is_empty()).then(|| value.to_string());
        match key {
            "type" => self.kind = Some(kind(value)?),
            "from" => self.spec.from = text(),
            "source" | "src" => self.spec.source = text(),
            "target" | "dst" | "destination" => self.spec.target = text(),
            "readonly" | "ro" => self.read_only = Some(boolean(key, value)?),
            "readwrite" | "rw" => self.read_only = Some(!boolean(key, value)?),
            "required" => {
                self.only_for(key, &[MountKind::Secret, MountKind::Ssh])?;
                self.spec.required = boolean(key, value)?;
            }
            "size" => {
                self.only_for(key, &[MountKind::Tmpfs])?;
                let size = values::size(value);
                self.spec.size =
                    Some(size.ok_or_else(|| invalid(key, "a size such as `64m`", value))?);
            }
            "id" => self.spec.id = text(),
            "sharing" => self.sharing = Some(sharing(value)?),
            "mode" => self.spec.mode = Some(number(key, "an octal mode", value, 8)?),
            "uid" => self.spec.uid = Some(number(key, "a number", value, 10)?.into()),
            "gid" => self.spec.gid = Some(number(key, "a number", value, 10)?.into()),
            "env" => self.spec.env = text(),
            _ => return Err(MountError::UnknownKey { key: key.into() }),
        }
        Ok(())
    }

    /// A key without a value.
    fn bare(&mut self, key: &str) -> Result<(), MountError> {
        match key {
            "readonly" | "ro" => self.read_only = Some(true),
            "readwrite" | "rw" => self.read_only = Some(false),
            "required" => {
                self.only_for(key, &[MountKind::Secret, MountKind::Ssh])?;
                self.spec.required = true;
            }
            _ => return Err(MountError::MissingValue { key: key.into() }),
        }
        Ok(())
    }

    fn only_for(&self, key: &str, kinds: &[MountKind]) -> Result<(), MountError> {
        match self.kind {
            Some(kind) if !kinds.contains(&kind) => {
                Err(MountError::NotForKind { key: key.into(), kind })
            }
            _ => Ok(()),
        }
    }

    fn finish(self) -> Result<MountSpec, MountError> {
        let kind = self.kind.unwrap_or_default();
        let mut spec = self.spec;
        let wrong = |key: &str| Err(MountError::NotForKind { key: key.into(), kind });
        if matches!(kind, MountKind::Bind | MountKind::Tmpfs) {
            for (key, set) in [
                ("mode", spec.mode.is_some()),
                ("uid", spec.uid.is_some()),
                ("gid", spec.gid.is_some()),
            ] {
                if set {
                    return wrong(key);
                }
            }
        }
        if kind == MountKind::Secret {
            if spec.from.is_some() {
                return wrong("from");
            }
            if spec.source.is_none() && spec.target.is_none() && spec.id.is_none() {
                return Err(MountError::UnnamedSecret);
            }
            if spec.source.is_some() && spec.id.is_some() {
                return Err(MountError::SecretSourceAndId);
            }
        } else if spec.env.is_some() {
            return wrong("env");
        }
        if self.sharing.is_some() && kind != MountKind::Cache {
            return wrong("sharing");
        }
        spec.kind = kind;
        spec.sharing = self.sharing.unwrap_or_default();
        spec.read_only =
            self.read_only.unwrap_or(!matches!(kind, MountKind::Cache | MountKind::Tmpfs));
        Ok(spec)
    }
}

fn kind(value: &str) -> Result<MountKind, MountError> {
    MountKind::ALL
        .into_iter()
        .find(|it| it.as_str() == value.to_lowercase())
        .ok_or_else(|| MountError::UnknownKind { value: value.into() })
}

fn sharing(value: &str) -> Result<Sharing, MountError> {
    match value.to_lowercase().as_str() {
        "shared" => Ok(Sharing::Shared),
        "private" => Ok(Sharing::Private),
        "locked" => Ok(Sharing::Locked),
        _ => Err(MountError::UnknownSharing { value: value.into() }),
    }
}

fn boolean(key: &str, value: &str) -> Result<bool, MountError> {
    values::boolean(value).ok_or_else(|| invalid(key, "`true` or `false`", value))
}

fn number(key: &str, expected: &'static str, value: &str, radix: u32) -> Result<u32, MountError> {
    values::number(value, radix).ok_or_else(|| invalid(key, expected, value))
}

fn invalid(key: &str, expected: &'static str, value: &str) -> MountError {
    MountError::InvalidValue { key: key.into(), expected, value: value.into() }
}
