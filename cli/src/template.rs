//! The part of Go's templates that people give to `--format`.
//!
//! | written | gives |
//! |---|---|
//! | `{{.Config.User}}` | the field, as Go prints it: lists as `[a b]`, maps as `map[k:v]` |
//! | `{{json .Config}}` | the field as JSON |
//! | `{{println .X}}` | the field and a newline |
//! | `{{index .RepoTags 0}}`, `{{index .Labels "a"}}` | an element |
//! | `{{len .Layers}}` | the number of elements |
//! | `{{upper .X}}`, `{{lower .X}}`, `{{join .X ","}}` | text |
//! | `{{eq .X "a"}}`, `{{ne .X "a"}}`, `{{not .X}}` | `true` or `false` |
//! | `{{range .X}}…{{.}}…{{else}}…{{end}}`, `{{range $k, $v := .X}}…{{$k}}…{{end}}` | the body for each element |
//! | `{{if .X}}…{{else}}…{{end}}`, `{{with .X}}…{{end}}` | the body, if the field is not empty |
//! | `{{- ` and ` -}}` | no white space before, after |
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
    Call(Call),
    Block(Block),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Block {
    kind: Kind,
    /// The variables of `range $k, $v :=`: none, the element, or key and element.
    names: Vec<String>,
    over: Call,
    body: Vec<Part>,
    otherwise: Vec<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Range,
    If,
    With,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Call {
    function: Function,
    /// The variable that the path starts at; `None` for the dot, an empty one for the whole document.
    variable: Option<String>,
    path: Vec<String>,
    args: Vec<String>,
}

/// Blocks may stand in blocks this deep, so that no template exhausts the stack.
const MAX_DEPTH: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Show,
    Json,
    Println,
    Index,
    Len,
    Upper,
    Lower,
    Join,
    Eq,
    Ne,
    Not,
}

/// A value, and what stands in for it where it is absent.
#[derive(Debug, Clone, Default)]
struct Operand {
    value: Option<Value>,
    default: Option<Value>,
}

/// The dot, and the variables, the innermost last.
#[derive(Debug, Clone)]
struct Scope {
    dot: Operand,
    variables: Vec<(String, Operand)>,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    ///
    /// Returns a message that names the part that is not understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut rest = text;
        let (parts, end) = parts(text, &mut rest, 0)?;
        match end {
            None => Ok(Self { parts }),
            Some(word) => Err(format!("`{text}` has `{{{{{word}}}}}` without a beginning")),
        }
    }

    /// Fills the template in. `defaults` has the fields that may be absent, each with what it is when empty; an empty map
    /// in it may have any key.
    ///
    /// # Errors
    ///
    /// Returns a message that names the field that is not there.
    pub fn fill(&self, value: &Value, defaults: &Value) -> Result<String, String> {
        let dot = Operand { value: Some(value.clone()), default: Some(defaults.clone()) };
        let scope = Scope { variables: vec![(String::new(), dot.clone())], dot };
        let mut out = String::new();
        fill(&self.parts, &scope, &mut out)?;
        Ok(out)
    }
}

/// Reads parts up to the end of the text, or to the `end` or `else` that is returned.
fn parts(
    whole: &str,
    rest: &mut &str,
    depth: usize,
) -> Result<(Vec<Part>, Option<&'static str>), String> {
    if depth > MAX_DEPTH {
        return Err(format!("the template has blocks in blocks, more than {MAX_DEPTH} deep"));
    }
    let mut parts = Vec::new();
    while let Some((before, opened)) = rest.split_once("{{") {
        let (inside, after) = opened
            .split_once("}}")
            .ok_or_else(|| format!("`{whole}` has `{{{{` without `}}}}`"))?;
        let trimmed = inside.strip_prefix("- ");
        let before = if trimmed.is_some() { before.trim_end() } else { before };
        parts.push(Part::Text(unescape(before)));
        let inside = trimmed.unwrap_or(inside);
        *rest = if inside.ends_with(" -") { after.trim_start() } else { after };
        let inside = inside.strip_suffix(" -").unwrap_or(inside).trim();
        let unknown = || format!("`{{{{{inside}}}}}` is not understood");
        let (word, argument) = inside.split_once(char::is_whitespace).unwrap_or((inside, ""));
        let kind = match word {
            "end" if argument.is_empty() => return Ok((parts, Some("end"))),
            "else" if argument.is_empty() => return Ok((parts, Some("else"))),
            "range" => Kind::Range,
            "if" => Kind::If,
            "with" => Kind::With,
            _ => {
                parts.push(Part::Call(call(inside).ok_or_else(unknown)?));
                continue;
            }
        };
        let (names, over) = match argument.split_once(":=") {
            Some((names, over)) if kind == Kind::Range => (variables(names), over),
            Some(_) => return Err(unknown()),
            None => (Some(Vec::new()), argument),
        };
        let (names, over) = names.zip(call(over)).ok_or_else(unknown)?;
        let (body, mut end) = self::parts(whole, rest, depth + 1)?;
        let mut otherwise = Vec::new();
        if end == Some("else") {
            (otherwise, end) = self::parts(whole, rest, depth + 1)?;
        }
        if end != Some("end") {
            return Err(format!("`{{{{{inside}}}}}` has no `{{{{end}}}}`"));
        }
        parts.push(Part::Block(Block { kind, names, over, body, otherwise }));
    }
    parts.push(Part::Text(unescape(rest)));
    *rest = "";
    Ok((parts, None))
}

fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

fn variables(text: &str) -> Option<Vec<String>> {
    let names: Option<Vec<String>> =
        text.split(',').map(|it| it.trim().strip_prefix('$').map(str::to_owned)).collect();
    names.filter(|it| it.len() <= 2 && it.iter().all(|name| !name.is_empty()))
}

fn call(text: &str) -> Option<Call> {
    let mut words = words(text)?.into_iter().peekable();
    let function = match words.peek()?.as_str() {
        "json" => Function::Json,
        "println" => Function::Println,
        "index" => Function::Index,
        "len" => Function::Len,
        "upper" => Function::Upper,
        "lower" => Function::Lower,
        "join" => Function::Join,
        "eq" => Function::Eq,
        "ne" => Function::Ne,
        "not" => Function::Not,
        _ => Function::Show,
    };
    if function != Function::Show {
        words.next();
    }
    let operand = words.next()?;
    let (variable, path) = match operand.strip_prefix('$') {
        Some(text) => {
            let (name, path) = text.split_once('.').unwrap_or((text, ""));
            (Some(name.to_owned()), path)
        }
        None => (None, operand.strip_prefix('.')?),
    };
    let path = path.split('.').filter(|it| !it.is_empty()).map(str::to_owned).collect();
    let args: Vec<String> = words.collect();
    let fits = match function {
        Function::Index => !args.is_empty(),
        Function::Join | Function::Eq | Function::Ne => args.len() == 1,
        _ => args.is_empty(),
    };
    fits.then_some(Call { function, variable, path, args })
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

fn fill(parts: &[Part], scope: &Scope, out: &mut String) -> Result<(), String> {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Call(call) => out.push_str(&result(call, scope)?.show()),
            Part::Block(block) => fill_block(block, scope, out)?,
        }
    }
    Ok(())
}

fn fill_block(block: &Block, scope: &Scope, out: &mut String) -> Result<(), String> {
    let over = result(&block.over, scope)?;
    if is_empty(over.seen()) {
        return fill(&block.otherwise, scope, out);
    }
    match block.kind {
        Kind::If => fill(&block.body, scope, out),
        Kind::With => fill(&block.body, &Scope { dot: over, ..scope.clone() }, out),
        Kind::Range => {
            let elements: Vec<(Value, Value)> = match over.seen() {
                Value::Array(values) => {
                    values.iter().enumerate().map(|(n, it)| (Value::from(n), it.clone())).collect()
                }
                Value::Object(map) => {
                    map.iter().map(|(key, it)| (Value::from(key.as_str()), it.clone())).collect()
                }
                other => return Err(format!("there is no range over `{}`", show(other))),
            };
            for (key, element) in elements {
                let mut inner = Scope { dot: Operand::of(element.clone()), ..scope.clone() };
                // One variable is the element, two are key and element.
                let values = [key, element].into_iter().skip(2 - block.names.len());
                let named = block.names.iter().cloned().zip(values.map(Operand::of));
                inner.variables.extend(named);
                fill(&block.body, &inner, out)?;
            }
            Ok(())
        }
    }
}

impl Operand {
    fn of(value: Value) -> Self {
        Self { value: Some(value), default: None }
    }

    /// The value, or else what stands in for it.
    fn seen(&self) -> &Value {
        match &self.value {
            Some(value) if !value.is_null() => value,
            _ => self.default.as_ref().unwrap_or(&Value::Null),
        }
    }

    fn show(&self) -> String {
        match (self.seen(), &self.default) {
            (Value::Null, Some(_)) => "<nil>".to_owned(),
            (value, _) => show(value),
        }
    }

    /// As JSON, where lists and maps that are not there are `null`, as Go's are.
    fn json(&self) -> String {
        match (&self.value, self.seen()) {
            (None | Some(Value::Null), Value::Array(_) | Value::Object(_)) => "null".to_owned(),
            (_, value) => value.to_string(),
        }
    }

    fn field(&self, name: &str) -> Option<Self> {
        let value = self.value.as_ref().and_then(|it| it.get(name)).cloned();
        let default = self.default.as_ref().and_then(|it| it.get(name)).cloned();
        let is_open =
            self.default.as_ref().and_then(Value::as_object).is_some_and(|it| it.is_empty());
        let may_be_absent = default.is_some() || is_open || self.seen().is_null();
        (value.is_some() || may_be_absent).then_some(Self { value, default })
    }
}

fn result(call: &Call, scope: &Scope) -> Result<Operand, String> {
    let start = match &call.variable {
        None => &scope.dot,
        Some(name) => {
            let found = scope.variables.iter().rev().find(|it| it.0 == *name);
            found.map(|it| &it.1).ok_or_else(|| format!("there is no variable `${name}`"))?
        }
    };
    let operand = call.path.iter().try_fold(start.clone(), |operand, name| {
        operand.field(name).ok_or_else(|| format!("there is no field `.{}`", call.path.join(".")))
    })?;
    if call.function == Function::Show {
        return Ok(operand);
    }
    apply(call.function, &operand, &call.args).map(Operand::of)
}

fn apply(function: Function, operand: &Operand, args: &[String]) -> Result<Value, String> {
    let value = operand.seen();
    Ok(match function {
        Function::Show => value.clone(),
        Function::Json => operand.json().into(),
        Function::Println => (operand.show() + "\n").into(),
        Function::Upper => operand.show().to_uppercase().into(),
        Function::Lower => operand.show().to_lowercase().into(),
        Function::Eq => (operand.show() == args[0]).into(),
        Function::Ne => (operand.show() != args[0]).into(),
        Function::Not => is_empty(value).into(),
        Function::Join => match value {
            Value::Array(values) => {
                values.iter().map(show).collect::<Vec<_>>().join(&args[0]).into()
            }
            other => show(other).into(),
        },
        Function::Len => match value {
            Value::Array(values) => values.len().into(),
            Value::Object(map) => map.len().into(),
            Value::String(text) => text.len().into(),
            _ => 0.into(),
        },
        Function::Index => {
            let found = args.iter().try_fold(value, |value, arg| match value {
                Value::Array(values) => values.get(arg.parse::<usize>().ok()?),
                other => other.get(arg),
            });
            match (found, value) {
                (Some(found), _) => found.clone(),
                // A key that is not in a map is empty in Go, an index beyond a list an error.
                (None, Value::Object(_) | Value::Null) => "".into(),
                (None, _) => return Err(format!("there is no element {}", args.join(" "))),
            }
        }
    })
}

/// Whether Go's `if` takes a value for false.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
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
        let filled = |text: &str| Template::parse(text)?.fill(&value, &Value::Null);
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

    #[test]
    fn blocks() {
        let value = json!({ "L": ["p", "q"], "M": { "k": "v", "l": "w" }, "E": [], "T": "x", "S": [{ "N": 1 }] });
        let filled = |text: &str| Template::parse(text)?.fill(&value, &Value::Null);
        for (text, expected) in [
            ("{{range .L}}{{println .}}{{end}}", "p\nq\n"),
            ("{{range .L}}<{{.}}>{{end}}!", "<p><q>!"),
            ("{{range $k, $v := .M}}{{$k}}={{$v}} {{end}}", "k=v l=w "),
            ("{{range $v := .M}}{{$v}}{{$.T}}{{end}}", "vxwx"),
            ("{{range .S}}{{.N}}{{end}}", "1"),
            ("{{range .E}}a{{else}}none{{end}}", "none"),
            ("{{if .T}}yes{{else}}no{{end}}{{if .E}}yes{{else}}no{{end}}", "yesno"),
            ("{{if eq .T \"x\"}}a{{end}}{{if ne .T \"x\"}}b{{end}}{{if not .E}}c{{end}}", "ac"),
            ("{{with .M}}{{.k}}{{end}}", "v"),
            ("{{range .L}}{{if .}}{{range $.L}}{{.}}{{end}},{{end}}{{end}}", "pq,pq,"),
            ("a {{- range .L -}} {{.}} {{- end}} b", "apq b"),
        ] {
            assert_eq!(filled(text).as_deref(), Ok(expected), "{text}");
        }
        for bad in [
            "{{range .L}}",
            "{{end}}",
            "{{else}}",
            "{{if .T}}a{{else}}b",
            "{{range .T}}a{{end}}",
            "{{$x}}",
            "{{range}}{{end}}",
            "{{range $a, $b, $c := .L}}{{end}}",
            "{{range .L}}{{.X}}{{end}}",
            "{{if .T}}{{else}}{{else}}{{end}}",
        ] {
            assert!(filled(bad).is_err(), "{bad}");
        }
        let deep = ["{{if .T}}".repeat(100_000), "{{end}}".repeat(100_000)].concat();
        assert!(filled(&deep).is_err_and(|it| it.contains("deep")));
    }

    #[test]
    fn what_may_be_absent_is_empty() {
        let value = json!({ "C": { "Labels": { "a": "b" } }, "Time": null });
        let defaults = json!({ "Time": "", "C": { "User": "", "Cmd": [], "Volumes": {}, "Labels": {}, "Check": null } });
        let filled = |text: &str| Template::parse(text)?.fill(&value, &defaults);
        for (text, expected) in [
            ("<{{.C.User}}{{.Time}}>", "<>"),
            ("{{.C.Cmd}} {{.C.Volumes}} {{.C.Check}}", "[] map[] <nil>"),
            (
                "{{json .C.Cmd}} {{json .C.User}} {{json .C.Volumes}} {{json .C}}",
                r#"null "" null {"Labels":{"a":"b"}}"#,
            ),
            ("{{.C.Labels.none}}", "<no value>"),
            ("{{len .C.Cmd}}{{range .C.Cmd}}x{{end}}{{with .C}}{{.User}}{{end}}", "0"),
        ] {
            assert_eq!(filled(text).as_deref(), Ok(expected), "{text}");
        }
        assert!(filled("{{.C.Usr}}").is_err());
    }
}
