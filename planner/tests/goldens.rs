//! Asks for targets, findings and outlines of every case of the suites `buildkit-facts` and `realworld`, and of the
//! tables `lint.json`, `lint_rules.json` and `outline.json`.

mod tables;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::OnceLock,
};

use image::{ImageRef, Platform, document::ImageConfig};
use planner::{
    facts::{ImageOrigin, ImageQuery},
    lint::{self, Images, LintReport, Rule, Subject},
    outline,
    request::Request,
    targets,
};
use serde_json::{Value, json};

/// The base images of the conformance cases, by name: the config for each platform.
fn base_images() -> &'static BTreeMap<String, Vec<ImageConfig>> {
    static IMAGES: OnceLock<BTreeMap<String, Vec<ImageConfig>>> = OnceLock::new();
    IMAGES.get_or_init(|| {
        let text = fs::read(tables::conformance().join("images.json")).unwrap();
        let images: Vec<Value> = serde_json::from_slice(&text).unwrap();
        let config = |part: &Value| serde_json::from_value(part["config"].clone()).unwrap();
        let parts = |image: &Value| image["parts"].as_array().unwrap().iter().map(config).collect();
        let name = |image: &Value| {
            let reference = ImageRef::parse(image["name"].as_str().unwrap()).unwrap();
            reference.with_default_tag().to_string()
        };
        images.iter().map(|it| (name(it), parts(it))).collect()
    })
}

/// Runs `check` with the base images it asks for.
fn with_images<T>(mut check: impl FnMut(&Images) -> (T, BTreeSet<ImageQuery>)) -> T {
    let mut images = Images::new();
    loop {
        let (result, missing) = check(&images);
        if missing.is_empty() {
            return result;
        }
        for query in missing {
            let ImageOrigin::Reference(reference) = &query.origin else { panic!("{query:?}") };
            // Images named by digest are in the list by their tag.
            let repository = format!("{}:", reference.repository());
            let is_it = |name: &str| match &reference.digest {
                Some(_) => name.starts_with(&repository),
                None => name == reference.to_string(),
            };
            let found = base_images().iter().find(|(name, _)| is_it(name));
            let fact = match found {
                Some((_, configs)) => {
                    let fits = |it: &&ImageConfig| {
                        (&it.os, &it.architecture)
                            == (&query.platform.os, &query.platform.architecture)
                    };
                    Ok(configs.iter().find(fits).unwrap_or(&configs[0]).clone())
                }
                None => Err(format!(
                    "failed to resolve source metadata for {reference}: {reference}: not found"
                )),
            };
            images.insert(query, fact);
        }
    }
}

fn request(args: &[String]) -> Request {
    let amd64 = Platform::new("linux", "amd64");
    let mut request =
        Request { platform: amd64.clone(), build_platform: amd64, ..Request::default() };
    let mut args = args.iter();
    while let Some(flag) = args.next() {
        let value = args.next().unwrap_or_else(|| panic!("{flag} has a value"));
        match flag.as_str() {
            "--build-arg" => {
                if let Some((name, value)) = value.split_once('=') {
                    request.build_args.insert(name.to_owned(), value.to_owned());
                }
            }
            "--target" => request.target = Some(value.clone()),
            "--platform" => {
                let first = value.split(',').next().unwrap();
                request.platform = Platform::parse(first, &request.build_platform).unwrap();
            }
            "--label" | "--build-context" | "--output" | "--secret" | "--ssh" | "--network"
            | "--attest" | "--no-cache-filter" | "--annotation" | "--allow" | "--ulimit"
            | "--add-host" | "--cgroup-parent" | "--shm-size" | "--tag" => {}
            _ => panic!("unknown flag {flag}"),
        }
    }
    request
}

/// The facts of a case in the form of its golden file.
fn facts(text: &str, request: &Request, targets_wanted: &[String]) -> Value {
    let (dockerfile, diagnostics) = parser::parse(text);
    let none = Images::new();
    let subject = Subject {
        dockerfile: &dockerfile,
        diagnostics: &diagnostics,
        text,
        request,
        ignored: &[],
        images: &none,
    };
    let targets = match targets::targets(&subject) {
        Ok(targets) => json!({ "ok": normal_targets(&serde_json::to_value(targets).unwrap()) }),
        Err(error) => json!({ "fail": error.to_string() }),
    };
    let check = with_images(|images| {
        let report = lint::check(&Subject { images, ..subject }, "Dockerfile");
        (serde_json::to_value(&report).unwrap(), report.missing)
    });
    let mut outlines = serde_json::Map::new();
    for target in targets_wanted {
        let mut request = request.clone();
        if !target.is_empty() {
            request.target = Some(target.clone());
        }
        let subject = Subject { request: &request, ..subject };
        let outline =
            with_images(|images| match outline::outline(&Subject { images, ..subject }) {
                Ok(outline) => {
                    let value = serde_json::to_value(&outline).unwrap();
                    (json!({ "ok": normal_outline(&value) }), outline.missing)
                }
                Err(error) => (json!({ "fail": error.to_string() }), BTreeSet::new()),
            });
        outlines.insert(target.clone(), outline);
    }
    json!({ "targets": targets, "check": { "ok": normal_check(&check) }, "outline": outlines })
}

fn lines(location: &Value) -> Value {
    let ranges = location["ranges"].as_array().cloned().unwrap_or_default();
    ranges.iter().map(|it| json!([it["start"]["line"], it["end"]["line"]])).collect()
}

fn normal_targets(value: &Value) -> Value {
    let keys = ["name", "default", "description", "base", "platform"];
    let normal = |target: &Value| {
        let mut found = json!({ "line": lines(&target["location"]) });
        for key in keys.iter().filter(|key| !target[**key].is_null()) {
            found[*key] = target[*key].clone();
        }
        found
    };
    value["targets"].as_array().unwrap().iter().map(normal).collect()
}

fn sorted(mut list: Vec<Value>) -> Value {
    list.sort_by_key(Value::to_string);
    Value::Array(list)
}

fn normal_check(value: &Value) -> Value {
    let warnings = value["warnings"].as_array().unwrap();
    let warnings = warnings
        .iter()
        .map(|it| json!([it["ruleName"], lines(&it["location"]), it["detail"]]))
        .collect();
    let mut normal = json!({ "warnings": sorted(warnings) });
    if !value["buildError"].is_null() {
        normal["buildError"] = value["buildError"]["message"].clone();
    }
    normal
}

fn normal_outline(value: &Value) -> Value {
    let list = |key: &str| value[key].as_array().cloned().unwrap_or_default();
    let mount = |it: &Value| json!([it["name"], it["required"] == true]);
    json!({
        "name": value["name"],
        "description": value["description"],
        "args": sorted(list("args").iter().map(|it| json!([it["name"], it["value"], it["description"]])).collect()),
        "secrets": sorted(list("secrets").iter().map(mount).collect()),
        "ssh": sorted(list("ssh").iter().map(mount).collect()),
        "cache": [],
    })
}

/// Compares two answers; of two refusals only that they are refusals counts.
fn compare(what: &str, wanted: &Value, found: &Value, problems: &mut Vec<String>) {
    let is_refusal = |it: &Value| !it["fail"].is_null();
    if is_refusal(wanted) && is_refusal(found) {
        return;
    }
    let wanted = normalised(what, wanted);
    if is_refusal(&wanted) != is_refusal(found) || wanted["ok"] != found["ok"] {
        problems.push(format!("{what}:\n    wanted {wanted}\n    got    {found}"));
    }
}

/// Puts the lists of a golden file in the order of ours.
fn normalised(what: &str, golden: &Value) -> Value {
    let mut golden = golden.clone();
    let keys: &[&str] = match what {
        "targets" => &[],
        "check" => &["warnings"],
        _ => &["args", "secrets", "ssh", "cache"],
    };
    for key in keys {
        if let Some(list) = golden["ok"][*key].as_array() {
            golden["ok"][*key] = sorted(list.clone());
        }
    }
    golden
}

fn suite(name: &str) {
    let folder = tables::conformance().join(name);
    let mut cases: Vec<_> = fs::read_dir(&folder).unwrap().map(|it| it.unwrap().path()).collect();
    cases.sort();
    let mut n_failed = 0;
    let mut n_answers = 0;
    let mut n_wrong = 0;
    for case in cases.iter().filter(|it| it.join("Dockerfile").exists()) {
        let problems = check_case(case, &mut n_answers);
        n_wrong += problems.len();
        if !problems.is_empty() {
            n_failed += 1;
            eprintln!("{}: {}", case.file_name().unwrap().display(), problems.join("\n  "));
        }
    }
    eprintln!("{name}: {} of {n_answers} answers agree", n_answers - n_wrong);
    assert!(n_answers > 0, "{name} has cases");
    assert_eq!(n_failed, 0, "cases of {name} that differ, of {}", cases.len());
}

fn check_case(case: &Path, n_answers: &mut usize) -> Vec<String> {
    let text = parser::decode(&fs::read(case.join("Dockerfile")).unwrap());
    let read = |file: &str| -> Value {
        serde_json::from_slice(&fs::read(case.join(file)).unwrap()).unwrap()
    };
    let golden = read("golden.json");
    let args: Vec<String> = match case.join("meta.json").exists() {
        true => serde_json::from_value(read("meta.json")["args"].clone()).unwrap_or_default(),
        false => Vec::new(),
    };
    let outlines = golden["outline"].as_object().unwrap();
    let wanted: Vec<String> = outlines.keys().cloned().collect();
    let found = facts(&text, &request(&args), &wanted);
    let mut problems = Vec::new();
    *n_answers += 2 + wanted.len();
    compare("targets", &golden["targets"], &found["targets"], &mut problems);
    compare("check", &golden["check"], &found["check"], &mut problems);
    for target in wanted {
        let what = format!("outline({target})");
        compare(&what, &golden["outline"][&target], &found["outline"][&target], &mut problems);
    }
    problems
}

#[test]
fn buildkit_facts() {
    suite("buildkit-facts");
}

#[test]
fn realworld() {
    suite("realworld");
}

#[test]
fn lint_rules_table() {
    tables::for_each("lint_rules.json", |row, problems| {
        match Rule::all().find(|it| row["name"] == it.name()) {
            Some(rule) => {
                if row["description"] != rule.description() || row["url"] != rule.url() {
                    problems.push(format!("got {} {}", rule.description(), rule.url()));
                }
            }
            None => problems.push("there is no such rule".to_owned()),
        }
    });
}

/// Reads an ignore file.
fn ignore_patterns(text: &str) -> Vec<String> {
    parser::ignore::read(text).into_iter().map(|it| it.text).collect()
}

fn table_request(row: &Value) -> Request {
    let mut request = request(&[]);
    if let Some(args) = row["build_args"].as_object() {
        let text = |it: &Value| it.as_str().unwrap().to_owned();
        request.build_args = args
            .iter()
            .map(|(name, value)| (name.clone(), text(value)))
            .collect::<BTreeMap<_, _>>();
    }
    request.target = row["target"].as_str().map(ToOwned::to_owned);
    request
}

#[test]
fn lint_table() {
    tables::for_each("lint.json", |row, problems| {
        let text = row["dockerfile"].as_str().unwrap();
        let ignored = ignore_patterns(row["dockerignore"].as_str().unwrap_or_default());
        let (dockerfile, diagnostics) = parser::parse(text);
        let request = table_request(row);
        let search = |check: fn(&Subject<'_>, &str) -> LintReport| {
            with_images(|images| {
                let subject = Subject {
                    dockerfile: &dockerfile,
                    diagnostics: &diagnostics,
                    text,
                    request: &request,
                    ignored: &ignored,
                    images,
                };
                let report = check(&subject, "Dockerfile");
                let missing = report.missing.clone();
                (report, missing)
            })
        };
        let of_build = search(lint::check_build).warnings;
        let of_build = of_build.iter().map(
            |it| json!({ "rule": it.rule_name, "detail": it.detail, "line": it.location.line() }),
        );
        let found = sorted(of_build.collect());
        let wanted = sorted(row["build_warnings"].as_array().unwrap().clone());
        if found != wanted {
            problems.push(format!("build: wanted {wanted}\n    got {found}"));
        }
        let report = search(lint::check);
        let value = serde_json::to_value(&report).unwrap();
        let warnings = value["warnings"].as_array().unwrap().iter().map(|it| {
            let mut found = json!({
                "rule": it["ruleName"],
                "detail": it["detail"],
                "description": it["description"],
                "lines": lines(&it["location"]),
            });
            if !it["url"].is_null() {
                found["url"] = it["url"].clone();
            }
            found
        });
        let found = sorted(warnings.collect());
        let wanted = sorted(row["warnings"].as_array().unwrap().clone());
        if found != wanted {
            problems.push(format!("wanted {wanted}\n    got {found}"));
        }
        if report.to_text() != row["text"].as_str().unwrap() {
            problems.push(format!(
                "text:\n{}\ngot:\n{}",
                row["text"].as_str().unwrap(),
                report.to_text()
            ));
        }
        let error = &value["buildError"];
        if row["error"].is_null() != error.is_null() {
            problems.push(format!("wanted {}, got {error}", row["error"]));
        } else if !error.is_null() {
            let found = json!({ "message": error["message"], "lines": lines(&error["location"]) });
            if found != row["error"] {
                problems.push(format!("wanted {}, got {found}", row["error"]));
            }
        }
        if row["status"].as_str() != Some(if report.status() == 0 { "0" } else { "1" }) {
            problems.push(format!("status {}", report.status()));
        }
    });
}

#[test]
fn outline_table() {
    tables::for_each("outline.json", |row, problems| {
        let text = row["dockerfile"].as_str().unwrap();
        let (dockerfile, diagnostics) = parser::parse(text);
        let request = table_request(row);
        let outline = with_images(|images| {
            let outline = outline::outline(&Subject {
                dockerfile: &dockerfile,
                diagnostics: &diagnostics,
                text,
                request: &request,
                ignored: &[],
                images,
            })
            .unwrap();
            let missing = outline.missing.clone();
            (outline, missing)
        });
        let mut value = serde_json::to_value(&outline).unwrap();
        value.as_object_mut().unwrap().remove("sources");
        for key in ["args", "secrets", "ssh"] {
            for item in value.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten() {
                item["location"] = lines(&item["location"]);
            }
        }
        if value != row["result"] {
            problems.push(format!("wanted {}\n    got {value}", row["result"]));
        }
        if outline.to_text() != row["text"].as_str().unwrap() {
            problems.push(format!(
                "text:\n{}\ngot:\n{}",
                row["text"].as_str().unwrap(),
                outline.to_text()
            ));
        }
    });
}
