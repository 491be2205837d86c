//! Recipes compared: the readable parts of two keys of one step.

use serde_json::{Map, Value};

/// What two recipes differ in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Difference {
    /// The layers below.
    Parent,
    /// Files that are read.
    Content,
    /// A variable; values as they are.
    Variable { name: String, was: Option<String>, now: Option<String> },
    /// Variables are the same in another order.
    Order,
    /// The words to run, or a script, though the instruction is written the same.
    Command { was: Vec<String>, now: Vec<String> },
    /// Something else that an instruction or an option says.
    Setting { field: String, was: String, now: String },
}

impl Difference {
    /// Whether it comes from the text of the instruction, if that is another one.
    pub(super) fn is_of_text(&self) -> bool {
        const OF_TEXT: [&str; 19] = [
            "script",
            "script text",
            "dest",
            "inline",
            "bind",
            "cache",
            "tmpfs",
            "secret",
            "ssh",
            "seed",
            "link",
            "chown",
            "chmod",
            "excludes",
            "item",
            "path",
            "pattern",
            "network",
            "security",
        ];
        match self {
            Self::Command { .. } => true,
            Self::Setting { field, .. } => OF_TEXT.contains(&plain(field)),
            _ => false,
        }
    }
}

/// The name of a field without the number of those that come again.
fn plain(field: &str) -> &str {
    match field.rsplit_once(' ') {
        Some((name, number)) if number.bytes().all(|it| it.is_ascii_digit()) => name,
        _ => field,
    }
}

/// Compares two recipes. Fields that only one of them can have, because it names layers and the other contents, are passed over.
pub(super) fn compare(was: &Value, now: &Value) -> Vec<Difference> {
    let empty = Map::new();
    let (was, now) = (was.as_object().unwrap_or(&empty), now.as_object().unwrap_or(&empty));
    let by_layers = |it: &Map<String, Value>| {
        matches!(it.get("kind").and_then(Value::as_str), Some("copy from layers" | "run"))
    };
    let are_alike = by_layers(was) == by_layers(now);
    let mut found = Vec::new();
    let fields = now.keys().chain(was.keys().filter(|it| !now.contains_key(*it)));
    let mut has_content = false;
    for field in fields {
        let (old, new) = (was.get(field), now.get(field));
        if old == new {
            continue;
        }
        match plain(field) {
            "kind" => {}
            "parent" => found.push(Difference::Parent),
            "content" | "files" | "of" | "source" => {
                if are_alike && !has_content {
                    has_content = true;
                    found.push(Difference::Content);
                }
            }
            // Only keys of layers have these.
            "path" | "pattern" if !are_alike => {}
            "env" => variables(&texts(old), &texts(new), &mut found),
            "args" => found.push(Difference::Command { was: texts(old), now: texts(new) }),
            "script text" => {
                found.push(Difference::Command { was: lines(old), now: lines(new) });
            }
            _ => found.push(Difference::Setting {
                field: field.clone(),
                was: shown(old),
                now: shown(new),
            }),
        }
    }
    found
}

fn texts(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(|it| it.as_str().map(str::to_owned)).collect()
}

fn lines(value: Option<&Value>) -> Vec<String> {
    shown(value).lines().map(str::to_owned).collect()
}

fn shown(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(_)) => texts(value).join(" "),
        Some(other) => other.to_string(),
    }
}

fn variables(was: &[String], now: &[String], found: &mut Vec<Difference>) {
    let split = |it: &String| -> (String, String) {
        let (name, value) = it.split_once('=').unwrap_or((it, ""));
        (name.to_owned(), value.to_owned())
    };
    let (was, now): (Vec<_>, Vec<_>) =
        (was.iter().map(split).collect(), now.iter().map(split).collect());
    let value = |of: &[(String, String)], name: &str| {
        of.iter().find(|it| it.0 == name).map(|it| it.1.clone())
    };
    let n_before = found.len();
    for (name, new) in &now {
        let old = value(&was, name);
        if old.as_ref() != Some(new) {
            let (name, now) = (name.clone(), Some(new.clone()));
            found.push(Difference::Variable { name, was: old, now });
        }
    }
    for (name, old) in was.iter().filter(|it| value(&now, &it.0).is_none()) {
        let (name, was) = (name.clone(), Some(old.clone()));
        found.push(Difference::Variable { name, was, now: None });
    }
    if found.len() == n_before {
        found.push(Difference::Order);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_that_differ_are_named() {
        let was = json!({"kind": "run", "parent": "1", "env": ["A=1", "B=2", "C=3"],
            "args": ["/bin/sh", "-c", "x"], "cwd": "/", "secret 2": "a", "hosts": ["db"]});
        let now = json!({"kind": "run", "parent": "2", "env": ["B=2", "A=4", "D=5"],
            "args": ["/bin/sh", "-c", "x"], "cwd": "/app", "hosts": ["db", "web"]});
        let found = compare(&was, &now);
        let text = |it: &str| it.to_owned();
        let variable = |name: &str, was: Option<&str>, now: Option<&str>| Difference::Variable {
            name: text(name),
            was: was.map(text),
            now: now.map(text),
        };
        let setting = |field: &str, was: &str, now: &str| Difference::Setting {
            field: text(field),
            was: text(was),
            now: text(now),
        };
        let expected = [
            setting("cwd", "/", "/app"),
            variable("A", Some("1"), Some("4")),
            variable("D", None, Some("5")),
            variable("C", Some("3"), None),
            setting("hosts", "db", "db web"),
            Difference::Parent,
            setting("secret 2", "a", ""),
        ];
        assert_eq!(found, expected);
        assert!(expected[6].is_of_text() && !expected[0].is_of_text());
        assert_eq!(compare(&was, &was), []);
    }

    #[test]
    fn order_counts_where_nothing_else_does() {
        let recipe = |env: &[&str]| json!({"kind": "run", "env": env});
        let found = compare(&recipe(&["A=1", "B=2"]), &recipe(&["B=2", "A=1"]));
        assert_eq!(found, [Difference::Order]);
    }

    #[test]
    fn keys_of_layers_and_keys_of_contents_have_other_fields() {
        let layers = json!({"kind": "copy from layers", "dest": "/", "source": "1", "path": "/a"});
        let contents = json!({"kind": "copy", "dest": "/", "content": "2", "files": "1"});
        assert_eq!(compare(&layers, &contents), []);
        let others = json!({"kind": "copy", "dest": "/", "content": "3", "files": "2"});
        assert_eq!(compare(&contents, &others), [Difference::Content]);
    }
}
