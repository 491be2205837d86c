//! `--publish`: ports of a container that are reached from outside.

use std::{net::IpAddr, ops::RangeInclusive};

use runtime::Port;

/// One `--publish`: a port, or a range of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish(pub Vec<Port>);

/// Parses `[[ADDRESS:][PORT]:]PORT[/tcp]` as docker does; for each port there may be a range, of the same length.
///
/// # Errors
///
/// Returns a message that names the part that is wrong.
pub fn publish(text: &str) -> Result<Publish, String> {
    let (ports, address) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) =
                rest.split_once("]:").ok_or_else(|| format!("`{text}` has no `]:`"))?;
            (rest, Some(address))
        }
        None => match text.rsplitn(3, ':').collect::<Vec<_>>()[..] {
            [_, _, address] => (&text[address.len() + 1..], Some(address)),
            _ => (text, None),
        },
    };
    let address = match address {
        None | Some("") => None,
        Some(it) => Some(it.parse().map_err(|_| format!("`{it}` is not an IP address"))?),
    };
    let (host, container) = ports.split_once(':').unwrap_or(("", ports));
    let container = exposed(container)?;
    // Any that is free.
    if matches!(host, "" | "0") {
        return Ok(Publish(container.map(|it| Port { address, host: 0, container: it }).collect()));
    }
    let host = range(host)?;
    let (n_host, n_container) = (host.clone().count(), container.clone().count());
    match (n_host, n_container) {
        // Any of a range: the first that is free would have to be looked for.
        (2.., 1) => {
            Err(format!("`{text}` names {n_host} ports of the machine for one of the container"))
        }
        _ if n_host != n_container => Err(format!(
            "`{text}` names {n_host} ports of the machine for {n_container} of the container"
        )),
        _ => Ok(Publish(pairs(address, host, container))),
    }
}

fn pairs(
    address: Option<IpAddr>,
    host: RangeInclusive<u16>,
    container: RangeInclusive<u16>,
) -> Vec<Port> {
    host.zip(container).map(|(host, container)| Port { address, host, container }).collect()
}

/// Parses `PORT[-PORT][/tcp]`.
///
/// # Errors
///
/// Returns a message that names the part that is wrong.
pub fn exposed(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    match protocol.to_ascii_lowercase().as_str() {
        "tcp" => range(ports),
        "udp" | "sctp" => Err(format!("`{text}`: only TCP ports can be published so far")),
        _ => Err(format!("`{text}`: there is no protocol `{protocol}`")),
    }
}

fn range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |it: &str| it.parse::<u16>().ok().filter(|it| *it > 0);
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => Err(format!(
            "`{text}` is no port, expected a number from 1 to 65535, or a range of them"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let port = |address: Option<&str>, host, container| Port {
            address: address.map(|it| it.parse().expect("an address")),
            host,
            container,
        };
        for (text, expected) in [
            ("80", vec![port(None, 0, 80)]),
            ("8080:80", vec![port(None, 8080, 80)]),
            ("0:80", vec![port(None, 0, 80)]),
            ("8080:80/tcp", vec![port(None, 8080, 80)]),
            ("127.0.0.1:8080:80", vec![port(Some("127.0.0.1"), 8080, 80)]),
            ("127.0.0.1::80", vec![port(Some("127.0.0.1"), 0, 80)]),
            ("[::1]:8080:80", vec![port(Some("::1"), 8080, 80)]),
            ("::1:8080:80", vec![port(Some("::1"), 8080, 80)]),
            ("8000-8001:80-81", vec![port(None, 8000, 80), port(None, 8001, 81)]),
            ("80-81", vec![port(None, 0, 80), port(None, 0, 81)]),
        ] {
            assert_eq!(publish(text), Ok(Publish(expected)), "{text}");
        }
        for bad in [
            "",
            "a",
            "0",
            "65536",
            "80:",
            "a:80",
            "8080:80/udp",
            "8080:80/x",
            "81-80",
            "1-2:3",
            "1:2-3",
            "x:1:2",
            "[::1:1:2",
            "1:2:3:4",
            "8080:80:",
        ] {
            assert!(publish(bad).is_err(), "{bad}: {:?}", publish(bad));
        }
    }
}
