//! Compares references and platforms with what the reference implementations say, row by row.
//!
//! `testdata/image/reference.json` and `platform.json` were made by running distribution's and containerd's packages.

use std::{fs, path::Path};

use image::{ImageRef, Platform};
use serde_json::Value;

#[test]
fn references_are_those_of_distribution() {
    let rows = rows("reference.json");
    for row in &rows {
        let text = string(row, "ref");
        match ImageRef::parse(text) {
            Err(error) => assert!(row.get("error").is_some(), "{text}: {error}"),
            Ok(name) => {
                assert!(row.get("error").is_none(), "{text}: must be refused, is {name}");
                assert_eq!(name.domain, string(row, "domain"), "{text}");
                assert_eq!(name.path, string(row, "path"), "{text}");
                assert_eq!(name.tag.as_deref().unwrap_or_default(), string(row, "tag"), "{text}");
                let digest = name.digest.map(|it| it.to_string()).unwrap_or_default();
                assert_eq!(digest, string(row, "digest"), "{text}");
                assert_eq!(name.familiar(), string(row, "familiar"), "{text}");
                assert_eq!(name.to_string(), string(row, "normalized"), "{text}");
                assert_eq!(name.with_default_tag().to_string(), string(row, "with_tag"), "{text}");
                assert_eq!(ImageRef::parse(&name.to_string()), Ok(name.clone()), "{text}");
                assert_eq!(ImageRef::parse(&name.familiar()), Ok(name), "{text}");
            }
        }
    }
}

#[test]
fn platforms_are_those_of_containerd() {
    let host = Platform::parse("linux/amd64", &Platform::host()).expect("a good platform");
    for row in &rows("platform.json") {
        let parse = |key| Platform::parse(string(row, key), &host);
        let name = string(row, "name");
        if row.get("error").is_some() {
            assert!(parse("spec").is_err(), "{name}: must be refused");
        } else if row.get("spec").is_some() {
            let platform = parse("spec").unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(platform, fields(&row["parsed"]), "{name}");
            assert_eq!(platform.normalized(), fields(&row["normalized"]), "{name}");
            assert_eq!(platform.normalized().to_string(), string(row, "formatted"), "{name}");
            assert_eq!(platform.normalized().format_all(), string(row, "formatted_all"), "{name}");
        } else {
            let want = parse("want").unwrap_or_else(|error| panic!("{name}: {error}"));
            let have = parse("have").unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(want.only().matches(&have), row["only"], "{name}");
            assert_eq!(want.only_strict().matches(&have), row["only_strict"], "{name}");
        }
    }
}

fn rows(file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/image").join(file);
    let text = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let rows: Vec<Value> = serde_json::from_slice(&text).expect("a table is an array");
    assert!(rows.len() > 30, "{file} has rows");
    rows
}

fn string<'a>(row: &'a Value, key: &str) -> &'a str {
    row.get(key).map(|it| it.as_str().expect("a string")).unwrap_or_default()
}

fn fields(value: &Value) -> Platform {
    let features = value.get("OSFeatures").and_then(Value::as_array).cloned().unwrap_or_default();
    Platform {
        architecture: string(value, "Architecture").to_owned(),
        os: string(value, "OS").to_owned(),
        os_version: string(value, "OSVersion").to_owned(),
        os_features: features.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        variant: string(value, "Variant").to_owned(),
    }
}
