//! `kiln info`: what this machine lets kiln do.

use serde_json::{Value, json};

use crate::{
    args::system::InfoArgs,
    commands::Globals,
    config::NetworkConfig,
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
    sandbox::trees_in(&root);
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
    // An ordinary user has networks in a user namespace only. If there is none, that is said below.
    if sandbox.rung != sandbox::Rung::Root {
        let _ = sandbox::isolate(sandbox::Isolation::Auto);
    }
    let network = describe_network(config.build.network);
    let info = json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "Platform": platform.format_all(),
        "Kernel": kernel.release().to_string_lossy(),
        "Root": root.display().to_string(),
        "Mirrors": mirrors,
        "Network": network,
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
            out += &format!("{:<10} {network}\n", "network");
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

/// The network of RUN, and what comes instead where it cannot be had.
fn describe_network(configured: Option<NetworkConfig>) -> String {
    match (configured, sandbox::isolated()) {
        (Some(NetworkConfig::Host), _) => "of RUN: the machine's, as configured".to_owned(),
        (_, Ok(it)) => format!("of RUN: isolated, through {}", it.describe()),
        (Some(NetworkConfig::Isolated), Err(reason)) => {
            format!("of RUN: isolated, as configured, which cannot be had: {reason}")
        }
        (None, Err(reason)) => {
            format!("of RUN: the machine's, for an isolated one cannot be had: {reason}")
        }
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}
