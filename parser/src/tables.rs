//! The tables of what BuildKit makes of Dockerfiles, row by row.
//!
//! They are read from the conformance folder beside the project. Node-level rows (`parser.json`) are compared with
//! statements, instruction-level rows (`instructions.json`) with the tree.

use std::{
    format,
    path::Path,
    println,
    string::{String, ToString},
    vec::Vec,
};

use serde_json::{Value, json};

use crate::{
    ast::{Command, CopySource, Healthcheck, Heredoc, Instruction, Kind, Text},
    device,
    error::{Diagnostic, Mistake},
    ignore, mount,
    node::{Args, Node},
    parse,
    span::Lines,
    statement::{Statement, Statements},
    suggest, syntax,
};

fn rows(name: &str) -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance/tables");
    let path = folder.join(format!("{name}.json"));
    let text = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).unwrap()
}

/// Runs `check` on all rows and names all that fail.
fn all(name: &str, mut check: impl FnMut(&Value) -> Result<(), String>) {
    let rows = rows(name);
    assert!(!rows.is_empty());
    let mut failed = 0;
    for row in &rows {
        if let Err(message) = check(row) {
            failed += 1;
            println!("{}: {}\n{message}\n", row["name"], row["dockerfile"]);
        }
    }
    assert_eq!(failed, 0, "of {} rows", rows.len());
}

fn same(what: &str, actual: &Value, expected: &Value) -> Result<(), String> {
    if actual == expected {
        return Ok(());
    }
    Err(format!("{what}\n  actual   {actual}\n  expected {expected}"))
}

fn range(lines: Lines) -> Value {
    json!((lines.first..=lines.last).collect::<Vec<_>>())
}

fn pair(lines: Lines) -> Value {
    json!([lines.first, lines.last])
}

#[test]
fn parser() {
    all("parser", |row| {
        let text = row["dockerfile"].as_str().unwrap();
        let mut statements = Statements::new(text, '\\');
        let list: Vec<Statement> = core::iter::from_fn(|| statements.next()).collect();
        let escape = statements.escape;
        let diagnostics = core::mem::take(&mut statements.report).finish();
        if row.get("error").is_some() {
            return match parse(text).1.first() {
                Some(it) => same("error_lines", &error_lines(it), &row["error_lines"]),
                None => Err("no error".into()),
            };
        }
        same("diagnostics", &json!(messages(&diagnostics)), &json!([]))?;
        let nodes: Vec<Value> = list.iter().map(node).collect();
        same("nodes", &json!(nodes), &row["nodes"])?;
        same("escape", &json!(escape), &row["escape"])?;
        let lines = json!([list[0].lines.first, list[list.len() - 1].lines.last]);
        same("lines", &lines, &row["lines"])?;
        let warnings: Vec<Value> = list
            .iter()
            .filter(|it| !it.empty_continuations.is_empty())
            .map(|it| {
                let short = format!("Empty continuation line found in: {}", it.line.text);
                json!({ "line": it.lines.last, "short": short })
            })
            .collect();
        let none = json!([]);
        same("warnings", &json!(warnings), row.get("warnings").unwrap_or(&none))?;
        let syntax = syntax::detect(text)
            .map(|it| json!({ "cmdline": it.command_line, "line": it.line, "ref": it.reference }));
        same("syntax", &json!(syntax), &row["syntax"])?;
        let check = syntax::directive(text, "check").map(
            |it| json!({ "cmdline": it.command_line, "line": it.line, "value": it.reference }),
        );
        same("check", &json!(check), &row["check"])
    });
}

/// BuildKit counts the lines of directives from 0, and gives a file without instructions its last line.
fn error_lines(it: &Diagnostic) -> Value {
    match it.kind {
        Mistake::DuplicateDirective { .. } | Mistake::InvalidEscape { .. } => {
            json!([it.lines.first - 1])
        }
        Mistake::NoInstructions => json!([it.lines.last]),
        _ => range(it.lines),
    }
}

fn messages(diagnostics: &[Diagnostic]) -> Vec<String> {
    diagnostics.iter().map(ToString::to_string).collect()
}

fn texts(list: &[Text]) -> Vec<&str> {
    list.iter().map(|it| it.value.as_str()).collect()
}

fn node(statement: &Statement) -> Value {
    let mut value = parts(&statement.node, &statement.line.text);
    let object = value.as_object_mut().unwrap();
    object.insert("lines".into(), pair(statement.lines));
    let comments: Vec<&str> = statement.comments.iter().map(|it| it.text.as_str()).collect();
    if !comments.is_empty() {
        object.insert("comments".into(), json!(comments));
    }
    let heredocs: Vec<Value> = statement.heredocs.iter().map(heredoc).collect();
    if !heredocs.is_empty() {
        object.insert("heredocs".into(), json!(heredocs));
    }
    value
}

fn heredoc(it: &Heredoc) -> Value {
    json!({ "chomp": it.chomp, "content": it.raw, "expand": it.expand, "fd": it.fd, "name": it.name })
}

fn parts(node: &Node, original: &str) -> Value {
    let mut value =
        json!({ "instruction": node.keyword.value, "lines": [0, 0], "original": original });
    let object = value.as_object_mut().unwrap();
    let joined: Vec<String>;
    let args = match &node.args {
        Args::Words(words) => texts(words),
        Args::Optional(pairs) => {
            let join = |(key, value): &(Text, Option<Text>)| match value {
                Some(value) => format!("{}={}", key.value, value.value),
                None => key.value.clone(),
            };
            joined = pairs.iter().map(join).collect();
            joined.iter().map(String::as_str).collect()
        }
        Args::Pairs { pairs, legacy } => {
            let sign = if *legacy { "" } else { "=" };
            pairs.iter().flat_map(|it| [it.0.value.as_str(), it.1.value.as_str(), sign]).collect()
        }
        Args::Trigger(trigger) => {
            // What stands behind the keyword and its flags.
            let start = original.rfind(&trigger.keyword.value).unwrap();
            let first =
                original.find(&format!(" {}", trigger.keyword.value)).map_or(start, |it| it + 1);
            object.insert("trigger".into(), json!([parts(trigger, original[first..].trim())]));
            Vec::new()
        }
        Args::Skipped => [""].into(),
        Args::Broken => panic!("reported before"),
    };
    if !args.is_empty() {
        object.insert("args".into(), json!(args));
    }
    if !node.flags.is_empty() {
        let flags: Vec<&str> = node.flags.iter().map(|it| it.text.value.as_str()).collect();
        object.insert("flags".into(), json!(flags));
    }
    if node.json {
        object.insert("json".into(), json!(true));
    }
    value
}

#[test]
fn instructions() {
    all("instructions", |row| {
        let text = row["dockerfile"].as_str().unwrap();
        let (dockerfile, diagnostics) = parse(text);
        if row.get("error").is_some() {
            return match diagnostics.first() {
                Some(it) => same("error_lines", &error_lines(it), &row["error_lines"]),
                None => Err("no error".into()),
            };
        }
        // BuildKit finds mistakes in mounts only when it builds the stage.
        let (in_mounts, others): (Vec<_>, Vec<_>) =
            diagnostics.into_iter().partition(|it| matches!(it.kind, Mistake::Mount(_)));
        same("diagnostics", &json!(messages(&others)), &json!([]))?;
        let mut globals = Vec::new();
        let mut stages: Vec<Value> = Vec::new();
        for it in &dockerfile.instructions {
            match (&it.kind, stages.last_mut()) {
                (Kind::From(_), _) => stages.push(stage(it)),
                (_, None) => globals.push(json!({ "fields": fields(it), "lines": pair(it.lines) })),
                (_, Some(stage)) => {
                    let reported = in_mounts.iter().any(|d| d.lines == it.lines);
                    let commands = stage.as_object_mut().unwrap().entry("commands");
                    let commands = commands.or_insert_with(|| json!([]));
                    commands.as_array_mut().unwrap().push(command(it, reported));
                }
            }
        }
        let mut expected = row["stages"].clone();
        for stage in expected.as_array_mut().into_iter().flatten() {
            for command in stage["commands"].as_array_mut().into_iter().flatten() {
                normalise(command);
            }
            if stage["commands"].is_null() {
                stage.as_object_mut().unwrap().remove("commands");
            }
        }
        let stages = if stages.is_empty() { Value::Null } else { json!(stages) };
        same("stages", &stages, &expected)?;
        let none = json!([]);
        same("globals", &json!(globals), row.get("global_args").unwrap_or(&none))
    });
}

/// What the tree says in another way than BuildKit.
fn normalise(command: &mut Value) {
    if let Some(error) = command.get_mut("mount_error") {
        // A variable where a type should be is a mistake only if it is not expanded.
        *error = json!(!error.as_str().unwrap().contains('$'));
    }
    if let Some(ports) = command["fields"]["Ports"].as_array_mut() {
        ports.sort_by_key(ToString::to_string);
    }
    let fields = &mut command["fields"];
    // A missing command is an empty text for the shell.
    let missing = fields["CmdLine"].is_null() || fields["CmdLine"] == json!([]);
    let empty = command["name"] == json!("ENTRYPOINT") && missing;
    let fields = &mut command["fields"];
    if empty && fields["PrependShell"].is_null() {
        fields["CmdLine"] = json!([]);
    } else if fields["PrependShell"] == json!(true) && missing {
        fields["CmdLine"] = json!([""]);
    }
    for mount in command["mounts"].as_array_mut().into_iter().flatten() {
        if mount["CacheSharing"] == json!("shared") {
            mount.as_object_mut().unwrap().remove("CacheSharing");
        }
    }
    if let Some(object) = command["fields"].as_object_mut() {
        object.retain(|_, it| !it.is_null());
    }
    command.as_object_mut().unwrap().retain(|_, it| !it.is_null());
}

fn stage(it: &Instruction) -> Value {
    let Kind::From(from) = &it.kind else { unreachable!() };
    let name = from.name.as_ref().map(|it| it.value.to_lowercase());
    let doc = name.as_deref().and_then(|name| it.description(name));
    let platform = from.platform.as_ref().map(|it| &it.value);
    let mut value = json!({ "base": from.base.value, "lines": pair(it.lines) });
    let object = value.as_object_mut().unwrap();
    for (key, text) in [("name", json!(name)), ("doc", json!(doc)), ("platform", json!(platform))] {
        if !text.is_null() {
            object.insert(key.into(), text);
        }
    }
    value
}

fn command(it: &Instruction, reported: bool) -> Value {
    let mut value =
        json!({ "fields": fields(it), "lines": pair(it.lines), "name": it.keyword.value });
    let object = value.as_object_mut().unwrap();
    let Kind::Run(run) = &it.kind else {
        return value;
    };
    let mounts: Result<Vec<Value>, _> = run.mounts.iter().map(|it| mount(&it.fields)).collect();
    match mounts {
        Ok(mounts) if mounts.is_empty() => {}
        Ok(mounts) => {
            assert!(!reported, "{it:?}");
            object.insert("mounts".into(), json!(mounts));
        }
        Err(_) => {
            object.insert("mount_error".into(), json!(reported));
        }
    }
    let text = |it: &Option<Text>| it.as_ref().map(|it| it.value.clone());
    if let Some(network) = text(&run.network).filter(|it| it != "default") {
        object.insert("network".into(), json!(network));
    }
    if let Some(security) = text(&run.security).filter(|it| it != "sandbox") {
        object.insert("security".into(), json!(security));
    }
    if !run.devices.is_empty() {
        let device = |it: &Text| {
            let device = device::parse(&it.value).unwrap();
            format!("{} required={}", device.name, device.required)
        };
        object.insert("devices".into(), json!(run.devices.iter().map(device).collect::<Vec<_>>()));
    }
    value
}

fn mount(fields: &[(String, Option<String>)]) -> Result<Value, mount::MountKind> {
    let spec = mount::resolve(fields).map_err(|_| mount::MountKind::Bind)?;
    let sharing = match spec.sharing {
        mount::Sharing::Shared => Value::Null,
        mount::Sharing::Private => json!("private"),
        mount::Sharing::Locked => json!("locked"),
    };
    let switch = |it: bool| if it { json!(true) } else { Value::Null };
    let mut value = json!({
        "Type": spec.kind.as_str(),
        "Target": spec.target,
        "Source": spec.source,
        "From": spec.from,
        "ReadOnly": switch(spec.read_only),
        "CacheID": spec.id,
        "CacheSharing": sharing,
        "Required": switch(spec.required),
        "SizeLimit": spec.size,
        "Mode": spec.mode,
        "UID": spec.uid,
        "GID": spec.gid,
        "Env": spec.env,
    });
    value.as_object_mut().unwrap().retain(|_, it| !it.is_null());
    Ok(value)
}

fn fields(it: &Instruction) -> Value {
    let text = |it: &Option<Text>| json!(it.as_ref().map(|it| &it.value));
    let switch = |it: bool| if it { json!(true) } else { Value::Null };
    let list = |it: Vec<Value>| if it.is_empty() { Value::Null } else { json!(it) };
    let pairs = |it: &crate::ast::Pairs| -> Vec<Value> {
        let pair = |(key, value): &(Text, Text)| json!({ "Key": key.value, "NoDelim": it.legacy, "Value": value.value });
        it.pairs.iter().map(pair).collect()
    };
    let line = |it: &Command| match it {
        Command::Shell(text) => (json!([text.value]), json!(true)),
        Command::Exec(words) => (json!(texts(words)), Value::Null),
    };
    let copy = |it: &crate::ast::Copy| {
        let path = |it: &CopySource| match it {
            CopySource::Path(path) => Some(json!(path.value)),
            CopySource::Heredoc(..) => None,
        };
        let content = |it: &CopySource| match it {
            CopySource::Path(_) => None,
            CopySource::Heredoc(it, _) => {
                Some(json!({ "Data": it.content, "Expand": it.expand, "Path": it.name }))
            }
        };
        json!({
            "Chmod": text(&it.chmod),
            "Chown": text(&it.chown),
            "DestPath": it.dest.value,
            "ExcludePatterns": list(it.excludes.iter().map(|it| json!(it.value)).collect()),
            "From": text(&it.from),
            "Link": switch(it.link),
            "Parents": switch(it.parents),
            "SourceContents": list(it.sources.iter().filter_map(content).collect()),
            "SourcePaths": list(it.sources.iter().filter_map(path).collect()),
        })
    };
    let mut value = match &it.kind {
        Kind::From(_) | Kind::Invalid => panic!("{it:?}"),
        Kind::Arg(arg) => {
            let args: Vec<Value> = arg
                .args
                .iter()
                .map(|pair| {
                    let key = &pair.key.value;
                    let doc = it.description(key).unwrap_or("");
                    json!({ "DocComment": doc, "Key": key, "Value": text(&pair.value) })
                })
                .collect();
            json!({ "Args": args })
        }
        Kind::Env(it) => json!({ "Env": pairs(it) }),
        Kind::Label(it) => json!({ "Labels": pairs(it) }),
        Kind::Run(run) => {
            let (words, shell) = line(&run.command);
            let used = [
                ("device", !run.devices.is_empty()),
                ("mount", !run.mounts.is_empty()),
                ("network", run.network.is_some()),
                ("security", run.security.is_some()),
            ];
            let used: Vec<&str> = used.iter().filter(|it| it.1).map(|it| it.0).collect();
            let files = run
                .heredocs
                .iter()
                .map(|it| json!({ "Chomp": it.chomp, "Data": it.raw, "Name": it.name }));
            json!({ "CmdLine": words, "Files": list(files.collect()), "FlagsUsed": used, "PrependShell": shell })
        }
        Kind::Copy(it) => copy(it),
        Kind::Add(it) => {
            let mut value = copy(&it.copy);
            value["Checksum"] = text(&it.checksum);
            value["KeepGitDir"] = json!(it.keep_git_dir);
            value["Unpack"] = json!(it.unpack);
            value
        }
        Kind::Workdir(it) => json!({ "Path": it.value }),
        Kind::User(it) => json!({ "User": it.value }),
        Kind::Stopsignal(it) => json!({ "Signal": it.value }),
        Kind::Maintainer(it) => json!({ "Maintainer": it.value }),
        Kind::Cmd(it) | Kind::Entrypoint(it) => {
            let (words, shell) = line(it);
            json!({ "CmdLine": words, "PrependShell": shell })
        }
        Kind::Shell(it) => json!({ "Shell": texts(it) }),
        Kind::Expose(it) => {
            let mut ports: Vec<Value> = texts(it).into_iter().map(Value::from).collect();
            ports.sort_by_key(ToString::to_string);
            json!({ "Ports": ports })
        }
        Kind::Volume(it) => json!({ "Volumes": texts(it) }),
        Kind::Healthcheck(it) => json!({ "Health": health(it) }),
        Kind::Onbuild(it) => json!({ "Expression": it.expression }),
    };
    value.as_object_mut().unwrap().retain(|_, it| !it.is_null());
    value
}

fn health(it: &Healthcheck) -> Value {
    let Healthcheck::Cmd { command, interval, timeout, start_period, start_interval, retries } = it
    else {
        return json!({ "Test": ["NONE"] });
    };
    let test: Vec<&str> = match command {
        Command::Shell(text) => ["CMD-SHELL", &text.value].into(),
        Command::Exec(words) => ["CMD"].into_iter().chain(texts(words)).collect(),
    };
    let mut value = json!({
        "Interval": interval,
        "Retries": retries,
        "StartInterval": start_interval,
        "StartPeriod": start_period,
        "Test": test,
        "Timeout": timeout,
    });
    value.as_object_mut().unwrap().retain(|_, it| *it != json!(0));
    value
}

#[test]
fn suggestions() {
    all("suggest", |row| {
        let word = row["word"].as_str().unwrap();
        let options: Vec<&str> =
            row["options"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let case_sensitive = row["case_sensitive"].as_bool().unwrap();
        let found = suggest::suggest(word, options.into_iter(), case_sensitive);
        same("found", &json!(found.is_some()), &row["found"])?;
        let suggestion = match found {
            Some(it) if case_sensitive => it.into(),
            Some(it) => suggest::like(word, it),
            None => String::new(),
        };
        same("suggestion", &json!(suggestion), &row["suggestion"])
    });
}

#[test]
fn ignore_files() {
    let mut n_rows = 0;
    all("dockerignore", |row| {
        let Some(text) = row["file"].as_str() else {
            return Ok(());
        };
        n_rows += 1;
        let patterns: Vec<String> = ignore::read(text).into_iter().map(|it| it.text).collect();
        same("patterns", &json!(patterns), &row["patterns"])
    });
    assert_ne!(n_rows, 0);
}
