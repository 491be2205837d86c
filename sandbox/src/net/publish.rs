//! Ports of an isolated network that are reached from outside.
//!
//! A thread of this process lives in the network of the sandbox and takes the connections of a socket that was opened outside of it:
//! what it connects to is inside. That needs no rule for packets and no right that the sandbox itself did not need, so it is
//! the same for root and for everybody else. A service sees the connection come from its own address.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, Builder};
use std::time::Duration;

use rustix::net::sockopt::set_socket_keepalive;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// How long a service may take to answer a connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause after an error that is not that of one connection: too many open files, say.
const PAUSE: Duration = Duration::from_millis(100);
/// A thread holds one buffer.
const STACK: usize = 128 * 1024;

/// Passes the connections of `listener` on to `port` in the network `namespace`, as long as this process lives.
pub(crate) fn publish(namespace: OwnedFd, listener: TcpListener, port: u16) -> io::Result<()> {
    let (sender, entered) = std::sync::mpsc::sync_channel(1);
    let work = move || {
        let kind = Some(LinkNameSpaceType::Network);
        let result = move_into_link_name_space(namespace.as_fd(), kind);
        let is_inside = result.is_ok();
        let _ = sender.send(result);
        if is_inside {
            accept(&listener, SocketAddr::new(super::own_address(), port));
        }
    };
    start(work)?;
    let lost = io::Error::other("a thread was lost");
    entered.recv().map_err(|_| lost)?.map_err(io::Error::from)
}

fn accept(listener: &TcpListener, to: SocketAddr) {
    loop {
        match listener.accept() {
            // Who cannot be served is hung up on.
            Ok((client, _)) => drop(start(move || serve(client, to))),
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// Passes one connection on: here what comes back, on another thread what goes there. A thread is where the one is that started it.
fn serve(client: TcpStream, to: SocketAddr) {
    let Ok(server) = TcpStream::connect_timeout(&to, PATIENCE) else { return };
    // Whoever has gone without a word does not keep its threads.
    let _ = set_socket_keepalive(&client, true);
    let (client, server) = (Arc::new(client), Arc::new(server));
    let (from, into) = (Arc::clone(&client), Arc::clone(&server));
    if start(move || pass(&from, &into)).is_ok() {
        pass(&server, &client);
    }
}

/// Passes on until there is no more, and says so. An error is the end, too, in both directions.
fn pass(mut from: &TcpStream, mut into: &TcpStream) {
    let passed = io::copy(&mut from, &mut into);
    let _ = into.shutdown(Shutdown::Write);
    if passed.is_err() {
        let _ = from.shutdown(Shutdown::Both);
        let _ = into.shutdown(Shutdown::Both);
    }
}

fn start(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    Builder::new().name("port".to_owned()).stack_size(STACK).spawn(work).map(drop)
}
