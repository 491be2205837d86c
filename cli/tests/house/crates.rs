//! Who may depend on whom, and who touches nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use serde_json::Value;

use crate::{CRATES, code, files, none, read, root};

/// Each crate, and the crates of this workspace it may depend on. Arrows only point down this list. ARCHITECTURE.md has
/// the same table.
const MAY_USE: &[(&str, &[&str])] = &[
    ("cli", &["runtime", "executor", "planner", "parser", "registry", "cache", "sandbox", "image"]),
    ("runtime", &["sandbox", "cache", "image"]),
    ("executor", &["planner", "parser", "registry", "cache", "sandbox", "image"]),
    ("planner", &["parser", "image"]),
    ("registry", &["image"]),
    ("cache", &["image"]),
    ("sandbox", &[]),
    ("image", &[]),
    ("parser", &[]),
];

/// What `cargo metadata` says of the crates of this workspace.
fn packages() -> Vec<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    metadata["packages"].as_array().expect("a list").clone()
}

/// The names that a crate depends on; tests may use what the crate itself may not.
fn dependencies(package: &Value) -> BTreeSet<String> {
    let all = package["dependencies"].as_array().expect("a list").iter();
    all.filter(|it| it["kind"] != "dev")
        .map(|it| it["name"].as_str().expect("a name").to_owned())
        .collect()
}

#[test]
fn crates_depend_only_downwards() {
    let may_use: BTreeMap<_, _> = MAY_USE.iter().copied().collect();
    assert_eq!(may_use.keys().copied().collect::<BTreeSet<_>>(), BTreeSet::from(CRATES));
    for (idx, (krate, used)) in MAY_USE.iter().enumerate() {
        let below: Vec<_> = MAY_USE[idx + 1..].iter().map(|it| it.0).collect();
        assert!(used.iter().all(|it| below.contains(it)), "`{krate}` points upwards");
    }
    for package in packages() {
        let krate = package["name"].as_str().expect("a name");
        let Some(allowed) = may_use.get(krate) else { panic!("`{krate}` is not listed") };
        let used = dependencies(&package);
        for used in used.iter().filter(|it| may_use.contains_key(it.as_str())) {
            assert!(allowed.contains(&used.as_str()), "`{krate}` must not depend on `{used}`");
        }
        assert!(krate == "cli" || !used.contains("anyhow"), "`{krate}` has errors of its own");
    }
}

/// The rows of ARCHITECTURE.md that begin with a crate: "| `planner/` | `parser`, `image` | …".
#[test]
fn architecture_has_the_same_table() {
    let text = read("ARCHITECTURE.md");
    let names = |cell: &str| -> BTreeSet<String> {
        cell.split('`').skip(1).step_by(2).map(|it| it.trim_end_matches('/').to_owned()).collect()
    };
    let mut written = BTreeMap::new();
    for line in text.lines().filter(|it| it.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').collect();
        let first = names(cells[1]);
        if let Some(krate) = first.first().filter(|it| CRATES.contains(&it.as_str())) {
            written.insert(krate.clone(), names(cells[2]));
        }
    }
    let tested = MAY_USE.iter().map(|(krate, used)| {
        (krate.to_string(), used.iter().map(ToString::to_string).collect::<BTreeSet<_>>())
    });
    assert_eq!(written, tested.collect::<BTreeMap<_, _>>());
}

#[test]
fn pure_crates_touch_nothing() {
    for krate in ["parser", "planner"] {
        let lib = read(format!("{krate}/src/lib.rs"));
        assert!(lib.contains("\n#![no_std]\n"), "`{krate}` is no_std");
        let lines: Vec<&str> = lib.lines().collect();
        for (idx, line) in lines.iter().enumerate() {
            let is_std = line.contains("extern crate std");
            assert!(
                !is_std || lines[idx - 1] == "#[cfg(test)]",
                "`{krate}` uses std in tests only"
            );
        }
    }
    // `image` needs `std::io`. It compresses and hashes on threads, and nothing else.
    let mut wrong = Vec::new();
    for path in files("image/src", ".rs") {
        let used = modules_of_std(&code(&path));
        let computes = ["image/src/compress", "image/src/digest"]
            .iter()
            .any(|it| path.to_string_lossy().starts_with(it));
        for module in ["fs", "net", "process", "thread", "os"] {
            if used.contains(module) && !(module == "thread" && computes) {
                wrong.push(format!("{}: std::{module}", path.display()));
            }
        }
        if code(&path).replace("std::env::consts", "").contains("std::env") {
            wrong.push(format!("{}: std::env", path.display()));
        }
    }
    none("`image` touches no file, process or network", &wrong);
}

/// The modules of `std` that a source names, in paths and in grouped imports.
fn modules_of_std(code: &str) -> BTreeSet<String> {
    let flat: String = code.split_whitespace().collect();
    let mut found = BTreeSet::new();
    for rest in flat.split("std::").skip(1) {
        let name = |text: &str| -> String {
            text.chars().take_while(|it| it.is_alphanumeric() || *it == '_').collect()
        };
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(name(rest));
            continue;
        };
        let mut depth = 0;
        let mut at_start = true;
        for (idx, letter) in group.char_indices() {
            if at_start && depth == 0 && letter.is_alphabetic() {
                found.insert(name(&group[idx..]));
            }
            at_start = letter == ',';
            match letter {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                _ => {}
            }
        }
    }
    found
}

#[test]
fn grouped_imports_are_seen() {
    let code =
        "use std::{\n    io::{self, Read},\n    net::TcpStream,\n    fs,\n};\nstd::env::args()";
    let used = modules_of_std(code);
    assert_eq!(Vec::from_iter(used), ["env", "fs", "io", "net"]);
}

/// Pure crates ask by returning: nothing in their interface can reach outside.
#[test]
fn pure_crates_take_no_callbacks() {
    let mut wrong = Vec::new();
    for path in ["parser/src", "planner/src"].iter().flat_map(|it| files(it, ".rs")) {
        let code = code(&path);
        for rest in code.split("\npub fn ").chain(code.split("\n    pub fn ")).skip(1) {
            let end = rest.find(['{', ';']).unwrap_or(rest.len());
            let signature = &rest[..end];
            if ["dyn ", "Fn(", "FnMut(", "FnOnce("].iter().any(|it| signature.contains(it)) {
                wrong.push(format!("{}: {signature}", path.display()));
            }
        }
        if code.contains("async fn") {
            wrong.push(format!("{}: async", path.display()));
        }
    }
    none("no callback in the interface of a pure crate", &wrong);
}
