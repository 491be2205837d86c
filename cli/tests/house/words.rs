//! What README.md, ARCHITECTURE.md and docs/ci.md name is there.

use std::{collections::BTreeSet, process::Command};

use crate::{CRATES, files, none, read, root};

const DOCUMENTS: [&str; 3] = ["README.md", "ARCHITECTURE.md", "docs/ci.md"];

/// What stands between backticks, in text and in code blocks' lines.
fn quoted(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (block_idx, block) in text.split("```").enumerate() {
        if block_idx % 2 == 1 {
            continue;
        }
        found.extend(block.split('`').skip(1).step_by(2).map(ToOwned::to_owned));
    }
    found
}

/// The lines of code blocks that begin with a prompt.
fn commands(text: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|it| it.strip_prefix("$ "));
    lines.map(|it| it.split(" #").next().unwrap_or_default().trim().to_owned()).collect()
}

#[test]
fn paths_exist() {
    let mut wrong = Vec::new();
    let top: BTreeSet<String> = std::fs::read_dir(root())
        .expect("the workspace can be listed")
        .map(|it| it.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    for document in DOCUMENTS {
        let text = read(document);
        let links = text.split("](").skip(1).filter_map(|it| it.split(')').next());
        let links = links.filter(|it| !it.contains("://") && !it.starts_with('#'));
        let quotes = quoted(&text);
        let quotes = quotes.iter().map(String::as_str).filter(|it| {
            let first = it.split('/').next().unwrap_or_default();
            let is_plain = it.chars().all(|it| it.is_alphanumeric() || "/._-".contains(it));
            let is_path = it.contains('/') || it.ends_with(".md") || it.ends_with(".toml");
            is_plain && is_path && top.contains(first)
        });
        for path in links.chain(quotes) {
            // What a build makes is not there before it.
            if !path.starts_with("target/") && !root().join(path).exists() {
                wrong.push(format!("{document}: `{path}` does not exist"));
            }
        }
        for command in commands(&text) {
            let first = command.split(' ').next().unwrap_or_default();
            if top.contains(first.split('/').next().unwrap_or_default())
                && !root().join(first).exists()
            {
                wrong.push(format!("{document}: `{first}` does not exist"));
            }
        }
    }
    none("what a document names is there", &wrong);
}

/// `executor::key` is a module, or something public in the crate `executor`.
#[test]
fn modules_exist() {
    let mut wrong = Vec::new();
    for document in DOCUMENTS {
        for word in quoted(&read(document)) {
            let mut parts = word.split("::");
            let (Some(krate), Some(name)) = (parts.next(), parts.next()) else { continue };
            if !CRATES.contains(&krate) {
                continue;
            }
            let name: String =
                name.chars().take_while(|it| it.is_alphanumeric() || *it == '_').collect();
            let is_module = ["", "/mod"]
                .iter()
                .any(|it| root().join(format!("{krate}/src/{name}{it}.rs")).exists());
            let is_named = || {
                let marks = ["fn", "struct", "enum", "trait", "const", "type"]
                    .map(|it| format!("{it} {name}"));
                files(krate, ".rs")
                    .iter()
                    .any(|path| marks.iter().any(|it| read(path).contains(it.as_str())))
            };
            if !is_module && !is_named() {
                wrong.push(format!("{document}: `{word}`"));
            }
        }
    }
    none("what a document names is there", &wrong);
}

#[test]
fn commands_exist() {
    let mut wrong = Vec::new();
    let mut n_seen = 0;
    for document in DOCUMENTS {
        let text = read(document);
        for line in quoted(&text).into_iter().chain(commands(&text)) {
            // After a pipe or a variable there may be another command.
            let Some(at) = line.split([' ', '|']).position(|it| it == "kiln") else { continue };
            let words: Vec<&str> =
                line.split([' ', '|']).skip(at + 1).filter(|it| !it.is_empty()).collect();
            n_seen += 1;
            if let Err(problem) = check_command(&words) {
                wrong.push(format!("{document}: `{line}`: {problem}"));
            }
        }
    }
    assert!(n_seen > 10, "commands are found");
    none("what a document shows can be typed", &wrong);
}

/// Asks for help instead of running the command, and looks for its options there.
fn check_command(words: &[&str]) -> Result<(), String> {
    let is_name = |it: &&&str| it.bytes().all(|it| it.is_ascii_lowercase());
    let names: Vec<&&str> = words.iter().take_while(is_name).take(2).collect();
    let help = |names: &[&&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_kiln"))
            .args(names)
            .arg("--help")
            .env_clear()
            .output()
            .expect("kiln runs");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (is_there, text) = help(&names);
    if !is_there {
        return Err("there is no such command".to_owned());
    }
    let (_, general) = help(&[]);
    for word in words.iter().filter(|it| it.starts_with('-') && it.len() > 1) {
        let word = word.split(['=', '…', '\'', '"']).next().unwrap_or_default();
        let options: Vec<String> = match word.strip_prefix("--") {
            Some(long) => vec![format!("--{long}")],
            None => word[1..].chars().map(|it| format!("-{it}")).collect(),
        };
        for option in options {
            let is_it = |it: &str| {
                it.trim_matches([',', '[', ']']).split(['=', '[']).next() == Some(&option)
            };
            if !text.split_whitespace().chain(general.split_whitespace()).any(is_it) {
                return Err(format!("there is no `{option}`"));
            }
        }
    }
    Ok(())
}
