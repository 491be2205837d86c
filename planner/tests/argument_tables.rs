//! The rows of the conformance tables of single arguments: modes, working directories, ports and git addresses.

mod tables;

use planner::{
    expose,
    git_url::{GitRef, GitUrl, Mtime},
    mode::Mode,
    workdir,
};
use serde_json::{Map, Value, json};

fn octal(value: &Value) -> Option<u32> {
    u32::from_str_radix(value.as_str()?, 8).ok()
}

#[test]
fn chmod() {
    tables::for_each("copychmod.json", |row, problems| {
        let spec = row["spec"].as_str().unwrap();
        match (Mode::parse(spec), row["error"].as_str()) {
            (Err(_), Some(_)) => {}
            (Ok(mode), None) => {
                let result = mode.apply(octal(&row["mode"]).unwrap(), row["dir"] == true);
                if Some(result) != octal(&row["result"]) {
                    problems.push(format!("wanted {}, got {result:04o}", row["result"]));
                }
            }
            (result, error) => problems.push(format!("wanted {error:?}, got {result:?}")),
        }
    });
}

#[test]
fn working_directories() {
    tables::for_each("workdir.json", |row, problems| {
        let result = workdir::join(row["current"].as_str().unwrap(), row["new"].as_str().unwrap());
        if row["result"] != result {
            problems.push(format!("wanted {}, got {result}", row["result"]));
        }
    });
}

#[test]
fn ports() {
    tables::for_each("expose.json", |row, problems| {
        let words: Vec<String> = serde_json::from_value(row["ports"].clone()).unwrap();
        match (expose::parse(&words), row["error"].as_str()) {
            (Err(error), Some(wanted)) if error.to_string() == wanted => {}
            (Ok(ports), None) if json!(ports) == row["exposed"] => {}
            (result, _) => problems.push(format!("got {result:?}")),
        }
    });
}

#[test]
fn git() {
    tables::for_each("giturl.json", |row, problems| {
        let (result, error) = match (row["url"].as_str(), row["ref"].as_str()) {
            (Some(url), _) => match GitUrl::parse(url) {
                Ok(url) => (url_as_json(&url), None),
                Err(error) => (Value::Null, Some(error.to_string())),
            },
            (_, Some(text)) => {
                let is_git = !matches!(GitRef::parse(text), Ok(None));
                if row["is_git"] != is_git {
                    problems.push(format!("is_git {is_git}"));
                }
                match GitRef::parse(text) {
                    Ok(None) => (Value::Null, Some("unknown protocol".to_owned())),
                    Ok(Some(it)) => (ref_as_json(&it), None),
                    Err(error) => (Value::Null, Some(error.to_string())),
                }
            }
            _ => panic!("a row has a url or a ref"),
        };
        if row["result"] != result || row["error"].as_str().is_some() != error.is_some() {
            problems.push(format!("got {result} {error:?}"));
        }
    });
}

fn url_as_json(url: &GitUrl) -> Value {
    let mut result = json!({
        "scheme": url.scheme,
        "host": url.host,
        "path": url.path,
        "remote": url.remote,
    });
    if let Some(user) = &url.user {
        result["user"] = json!(user);
    }
    if let Some((reference, subdir)) = &url.fragment {
        result["ref"] = json!(reference);
        result["subdir"] = json!(subdir);
    }
    result
}

fn ref_as_json(git: &GitRef) -> Value {
    let mut result = Map::new();
    let mut text = |key: &str, value: &str| {
        if !value.is_empty() {
            result.insert(key.to_owned(), json!(value));
        }
    };
    text("Remote", &git.remote);
    text("ShortName", &git.short_name);
    text("Ref", &git.reference);
    text("Checksum", &git.checksum);
    text("SubDir", &git.subdir);
    text(
        "MTime",
        match git.mtime {
            None => "",
            Some(Mtime::Checkout) => "checkout",
            Some(Mtime::Commit) => "commit",
        },
    );
    for (key, value) in [
        ("IndistinguishableFromLocal", Some(git.like_local).filter(|it| *it)),
        ("UnencryptedTCP", Some(git.unencrypted).filter(|it| *it)),
        ("FetchByCommit", Some(git.fetch_by_commit).filter(|it| *it)),
        ("KeepGitDir", git.keep_git_dir),
        ("Submodules", git.submodules),
    ] {
        if let Some(value) = value {
            result.insert(key.to_owned(), json!(value));
        }
    }
    Value::Object(result)
}
