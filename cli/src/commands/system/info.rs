//! `kiln info`: what this machine lets kiln do.

use serde_json::{Value, json};

use crate::{
    args::system::InfoArgs,
    commands::Globals,
    exit::Exit,
    failure::{Failure, Result},
    print,
    values::Format,
};

/// Shows version, store, and sandbox.
///
/// # Errors
///
/// Fails where the configuration cannot be read.
pub fn run(args: &InfoArgs, globals: &Globals) -> Result<Exit> {
    let config = globals.config()?;
    let root = globals.store_root(&config)?;
    let platform = image::Platform::host();
    let kernel = rustix::system::uname();
    let mirrors: Vec<Value> = config
        .registry
        .iter()
        .flat_map(|(host, it)| {
            it.mirrors.iter().map(move |mirror| json!({ "Registry": host, "Mirror": mirror }))
        })
        .collect();
    let sandbox = sandbox::probe();
    let findings: Vec<Value> = sandbox
        .findings
        .iter()
        .map(|it| json!({ "Name": it.name, "Found": it.found, "Reason": it.reason }))
        .collect();
    let better: Vec<Value> = sandbox
        .better
        .iter()
        .map(|(rung, needs)| json!({ "Rung": rung.describe(), "Needs": needs }))
        .collect();
    let info = json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "Platform": platform.format_all(),
        "Kernel": kernel.release().to_string_lossy(),
        "Root": root.display().to_string(),
        "Mirrors": mirrors,
        "Sandbox": { "Rung": sandbox.rung.describe(), "Findings": findings, "Better": better },
    });
    let text = match args.format {
        Format::Json => serde_json::to_string_pretty(&info).map_err(Failure::failed)? + "\n",
        Format::Text => {
            let mut out = String::new();
            for (key, label) in [
                ("Version", "kiln"),
                ("Platform", "platform"),
                ("Kernel", "kernel"),
                ("Root", "store"),
            ] {
                out += &format!("{label:<10} {}\n", info[key].as_str().unwrap_or_default());
            }
            for mirror in &mirrors {
                out += &format!(
                    "{:<10} {} → {}\n",
                    "mirror",
                    text(mirror, "Registry"),
                    text(mirror, "Mirror")
                );
            }
            out += &format!("{:<10} {}\n", "sandbox", sandbox.rung.describe());
            for it in &sandbox.findings {
                let answer = match (&it.found, &it.reason) {
                    (Some(found), _) => found.clone(),
                    (None, Some(reason)) => format!("no: {reason}"),
                    (None, None) => "no".to_owned(),
                };
                out += &format!("  {:<18} {answer}\n", it.name);
            }
            for it in &better {
                out += &format!(
                    "better     {}\n  needs              {}\n",
                    text(it, "Rung"),
                    text(it, "Needs")
                );
            }
            out
        }
    };
    print::out(&text)?;
    Ok(Exit::Done)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}
