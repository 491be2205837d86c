//! The part of Go's templates that people give to `--format`: text, fields, `json`, `index`, `len`.
//!
//! | written | gives |
//! |---|---|
//! | `{{.Config.User}}` | the field, as Go prints it: lists as `[a b]`, maps as `map[k:v]` |
//! | `{{json .Config}}` | the field as JSON |
//! | `{{index .RepoTags 0}}`, `{{index .Labels "a"}}` | an element |
//! | `{{len .Layers}}` | the number of elements |
//! | `{{upper .X}}`, `{{lower .X}}`, `{{join .X ","}}` | text |
//! | `\t`, `\n` | tab, newline |

use std::fmt::Write;

use serde_json::Value;

/// A template that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Call { function: Function, path: Vec<String>, args: Vec<String> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Show,
    Json,
    Index,
    Len,
    Upper,
    Lower,
    Join,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    ///
    /// Returns a message that names the part that is not understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find("{{") {
            parts.push(Part::Text(unescape(&rest[..at])));
            let (inside, after) = rest[at + 2..]
                .split_once("}}")
                .ok_or_else(|| format!("`{text}` has `{{{{` without `}}}}`"))?;
            let inside = inside.trim_start_matches("- ").trim_end_matches(" -").trim();
            parts
                .push(call(inside).ok_or_else(|| format!("`{{{{{inside}}}}}` is not understood"))?);
            rest = after;
        }
        parts.push(Part::Text(unescape(rest)));
        Ok(Self { parts })
    }

    /// Fills the template in.
    ///
    /// # Errors
    ///
    /// Returns a message that names the field that is not there.
    pub fn fill(&self, value: &Value) -> Result<String, String> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Call { function, path, args } => {
                    out.push_str(&apply(*function, field(value, path)?, args)?)
                }
            }
        }
        Ok(out)
    }
}

fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

fn call(text: &str) -> Option<Part> {
    let mut words = words(text)?.into_iter().peekable();
    let function = match words.peek()?.as_str() {
        "json" => Function::Json,
        "index" => Function::Index,
        "len" => Function::Len,
        "upper" => Function::Upper,
        "lower" => Function::Lower,
        "join" => Function::Join,
        _ => Function::Show,
    };
    if function != Function::Show {
        words.next();
    }
    let path = words.next()?;
    let path =
        path.strip_prefix('.')?.split('.').filter(|it| !it.is_empty()).map(str::to_owned).collect();
    let args: Vec<String> = words.collect();
    let fits = match function {
        Function::Index => !args.is_empty(),
        Function::Join => args.len() == 1,
        _ => args.is_empty(),
    };
    fits.then_some(Part::Call { function, path, args })
}

/// Splits at blanks; text in double quotes is one word.
fn words(text: &str) -> Option<Vec<String>> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len())),
        };
        out.push(word.to_owned());
        rest = after.trim_start();
    }
    Some(out)
}

fn field<'a>(value: &'a Value, path: &[String]) -> Result<&'a Value, String> {
    path.iter().try_fold(value, |value, name| match value {
        Value::Null => Ok(value),
        _ => value.get(name).ok_or_else(|| format!("there is no field `.{}`", path.join("."))),
    })
}

fn apply(function: Function, value: &Value, args: &[String]) -> Result<String, String> {
    Ok(match function {
        Function::Show => show(value),
        Function::Json => value.to_string(),
        Function::Upper => show(value).to_uppercase(),
        Function::Lower => show(value).to_lowercase(),
        Function::Join => match value {
            Value::Array(values) => values.iter().map(show).collect::<Vec<_>>().join(&args[0]),
            other => show(other),
        },
        Function::Len => match value {
            Value::Array(values) => values.len().to_string(),
            Value::Object(map) => map.len().to_string(),
            Value::String(text) => text.len().to_string(),
            _ => "0".to_owned(),
        },
        Function::Index => {
            let found = args.iter().try_fold(value, |value, arg| match value {
                Value::Array(values) => values.get(arg.parse::<usize>().ok()?),
                other => other.get(arg),
            });
            match (found, value) {
                (Some(found), _) => show(found),
                // A key that is not in a map is empty in Go, an index beyond a list an error.
                (None, Value::Object(_) | Value::Null) => String::new(),
                (None, _) => return Err(format!("there is no element {}", args.join(" "))),
            }
        }
    })
}

/// Writes a value as Go's `fmt` does.
fn show(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) => {
            format!("[{}]", values.iter().map(show).collect::<Vec<_>>().join(" "))
        }
        Value::Object(map) => {
            let mut out = String::from("map[");
            for (n, (key, value)) in map.iter().enumerate() {
                let _ = write!(out, "{}{key}:{}", if n > 0 { " " } else { "" }, show(value));
            }
            out + "]"
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_and_functions() {
        let value = json!({ "A": { "B": "x", "L": ["p", "q"] }, "N": 3, "M": { "k": "v" } });
        let filled = |text: &str| Template::parse(text)?.fill(&value);
        for (text, expected) in [
            ("{{.A.B}}\\t{{ .N }}!", "x\t3!"),
            ("{{json .A}}", r#"{"B":"x","L":["p","q"]}"#),
            ("{{.A.L}} {{.M}}", "[p q] map[k:v]"),
            ("{{index .A.L 1}}{{index .M \"k\"}}{{index .M \"none\"}}", "qv"),
            ("{{len .A.L}} {{upper .A.B}} {{join .A.L \", \"}}", "2 X p, q"),
            ("{{json .}}", &value.to_string()),
        ] {
            assert_eq!(filled(text).as_deref(), Ok(expected), "{text}");
        }
        for bad in ["{{.A", "{{range .A}}", "{{.None}}", "{{index .A.L 7}}", "{{}}", "{{index .A}}"]
        {
            assert!(filled(bad).is_err(), "{bad}");
        }
    }
}
