//! Ports of `EXPOSE`.

use alloc::{borrow::ToOwned, format, string::String, vec::Vec};
use core::net::IpAddr;

/// The most ports that one instruction may name.
const MAX_PORTS: usize = 1 << 20;

/// A port that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// Nothing stands where the port should be.
    #[error("invalid port: {text:?}: no port specified")]
    Missing {
        /// The argument.
        text: String,
    },
    /// The protocol is none of tcp, udp and sctp.
    #[error("invalid port: {text:?}: invalid proto: {proto}")]
    Protocol {
        /// The argument.
        text: String,
        /// What stands after the slash.
        proto: String,
    },
    /// The address before the host port is none.
    #[error("invalid IP address: {address}")]
    Address {
        /// The address.
        address: String,
    },
    /// The port of the container is no number up to 65535 and no range of such.
    #[error("invalid containerPort: {port}")]
    Container {
        /// The port.
        port: String,
    },
    /// The port of the host is no number up to 65535 and no range of such.
    #[error("invalid hostPort: {port}")]
    Host {
        /// The port.
        port: String,
    },
    /// Two ranges of different length.
    #[error("invalid ranges specified for container and host Ports: {container} and {host}")]
    Ranges {
        /// The range of the container.
        container: String,
        /// The range of the host.
        host: String,
    },
    /// The instruction names more ports than there can be.
    #[error("more than {MAX_PORTS} ports")]
    TooMany,
}

/// Reads the arguments of `EXPOSE`: `80`, `80/udp`, `8000-8010`, `8080:80`, `127.0.0.1:8080:80/tcp`.
///
/// Returns one `PORT/PROTOCOL` per port, in order; host ports and addresses are checked and then left out.
///
/// # Errors
///
/// An argument is none of these forms.
pub fn parse<S: AsRef<str>>(words: &[S]) -> Result<Vec<String>, PortError> {
    let mut ports = Vec::new();
    for word in words {
        let (first, last, protocol) = one(word.as_ref())?;
        if ports.len() + usize::from(last - first) >= MAX_PORTS {
            return Err(PortError::TooMany);
        }
        ports.extend((first..=last).map(|port| format!("{port}/{protocol}")));
    }
    Ok(ports)
}

fn one(text: &str) -> Result<(u16, u16, &'static str), PortError> {
    let mut parts = text.rsplitn(3, ':');
    let container = parts.next().unwrap_or_default();
    let host = parts.next().unwrap_or_default();
    let address = parts.next().unwrap_or_default();

    let (port, proto) = container.split_once('/').unwrap_or((container, ""));
    if port.is_empty() {
        return Err(PortError::Missing { text: text.to_owned() });
    }
    let protocol = match proto.to_ascii_lowercase().as_str() {
        "" | "tcp" => "tcp",
        "udp" => "udp",
        "sctp" => "sctp",
        _ => {
            let (text, proto) = (text.to_owned(), proto.to_owned());
            return Err(PortError::Protocol { text, proto });
        }
    };
    let bare = address.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(address);
    if !bare.is_empty() && bare.parse::<IpAddr>().is_err() {
        return Err(PortError::Address { address: bare.to_owned() });
    }
    let (first, last) =
        range(port).ok_or_else(|| PortError::Container { port: port.to_owned() })?;
    if !host.is_empty() {
        let (host_first, host_last) =
            range(host).ok_or_else(|| PortError::Host { port: host.to_owned() })?;
        if first != last && last - first != host_last - host_first {
            let (container, host) = (port.to_owned(), host.to_owned());
            return Err(PortError::Ranges { container, host });
        }
    }
    Ok((first, last, protocol))
}

/// Reads `80` or `80-90`.
fn range(text: &str) -> Option<(u16, u16)> {
    match text.split_once('-') {
        None => text.parse().ok().map(|port| (port, port)),
        Some((first, last)) => {
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            (first <= last).then_some((first, last))
        }
    }
}
