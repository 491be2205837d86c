//! Networks of sandboxes as root: what they reach, what they do not, and what is left.

use std::io::Write;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::Command;

use crate::fixture::Fixture;
use sandbox::{Network, Spec};

fn isolated(it: &Fixture, line: &str) -> Spec {
    let mut spec = it.spec(["/bin/sh", "-c", line]);
    spec.network = Network::Isolated;
    spec
}

/// Interfaces, routes and rules of ours on the machine.
fn ours() -> Vec<String> {
    let interfaces = std::fs::read_dir("/sys/class/net").unwrap();
    let mut out: Vec<String> = interfaces
        .map(|it| it.unwrap().file_name().into_string().unwrap())
        .filter(|it| it.starts_with("kiln"))
        .collect();
    let rules = Command::new("nft").args(["list", "tables"]).output().unwrap().stdout;
    let pid = format!("kiln-{}", std::process::id());
    out.extend(
        String::from_utf8(rules).unwrap().lines().filter(|it| it.contains(&pid)).map(Into::into),
    );
    out
}

#[test]
fn privileged_isolated_networks() {
    let it = Fixture::new();
    let found = sandbox::isolated().expect("a network");
    assert_eq!(found.describe(), "interfaces and NAT");

    // What the machine has on its loopback interface, and on all of them.
    let hidden = TcpListener::bind("127.0.0.1:0").unwrap();
    let open = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = |it: &TcpListener| it.local_addr().unwrap().port();
    let (hidden_port, open_port) = (port(&hidden), port(&open));
    std::thread::spawn(move || {
        for client in open.incoming() {
            let mut client = client.unwrap();
            let from = client.peer_addr().unwrap().ip();
            let _ = client.write_all(format!("hello {from}\n").as_bytes());
        }
    });
    let name = SocketAddr::from_abstract_name(format!("kiln-test-{}", std::process::id())).unwrap();
    let _abstract = UnixListener::bind_addr(&name).unwrap();

    let gateway = sandbox::gateway(Network::Isolated);
    let line = format!(
        "nc 127.0.0.1 {hidden_port} </dev/null 2>&1; nc {gateway} {hidden_port} </dev/null 2>&1; nc {gateway} {open_port} </dev/null; cat /proc/net/unix | wc -l; ls /sys/class/net"
    );
    let ran = it.run(&isolated(&it, &line));
    let lines: Vec<&str> = ran.out.lines().collect();
    assert!(lines[0].contains("refused") && lines[1].contains("refused"), "{ran:?}");
    assert!(lines[2].starts_with("hello ") && !lines[2].contains("127.0.0.1"), "{ran:?}");
    assert_eq!(lines[3..], ["1", "eth0", "lo"], "{ran:?}");

    // The next one has the same network; two at once have two, and do not see each other.
    let address = "ip -4 addr show eth0 | grep -o 'inet [0-9.]*'";
    let first = it.run(&isolated(&it, address)).out;
    assert_eq!(it.run(&isolated(&it, address)).out, first);
    let server = sandbox::spawn(&isolated(&it, "nc -l -p 7000 -e cat & wait")).unwrap();
    let other = Fixture::new();
    let second = other.run(&isolated(&other, address)).out;
    assert_ne!(second, first);
    let target = first.trim().strip_prefix("inet ").unwrap();
    let ran =
        other.run(&isolated(&other, &format!("nc -w 2 {target} 7000 </dev/null 2>&1; echo $?")));
    assert!(ran.out.trim_end().ends_with('1'), "{ran:?}");
    server.kill();
    server.wait().unwrap();

    // Who may change the network does not leave it to the next.
    let mut spec = isolated(&it, &format!("ip addr add 10.9.9.9/32 dev lo; {address}"));
    spec.privileged = true;
    it.run(&spec);
    for _ in 0..3 {
        assert!(!it.run(&isolated(&it, "ip addr")).out.contains("10.9.9.9"));
    }
    assert!(ours().iter().any(|it| it.contains("table ip kiln-")), "{:?}", ours());
}

#[test]
fn privileged_name_servers_are_reachable() {
    sandbox::isolated().expect("a network");
    let text = String::from_utf8(sandbox::resolv_conf(Network::Isolated)).unwrap();
    assert!(text.starts_with("nameserver ") && !text.contains("nameserver 127."), "{text}");
    assert_eq!(
        sandbox::resolv_conf(Network::Host),
        std::fs::read("/etc/resolv.conf").unwrap_or_default()
    );
    drop(UdpSocket::bind("127.0.0.1:0"));
}
