//! What is written when a build is done: the id of the image, the files that ask for it, the line for a person.

use std::path::Path;

use anyhow::{Context, anyhow};
use base64::{Engine, engine::general_purpose::STANDARD};
use image::{Digest, ImageRef, document::Descriptor};
use planner::lint::Warning;
use serde_json::{Map, Value, json};

use super::job::Job;
use crate::{
    failure::{Failure, OrFail, Result},
    print,
    values::Dest,
};

/// What a build made.
#[derive(Debug, Clone, Default)]
pub struct Finished {
    /// The image, if an image was made.
    pub image: Option<FinishedImage>,
    /// The name under which `kiln logs` finds the logs.
    pub build: Option<String>,
    /// What to call the Dockerfile, and its text.
    pub dockerfile: Option<(String, String)>,
    /// What is said of how each image was made, with its platform where there are several.
    pub provenance: Vec<(Option<String>, Value)>,
}

/// The image that was made.
#[derive(Debug, Clone)]
pub struct FinishedImage {
    /// Its manifest or index.
    pub target: Descriptor,
    /// The digest of its config; of the first platform where there are several.
    pub config: Digest,
    /// All names it has got.
    pub names: Vec<ImageRef>,
}

impl FinishedImage {
    /// Returns what `docker` calls the id of the image.
    fn id(&self) -> Digest {
        match self.target.media_type.contains("index")
            || self.target.media_type.contains("manifest.list")
        {
            true => self.target.digest,
            false => self.config,
        }
    }
}

/// Removes the files that an earlier build may have left, so that a failing one leaves none.
///
/// # Errors
///
/// Fails where a file is there and cannot be removed.
pub fn before(job: &Job) -> Result<()> {
    for path in [&job.iidfile, &job.metadata_file].into_iter().flatten() {
        let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|it| !it.is_dir()) {
            let message = anyhow!("there is no folder `{}`", folder.display());
            return Err(Failure::input(
                message.context(format!("cannot write `{}`", path.display())),
            ));
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error)
                    .with_context(|| format!("cannot remove the old `{}`", path.display()))
                    .or_input();
            }
            _ => {}
        }
    }
    Ok(())
}

/// Writes what the user asked to know of the result.
///
/// # Errors
///
/// Fails where a file cannot be written.
pub fn after(job: &Job, finished: &Finished, warnings: &[Warning]) -> Result<()> {
    if let (Some(path), Some(image)) = (&job.iidfile, &finished.image) {
        write(path, &image.id().to_string())?;
    }
    if let Some(path) = &job.metadata_file {
        let warnings = if job.metadata_warnings { warnings } else { &[] };
        let metadata = metadata(finished, warnings);
        let metadata = serde_json::to_string_pretty(&metadata).unwrap_or_default();
        write(path, &format!("{metadata}\n"))?;
    }
    let to_stdout = job.outputs.iter().any(|it| it.dest == Some(Dest::Stdout));
    match &finished.image {
        Some(image) if job.quiet && !to_stdout => print::out(&format!("{}\n", image.id())),
        _ => Ok(()),
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text)
        .with_context(|| format!("cannot write `{}`", path.display()))
        .or_failed()
}

/// The metadata as `docker buildx build --metadata-file` writes it.
fn metadata(finished: &Finished, warnings: &[Warning]) -> Value {
    let mut out = Map::new();
    if let (Some((name, text)), false) = (&finished.dockerfile, warnings.is_empty()) {
        let warnings: Vec<Value> = warnings.iter().map(|it| warning(it, name, text)).collect();
        out.insert("buildx.build.warnings".to_owned(), json!(warnings));
    }
    if let Some(build) = &finished.build {
        out.insert("buildx.build.ref".to_owned(), json!(build));
    }
    for (platform, predicate) in &finished.provenance {
        let key = match platform {
            Some(platform) => format!("buildx.build.provenance/{platform}"),
            None => "buildx.build.provenance".to_owned(),
        };
        out.insert(key, predicate.clone());
    }
    if let Some(image) = &finished.image {
        out.insert("containerimage.config.digest".to_owned(), json!(image.config));
        out.insert("containerimage.descriptor".to_owned(), json!(image.target));
        out.insert("containerimage.digest".to_owned(), json!(image.target.digest));
        if !image.names.is_empty() {
            let names: Vec<String> = image.names.iter().map(ImageRef::to_string).collect();
            out.insert("image.name".to_owned(), json!(names.join(",")));
        }
    }
    Value::Object(out)
}

/// A finding as BuildKit's clients know it: texts that may be no UTF-8 are in base64. It has no vertex here.
fn warning(warning: &Warning, name: &str, text: &str) -> Value {
    let base64 = |text: &str| STANDARD.encode(parser::encode(text));
    let mut out = json!({
        "level": 1,
        "short": base64(&format!("{}: {}", warning.rule_name, warning.detail)),
        "detail": [base64(warning.description)],
        "sourceInfo": { "filename": name, "data": base64(text), "language": "Dockerfile" },
    });
    if !warning.url.is_empty() {
        out["url"] = json!(warning.url);
    }
    if let Some(ranges) = json!(warning.location).get("ranges") {
        out["range"] = ranges.clone();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_has_docker_s_keys() {
        let digest = Digest::of(b"");
        let target = serde_json::from_value(json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 3,
        }));
        let names =
            ["a", "b:1"].map(|it| ImageRef::parse(it).expect("a name").with_default_tag()).to_vec();
        let image = FinishedImage { target: target.expect("a descriptor"), config: digest, names };
        let json = metadata(
            &Finished { image: Some(image), build: Some("x".to_owned()), ..Finished::default() },
            &[],
        );
        assert_eq!(json["image.name"], "docker.io/library/a:latest,docker.io/library/b:1");
        assert_eq!(json["containerimage.descriptor"]["size"], 3);
        assert_eq!(json["containerimage.digest"], json["containerimage.config.digest"]);
        assert_eq!(json["buildx.build.ref"], "x");
    }
}
