//! Ports that are reached from outside: taken before there is a container, served as soon as it runs.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
};

use crate::{error::RuntimeError, request::Port};

/// A port of the machine that was taken.
pub(crate) struct Taken {
    pub(crate) listener: TcpListener,
    /// The port in the container.
    pub(crate) container: u16,
}

impl Taken {
    /// As docker shows it.
    pub(crate) fn shown(&self) -> io::Result<String> {
        let address = self.listener.local_addr()?;
        let port = format!("{}->{}/tcp", address.port(), self.container);
        Ok(match address.ip() {
            IpAddr::V6(ip) if ip.is_unspecified() => format!("0.0.0.0:{port}, [::]:{port}"),
            IpAddr::V6(ip) => format!("[{ip}]:{port}"),
            IpAddr::V4(ip) => format!("{ip}:{port}"),
        })
    }
}

/// Takes all ports, or none.
pub(crate) fn take(ports: &[Port]) -> Result<Vec<Taken>, RuntimeError> {
    ports.iter().map(|it| Ok(Taken { listener: listen(*it)?, container: it.container })).collect()
}

fn listen(port: Port) -> Result<TcpListener, RuntimeError> {
    let bind = |ip: IpAddr| TcpListener::bind(SocketAddr::new(ip, port.host));
    let everywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let bound = match port.address {
        Some(ip) => bind(ip),
        // One socket for both kinds of addresses, where the machine has both.
        None => match bind(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => bind(everywhere),
            bound => bound,
        },
    };
    bound.map_err(|source| RuntimeError::Port {
        address: SocketAddr::new(port.address.unwrap_or(everywhere), port.host),
        source,
    })
}
