//! The JSON documents of an image: descriptor, manifest, index, config.
//!
//! Unknown keys are kept, maps are sorted, so that reading and writing a document changes nothing but white space.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{DiffId, Digest, Platform, error::DocumentError};

/// The longest document that is read, in bytes. Registries refuse longer ones.
pub const MAX_DOCUMENT: usize = 4 << 20;

/// Media types that kiln reads and writes.
pub mod media_type {
    #![expect(missing_docs, reason = "the names are the documentation")]
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
}

/// Where some bytes are, and what they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the bytes are.
    pub media_type: String,
    /// Their digest.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
    /// Where else they may be had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The platform, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Keys not named here.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// An image manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// The media type of this document.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The image config.
    pub config: Descriptor,
    /// The layers from the bottom up.
    #[serde(default, deserialize_with = "null_as_default")]
    pub layers: Vec<Descriptor>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Keys not named here.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Manifest {
    /// Reads a manifest. `media_type` is the one that it came with: that of its descriptor, or of the response of a registry.
    ///
    /// # Errors
    ///
    /// [`DocumentError`], also if it could be taken for an index, or says another media type of itself.
    pub fn parse(bytes: &[u8], media_type: &str) -> Result<Self, DocumentError> {
        let types = [media_type::OCI_MANIFEST, media_type::DOCKER_MANIFEST];
        let out: Self = parse("manifest", bytes, &["manifests", "fsLayers"])?;
        check_kind("manifest", media_type, &out.media_type, types, out.schema_version)?;
        Ok(out)
    }
}

/// An image index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// The media type of this document.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The manifests.
    #[serde(default, deserialize_with = "null_as_default")]
    pub manifests: Vec<Descriptor>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Keys not named here.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Index {
    /// Reads an index. `media_type` is the one that it came with: that of its descriptor, or of the response of a registry.
    ///
    /// # Errors
    ///
    /// [`DocumentError`], also if it could be taken for a manifest, or says another media type of itself.
    pub fn parse(bytes: &[u8], media_type: &str) -> Result<Self, DocumentError> {
        let types = [media_type::OCI_INDEX, media_type::DOCKER_INDEX];
        let out: Self = parse("index", bytes, &["layers", "config", "fsLayers"])?;
        check_kind("index", media_type, &out.media_type, types, out.schema_version)?;
        Ok(out)
    }
}

/// An image config: what to run, on what, and how it was made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ImageConfig {
    /// CPU architecture.
    #[serde(default)]
    pub architecture: String,
    /// Who made it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// What containers of it start with.
    #[serde(default, deserialize_with = "null_as_default")]
    pub config: RunConfig,
    /// RFC 3339 time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// How each layer came to be, and the instructions that made none.
    #[serde(default, deserialize_with = "null_as_default")]
    pub history: Vec<History>,
    /// Operating system.
    #[serde(default)]
    pub os: String,
    /// Features the operating system must have.
    #[serde(
        rename = "os.features",
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub os_features: Vec<String>,
    /// Version of the operating system.
    #[serde(rename = "os.version", default, skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// The layers.
    #[serde(default)]
    pub rootfs: RootFs,
    /// CPU variant.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// Keys not named here.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl ImageConfig {
    /// Reads a config.
    ///
    /// # Errors
    ///
    /// [`DocumentError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        parse("image config", bytes, &[])
    }

    /// Returns the platform that the image is for, as written.
    pub fn platform(&self) -> Platform {
        Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
            variant: self.variant.clone(),
        }
    }
}

/// The part of an image config that says how to run it. Docker's fields included.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RunConfig {
    /// The user as written, `name`, `uid`, `name:group`, …
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Ports, as `80/tcp`.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub exposed_ports: BTreeMap<String, Map<String, Value>>,
    /// Environment, `KEY=VALUE`, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub env: Vec<String>,
    /// What to run before [`cmd`](Self::cmd).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// What to run, or arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// How to see whether it is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// The command was in shell form (Windows).
    #[serde(default, skip_serializing_if = "is_false")]
    pub args_escaped: bool,
    /// Volumes by path.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub volumes: BTreeMap<String, Map<String, Value>>,
    /// Where it starts.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Triggers for images built on this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub on_build: Vec<String>,
    /// Labels.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks it to stop.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// The shell of shell-form instructions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    /// Keys not named here.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl RunConfig {
    /// Returns the value of an environment variable.
    pub fn env_get(&self, key: &str) -> Option<&str> {
        self.env.iter().find_map(|it| value_of(it, key))
    }

    /// Sets an environment variable. One that is there already keeps its place.
    pub fn env_set(&mut self, key: &str, value: &str) {
        let line = format!("{key}={value}");
        match self.env.iter_mut().find(|it| value_of(it, key).is_some()) {
            Some(it) => *it = line,
            None => self.env.push(line),
        }
    }
}

/// Returns the value of a line `key=value` of this key; that of a line without `=` is empty.
fn value_of<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let (found, value) = line.split_once('=').unwrap_or((line, ""));
    (found == key).then_some(value)
}

/// A health check. Times are nanoseconds, 0 is "inherit".
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", text]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub test: Vec<String>,
    /// Time between probes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Time a probe may take.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Time in which failures do not count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Time between probes in that time.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row that make it unhealthy.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// The layers of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// From the bottom up.
    #[serde(default, deserialize_with = "null_as_default")]
    pub diff_ids: Vec<DiffId>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

/// One line of an image's history.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct History {
    /// RFC 3339 time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// Who.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// `buildkit.dockerfile.v0`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// It made no layer.
    #[serde(default, skip_serializing_if = "is_false")]
    pub empty_layer: bool,
}

fn is_false(value: &bool) -> bool {
    !*value
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

fn null_as_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads a document that has none of the keys in `forbidden`. Go ignores case in keys, so they are compared without.
fn parse<T: for<'de> Deserialize<'de>>(
    what: &'static str,
    bytes: &[u8],
    forbidden: &[&str],
) -> Result<T, DocumentError> {
    if bytes.len() > MAX_DOCUMENT {
        return Err(DocumentError::TooLarge { what, n_bytes: bytes.len(), limit: MAX_DOCUMENT });
    }
    let json = |source| DocumentError::Json { what, source };
    let keys: BTreeMap<String, serde::de::IgnoredAny> =
        serde_json::from_slice(bytes).map_err(json)?;
    let is_forbidden = |key: &String| forbidden.iter().any(|it| it.eq_ignore_ascii_case(key));
    if let Some(key) = keys.into_keys().find(is_forbidden) {
        return Err(DocumentError::Ambiguous { what, key });
    }
    serde_json::from_slice(bytes).map_err(json)
}

/// Checks that a document is one of `types`, and the one that it came as.
fn check_kind(
    what: &'static str,
    came_as: &str,
    says: &str,
    types: [&str; 2],
    schema_version: u32,
) -> Result<(), DocumentError> {
    let error = |expected: &str, found: &str| {
        Err(DocumentError::MediaType {
            what,
            expected: expected.to_owned(),
            found: found.to_owned(),
        })
    };
    if !types.contains(&came_as) {
        return error(types[0], came_as);
    }
    if !says.is_empty() && says != came_as {
        return error(came_as, says);
    }
    match schema_version {
        2 => Ok(()),
        found => Err(DocumentError::SchemaVersion { what, found }),
    }
}
