//! `kiln inspect`.

use anyhow::anyhow;
use cache::{NamedImage, Store};
use image::ImageRef;
use serde_json::{Map, Value, json};

use super::{config_of, find, names_of, platform_of, size_of};
use crate::{
    args::images::InspectArgs,
    commands::Globals,
    exit::Exit,
    failure::{Failure, Result},
    print,
    template::Template,
    time,
};

/// Shows images.
///
/// # Errors
///
/// Fails where one of them is not there; those that are have been shown.
pub fn run(args: &InspectArgs, globals: &Globals) -> Result<Exit> {
    let template = match args.format.as_deref() {
        None | Some("json") => None,
        Some(format) => {
            Some(Template::parse(format).map_err(|it| Failure::input(anyhow!("--format: {it}")))?)
        }
    };
    let store = globals.store()?;
    let (mut found, mut missing) = (Vec::new(), None);
    for name in &args.images {
        match find(&store, name) {
            Ok(image) => found.push(document(&store, &image)?),
            Err(failure) => {
                failure.show();
                missing = Some(failure.exit);
            }
        }
    }
    match template {
        None => {
            let text = serde_json::to_string_pretty(&found).map_err(Failure::failed)?;
            print::out(&format!("{text}\n"))?;
        }
        Some(template) => {
            let defaults = defaults();
            for value in &found {
                let line = template
                    .fill(value, &defaults)
                    .map_err(|it| Failure::input(anyhow!("--format: {it}")))?;
                print::out(&format!("{line}\n"))?;
            }
        }
    }
    missing.map_or(Ok(Exit::Done), |exit| Err(Failure::shown(exit)))
}

/// Returns an image in the shape of `docker image inspect`.
fn document(store: &Store, image: &NamedImage) -> Result<Value> {
    let platform = platform_of(image, None)?;
    let config = config_of(store, platform)?;
    let names = names_of(image);
    let tags: Vec<String> =
        names.iter().filter(|it| it.tag.is_some()).map(ImageRef::familiar).collect();
    let digest = image.record.target.digest;
    let mut digests: Vec<String> = names
        .iter()
        .map(|it| ImageRef { tag: None, ..it.with_digest(digest) }.familiar())
        .collect();
    digests.dedup();
    let comment = config.history.last().map(|it| it.comment.clone()).unwrap_or_default();
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| out.insert(key.to_owned(), value);
    put("Id", json!(image.record.id()));
    put("RepoTags", json!(tags));
    put("RepoDigests", json!(digests));
    put("Comment", json!(comment));
    put("Created", json!(config.created));
    put("Author", json!(config.author));
    put("Config", json!(config.config));
    put("Architecture", json!(config.architecture));
    if !config.variant.is_empty() {
        put("Variant", json!(config.variant));
    }
    put("Os", json!(config.os));
    put("Size", json!(size_of(store, &platform.layers)?));
    put("RootFS", json!({ "Type": "layers", "Layers": platform.layers }));
    let created = i64::try_from(image.record.created).unwrap_or(0);
    put("Metadata", json!({ "LastTagTime": time::rfc3339_of(created) }));
    put("Descriptor", json!(image.record.target));
    if image.record.platforms.len() > 1 {
        let platforms: Vec<String> =
            image.record.platforms.iter().map(|it| it.platform.format_all()).collect();
        put("Platforms", json!(platforms));
    }
    Ok(Value::Object(out))
}

/// The fields that docker has and that may be absent, with what they are when empty. `null` is what docker has as a pointer.
fn defaults() -> Value {
    json!({
        "Id": "",
        "RepoTags": [],
        "RepoDigests": [],
        "Parent": "",
        "Comment": "",
        "Created": "",
        "Container": "",
        "DockerVersion": "",
        "Author": "",
        "Architecture": "",
        "Variant": "",
        "Os": "",
        "OsVersion": "",
        "Size": 0,
        "VirtualSize": 0,
        "GraphDriver": { "Name": "", "Data": {} },
        "RootFS": { "Type": "", "Layers": [] },
        "Metadata": { "LastTagTime": "" },
        "Descriptor": null,
        "Manifests": [],
        "Platforms": [],
        "Config": config_defaults(),
    })
}

fn config_defaults() -> Value {
    json!({
        "Hostname": "",
        "Domainname": "",
        "User": "",
        "AttachStdin": false,
        "AttachStdout": false,
        "AttachStderr": false,
        "ExposedPorts": {},
        "Tty": false,
        "OpenStdin": false,
        "StdinOnce": false,
        "Env": [],
        "Cmd": [],
        "Healthcheck": null,
        "ArgsEscaped": false,
        "Image": "",
        "Volumes": {},
        "WorkingDir": "",
        "Entrypoint": [],
        "NetworkDisabled": false,
        "OnBuild": [],
        "Labels": {},
        "StopSignal": "",
        "StopTimeout": null,
        "Shell": [],
    })
}
