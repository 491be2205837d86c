//! Provenance: from what and how an image was made, as SLSA writes it and BuildKit fills it in.
//!
//! # Source
//!
//! `slsa.dev/spec/v1.1/provenance` and `slsa.dev/spec/v0.2/provenance`; BuildKit, `docs/attestations/slsa-definitions.md`.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine, engine::general_purpose::STANDARD};
use image::Platform;
use planner::{
    facts::{Facts, ImageOrigin, ImageQuery},
    plan::{CopyItem, MountOp, Network, Op, Plan, Source, Step},
};
use serde_json::{Map, Value, json};

use super::{Attestation, definition, package_url};
use crate::{
    fetch::redacted,
    session::Session,
    time::{Timestamp, rfc3339},
};

const BUILD_TYPE: &str =
    "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";
const BUILD_TYPE_02: &str = "https://mobyproject.org/buildkit@v1";

/// Which provenance is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// Tell all, `mode=max`: build arguments, names of secrets, the Dockerfile, the steps.
    pub is_max: bool,
    /// In which form.
    pub version: SlsaVersion,
    /// Who builds, a URI; empty if nobody says so.
    pub builder_id: String,
    /// The image is said to be reproducible.
    pub is_reproducible: bool,
    /// Only for outputs that are images.
    pub inline_only: bool,
    /// The file that it is, beside an image that is files.
    pub filename: String,
}

impl Default for Provenance {
    fn default() -> Self {
        Self {
            is_max: true,
            version: SlsaVersion::V1,
            builder_id: String::new(),
            is_reproducible: false,
            inline_only: false,
            filename: "provenance.json".to_owned(),
        }
    }
}

/// A version of SLSA's provenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlsaVersion {
    /// 1.
    V1,
    /// 0.2.
    V02,
}

/// What started a build.
#[derive(Debug, Clone, Default)]
pub struct Invocation {
    /// Parameters under the names that BuildKit's frontend has for them: `build-arg:VERSION`, `target`.
    pub args: BTreeMap<String, String>,
    /// The path of the Dockerfile.
    pub path: String,
    /// Its content.
    pub dockerfile: Vec<u8>,
    /// The context, if it came from the network.
    pub remote_context: Option<Source>,
    /// Folders of the machine that were read, by name.
    pub locals: Vec<String>,
    /// When it began.
    pub started: Timestamp,
}

/// Something that was not made by the build.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Material {
    uri: String,
    algorithm: &'static str,
    digest: String,
}

impl Material {
    fn json(&self) -> Value {
        json!({ "uri": self.uri, "digest": self.digests() })
    }

    fn digests(&self) -> Value {
        let mut digests = Map::new();
        digests.insert(self.algorithm.to_owned(), json!(self.digest));
        Value::Object(digests)
    }
}

impl Session {
    /// Says how an image was made, when it is.
    pub fn provenance(
        &self,
        plan: &Plan,
        facts: &Facts,
        asked: &Provenance,
        invocation: &Invocation,
    ) -> Attestation {
        let facts = Collected::of(self, plan, facts, asked, invocation);
        let (predicate_type, predicate) = match asked.version {
            SlsaVersion::V1 => ("https://slsa.dev/provenance/v1", facts.v1()),
            SlsaVersion::V02 => ("https://slsa.dev/provenance/v0.2", facts.v02()),
        };
        Attestation {
            predicate_type: predicate_type.to_owned(),
            predicate,
            filename: asked.filename.clone(),
            inline_only: asked.inline_only,
        }
    }
}

/// What both versions say, each in its own places.
struct Collected<'a> {
    asked: &'a Provenance,
    materials: Vec<Value>,
    config_source: Map<String, Value>,
    path: &'a str,
    request: Value,
    has_all_args: bool,
    has_all_materials: bool,
    is_hermetic: bool,
    build_config: Option<Value>,
    metadata: Value,
    invocation_id: Option<String>,
    times: (String, String),
}

impl<'a> Collected<'a> {
    fn of(
        session: &Session,
        plan: &Plan,
        facts: &Facts,
        asked: &'a Provenance,
        invocation: &'a Invocation,
    ) -> Self {
        let sources = sources(plan, invocation);
        let mut materials = BTreeSet::new();
        for image in &plan.images {
            materials.extend(image_material(&image.query, facts));
        }
        let mut config_source = Map::new();
        for source in &sources {
            let Some(material) = material(session, source) else { continue };
            if Some(*source) == invocation.remote_context.as_ref() {
                config_source.insert("uri".to_owned(), json!(material.uri));
                config_source.insert("digest".to_owned(), material.digests());
            }
            materials.insert(material);
        }
        let is_local = |it: &&Source| matches!(it, Source::Local(_));
        let has_all_materials = invocation.locals.is_empty() && !sources.iter().any(is_local);
        let reaches_out = |it: &Step| match &it.op {
            Op::Run(run) => run.network != Network::None,
            _ => false,
        };
        let is_told = |it: &&String| !it.starts_with("build-arg:") && !it.starts_with("label:");
        let args: BTreeMap<&String, &String> =
            invocation.args.iter().filter(|(key, _)| asked.is_max || is_told(key)).collect();
        let has_all_args = args.len() == invocation.args.len();
        let locals: Vec<Value> =
            invocation.locals.iter().map(|name| json!({ "name": name })).collect();
        let mut request = json!({ "frontend": "dockerfile.v0", "args": args, "locals": locals });
        let mut metadata = json!({});
        if asked.is_max {
            let (secrets, agents) = secrets(plan);
            for (key, list) in [("secrets", secrets), ("ssh", agents)] {
                if !list.is_empty() {
                    request[key] = Value::Array(list);
                }
            }
            metadata["source"] = json!({
                "locations": definition::locations(plan, invocation),
                "infos": [{
                    "filename": invocation.path,
                    "language": "Dockerfile",
                    "data": STANDARD.encode(&invocation.dockerfile),
                }],
            });
        }
        let time = |it: Timestamp| match plan.epoch {
            Some(secs) if it.secs >= secs => rfc3339(Timestamp { secs, nanos: 0 }),
            _ => rfc3339(it),
        };
        Self {
            asked,
            materials: materials.iter().map(Material::json).collect(),
            config_source,
            path: &invocation.path,
            request,
            has_all_args,
            has_all_materials,
            is_hermetic: has_all_materials && !plan.steps.iter().any(reaches_out),
            build_config: asked
                .is_max
                .then(|| json!({ "llbDefinition": definition::steps(plan, facts) })),
            metadata,
            // An image that is to be the same each time does not say which time it was.
            invocation_id: plan.epoch.is_none().then(|| session.build_id.clone()),
            times: (time(invocation.started), time(Timestamp::now())),
        }
    }

    fn v1(self) -> Value {
        let mut config_source = self.config_source;
        config_source.insert("path".to_owned(), json!(self.path));
        let mut internal = json!({ "builderPlatform": Platform::host().to_string() });
        if let Some(build_config) = self.build_config {
            internal["buildConfig"] = build_config;
        }
        let mut metadata = json!({
            "startedOn": self.times.0,
            "finishedOn": self.times.1,
            "buildkit_metadata": self.metadata,
            "buildkit_completeness": {
                "request": self.has_all_args,
                "resolvedDependencies": self.has_all_materials,
            },
            "buildkit_reproducible": self.asked.is_reproducible,
        });
        if self.is_hermetic {
            metadata["buildkit_hermetic"] = json!(true);
        }
        if let Some(id) = self.invocation_id {
            metadata["invocationId"] = json!(id);
        }
        json!({
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": { "configSource": config_source, "request": self.request },
                "internalParameters": internal,
                "resolvedDependencies": self.materials,
            },
            "runDetails": { "builder": { "id": self.asked.builder_id }, "metadata": metadata },
        })
    }

    fn v02(self) -> Value {
        let mut config_source = self.config_source;
        config_source.insert("entryPoint".to_owned(), json!(self.path));
        let mut metadata = json!({
            "buildStartedOn": self.times.0,
            "buildFinishedOn": self.times.1,
            "completeness": {
                "parameters": self.has_all_args,
                "environment": true,
                "materials": self.has_all_materials,
            },
            "reproducible": self.asked.is_reproducible,
            "https://mobyproject.org/buildkit@v1#metadata": self.metadata,
        });
        if self.is_hermetic {
            metadata["https://mobyproject.org/buildkit@v1#hermetic"] = json!(true);
        }
        if let Some(id) = self.invocation_id {
            metadata["buildInvocationID"] = json!(id);
        }
        let mut out = json!({
            "builder": { "id": self.asked.builder_id },
            "buildType": BUILD_TYPE_02,
            "materials": self.materials,
            "invocation": {
                "configSource": config_source,
                "parameters": self.request,
                "environment": { "platform": Platform::host().to_string() },
            },
            "metadata": metadata,
        });
        if let Some(build_config) = self.build_config {
            out["buildConfig"] = build_config;
        }
        out
    }
}

/// Whence the build took files, each once: the context first, then as the steps name them.
fn sources<'a>(plan: &'a Plan, invocation: &'a Invocation) -> Vec<&'a Source> {
    let mut found: Vec<&Source> = invocation.remote_context.iter().collect();
    for step in &plan.steps {
        for source in sources_of(step) {
            if !found.contains(&source) {
                found.push(source);
            }
        }
    }
    found
}

/// All trees that a step reads besides the one that it starts from.
pub(super) fn sources_of(step: &Step) -> Vec<&Source> {
    match &step.op {
        Op::Mkdir(_) => Vec::new(),
        Op::Copy(copy) => copy
            .items
            .iter()
            .filter_map(|it| match it {
                CopyItem::Paths { source, .. } => Some(source),
                CopyItem::Inline { .. } => None,
            })
            .collect(),
        Op::Run(run) => run
            .mounts
            .iter()
            .filter_map(|it| match it {
                MountOp::Bind { source, .. } => Some(source),
                MountOp::Cache { seed, .. } => seed.as_ref().map(|it| &it.0),
                _ => None,
            })
            .collect(),
    }
}

fn image_material(query: &ImageQuery, facts: &Facts) -> Option<Material> {
    let fact = facts.images.get(query)?;
    let uri = match &query.origin {
        ImageOrigin::Reference(name) => package_url(name, &query.platform),
        ImageOrigin::OciLayout(layout) => format!("oci-layout://{layout}"),
    };
    Some(Material { uri, algorithm: "sha256", digest: fact.target.hex() })
}

fn material(session: &Session, source: &Source) -> Option<Material> {
    let id = session.fetches.id_of(source)?;
    match source {
        Source::Git(git) => {
            let mut uri = redacted(&git.url.remote);
            if !git.url.reference.is_empty() {
                uri.push('#');
                uri.push_str(&git.url.reference);
            }
            let algorithm = if id.len() == 64 { "sha256" } else { "sha1" };
            Some(Material { uri, algorithm, digest: id })
        }
        Source::Http(http) => {
            let digest = id.strip_prefix("sha256:").unwrap_or(&id).to_owned();
            Some(Material { uri: redacted(&http.url), algorithm: "sha256", digest })
        }
        _ => None,
    }
}

/// The names of secrets and of agents that RUN lines ask for.
fn secrets(plan: &Plan) -> (Vec<Value>, Vec<Value>) {
    let (mut secrets, mut agents) = (BTreeMap::new(), BTreeMap::new());
    for step in &plan.steps {
        let Op::Run(run) = &step.op else { continue };
        for mount in &run.mounts {
            let (into, id, required) = match mount {
                MountOp::Secret { id, required, .. } => (&mut secrets, id, *required),
                MountOp::Ssh { id, required, .. } => (&mut agents, id, *required),
                _ => continue,
            };
            *into.entry(id.as_str()).or_insert(false) |= required;
        }
    }
    let list = |of: BTreeMap<&str, bool>| {
        of.into_iter()
            .map(|(id, required)| match required {
                true => json!({ "id": id }),
                false => json!({ "id": id, "optional": true }),
            })
            .collect()
    };
    (list(secrets), list(agents))
}
