//! The files that every container has of its own: `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf`.

use std::{fs, path::Path};

use sandbox::Network;

use crate::{error::RuntimeError, request::RunRequest};

/// The files, by their names in the container's folder and in `/etc`.
pub(crate) const NAMES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// Writes them.
pub(crate) fn write(
    folder: &Path,
    request: &RunRequest,
    hostname: &str,
) -> Result<(), RuntimeError> {
    // A machine without one of them has nothing to hand down.
    let of_machine = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let hosts = match request.network {
        Network::Host => of_machine("/etc/hosts"),
        _ => String::new(),
    };
    let contents = [
        hosts_file(&hosts, request, hostname),
        format!("{hostname}\n"),
        String::from_utf8_lossy(&sandbox::resolv_conf(request.network)).into_owned(),
    ];
    for (name, content) in NAMES.iter().zip(contents) {
        let path = folder.join(name);
        fs::write(&path, content).map_err(RuntimeError::io("write", &path))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        fs::set_permissions(&path, mode).map_err(RuntimeError::io("set the mode of", &path))?;
    }
    Ok(())
}

/// The lines of the machine, a name for the container itself, and what was asked for.
fn hosts_file(of_machine: &str, request: &RunRequest, hostname: &str) -> String {
    let mut text = match of_machine.trim_end() {
        "" => "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned(),
        text => format!("{text}\n"),
    };
    if hostname != "localhost" {
        // An address of this machine in every network, as Debian has it for hosts without a fixed one.
        text.push_str(&format!("127.0.1.1\t{hostname}\n"));
    }
    for (name, address) in &request.add_hosts {
        match address.as_str() {
            "host-gateway" => {
                text.push_str(&format!("{}\t{name}\n", sandbox::gateway(request.network)));
            }
            address => text.push_str(&format!("{address}\t{name}\n")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let add_hosts = vec![pair("db", "10.0.0.1"), pair("host.docker.internal", "host-gateway")];
        let request = RunRequest { add_hosts, ..RunRequest::default() };
        assert_eq!(
            hosts_file("127.0.0.1 localhost\n\n", &request, "box"),
            "127.0.0.1 localhost\n127.0.1.1\tbox\n10.0.0.1\tdb\n127.0.0.1\thost.docker.internal\n"
        );
        assert_eq!(
            hosts_file("", &RunRequest::default(), "localhost"),
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
        );
    }
}
