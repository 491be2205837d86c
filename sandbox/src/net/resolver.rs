//! `/etc/resolv.conf` for a network that is not the machine's.

use std::net::{IpAddr, Ipv4Addr};

/// The file where systemd-resolved names the servers that it asks itself.
const OF_SYSTEMD: &str = "/run/systemd/resolve/resolv.conf";

/// The machine's own, for a process in the machine's network.
pub(super) fn of_machine() -> String {
    std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()
}

/// The name servers that can be asked from elsewhere, as the machine's files name them.
pub(super) fn reachable() -> Vec<Ipv4Addr> {
    let own = servers(&of_machine());
    match own.is_empty() {
        true => servers(&std::fs::read_to_string(OF_SYSTEMD).unwrap_or_default()),
        false => own,
    }
}

/// Servers that are not on the loopback interface, and have an address of version 4.
fn servers(text: &str) -> Vec<Ipv4Addr> {
    let addresses = lines(text).filter_map(|(key, value)| match key {
        "nameserver" => value.split_whitespace().next()?.parse().ok(),
        _ => None,
    });
    addresses
        .filter_map(|it: IpAddr| match it {
            IpAddr::V4(it) if !it.is_loopback() && !it.is_unspecified() => Some(it),
            _ => None,
        })
        .collect()
}

fn lines(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|it| it.trim().split_once([' ', '\t']))
}

/// The file with other servers, and what else it says.
pub(super) fn with_servers(text: &str, servers: &[Ipv4Addr]) -> Vec<u8> {
    let mut out: String = servers.iter().map(|it| format!("nameserver {it}\n")).collect();
    for (key, value) in lines(text) {
        if matches!(key, "search" | "domain" | "options") {
            out.push_str(&format!("{key} {}\n", value.trim()));
        }
    }
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_on_the_loopback_interface_are_left_out() {
        let text = "# x\nnameserver 127.0.0.53\nnameserver\t10.0.0.2 # y\nnameserver ::1\nnameserver fd00::3\nnameserver 0.0.0.0\nsearch a.example b\noptions edns0 trust-ad\nsortlist 1.2.3.4\n";
        let found = servers(text);
        assert_eq!(found, [Ipv4Addr::new(10, 0, 0, 2)]);
        let made = String::from_utf8(with_servers(text, &found)).expect("text");
        assert_eq!(made, "nameserver 10.0.0.2\nsearch a.example b\noptions edns0 trust-ad\n");
        assert!(servers("nameserver 127.0.0.11\noptions ndots:0\n").is_empty());
    }
}
