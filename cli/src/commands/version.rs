//! `kiln version`.

use crate::{args::system::VersionArgs, exit::Exit, failure::Result, print, values::Format};

/// Shows the version.
///
/// # Errors
///
/// Fails where it cannot be written.
pub fn run(args: &VersionArgs) -> Result<Exit> {
    let platform = image::Platform::host();
    let version = env!("CARGO_PKG_VERSION");
    match args.format {
        Format::Text => {
            print::out(&format!("kiln {version} ({}/{})\n", platform.os, platform.architecture))?
        }
        Format::Json => {
            let json = serde_json::json!({ "Version": version, "Os": platform.os, "Arch": platform.architecture });
            print::out(&format!("{json}\n"))?;
        }
    }
    Ok(Exit::Done)
}
