//! A pair of interfaces that connects a network namespace with the machine.
//!
//! There is no bridge: each namespace has a pair of its own, `kilnXXXXXXXX` on the machine and `eth0` inside, and the machine
//! routes between them. All ends on the machine share one address, the gateway; an address inside is taken by adding its
//! route, which only one process can. Everything is gone when the namespace is, however kiln ends.
//!
//! # Source
//!
//! `rtnetlink(7)`, `linux/if_link.h`, `veth(4)`.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::{Errno, Result};

use super::netlink::{Messages, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, Socket};
use super::subnet::Subnet;

/// How the names of our interfaces begin.
pub(super) const PREFIX: &str = "kiln";

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTM_GETROUTE: u16 = 26;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const INET: u8 = libc::AF_INET as u8;

/// Connects a namespace, in which `inside` was opened, with the machine, where `outside` was.
pub(super) fn connect(
    outside: &Socket,
    inside: &Socket,
    namespace: BorrowedFd<'_>,
    subnet: Subnet,
    mtu: u32,
) -> Result<()> {
    let mut seed = [0_u8; 4];
    let number = loop {
        random(&mut seed)?;
        let number = u32::from_ne_bytes(seed);
        match outside.request(&pair(&name(number), namespace, mtu)) {
            // Somebody has this name.
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
            Ok(()) => break number,
        }
    };
    let index = outside.index(&name(number))?;
    let mut messages = Messages::default();
    up(&mut messages, index);
    address(&mut messages, index, subnet.gateway(), 32);
    outside.request(&messages)?;
    let own = take_address(outside, index, subnet, number)?;

    let index = inside.index("eth0")?;
    let mut messages = Messages::default();
    up(&mut messages, 1);
    up(&mut messages, index);
    address(&mut messages, index, own, subnet.prefix);
    let route = route(&mut messages, 0, 0);
    route.attribute(RTA_GATEWAY, &subnet.gateway().octets());
    inside.request(&messages)
}

/// Brings up the loopback interface of the namespace in which the socket was opened.
pub(super) fn loopback_up(inside: &Socket) -> Result<()> {
    let mut messages = Messages::default();
    up(&mut messages, 1);
    inside.request(&messages)
}

/// Whether what is sent to nowhere in particular has a way.
pub(super) fn has_default_route(inside: &Socket) -> Result<bool> {
    let mut fixed = [0; 12];
    fixed[0] = INET;
    let mut messages = Messages::default();
    messages.begin(RTM_GETROUTE, NLM_F_DUMP, &fixed);
    let mut is_there = false;
    inside.exchange(&messages, |kind, route| {
        // The second byte is the length of the prefix.
        is_there |= kind == RTM_NEWROUTE && route.get(1) == Some(&0);
    })?;
    Ok(is_there)
}

fn name(number: u32) -> String {
    format!("{PREFIX}{number:08x}")
}

fn random(seed: &mut [u8; 4]) -> Result<()> {
    use std::io::Read;
    let mut file = std::fs::File::open("/dev/urandom");
    file.as_mut()
        .map_err(|error| Errno::from_io_error(error).unwrap_or(Errno::IO))?
        .read_exact(seed)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

fn pair(name: &str, namespace: BorrowedFd<'_>, mtu: u32) -> Messages {
    let mut messages = Messages::default();
    messages
        .begin(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &interface(0, 0))
        .text(IFLA_IFNAME, name)
        .attribute(IFLA_MTU, &mtu.to_ne_bytes())
        .nested(IFLA_LINKINFO, |it| {
            it.text(IFLA_INFO_KIND, "veth").nested(IFLA_INFO_DATA, |it| {
                it.nested(VETH_INFO_PEER, |it| {
                    it.append(&interface(0, 0))
                        .text(IFLA_IFNAME, "eth0")
                        .attribute(IFLA_MTU, &mtu.to_ne_bytes())
                        .attribute(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
                });
            });
        });
    messages
}

/// `struct ifinfomsg`: the interface, and flags to set.
fn interface(index: u32, flags: u32) -> [u8; 16] {
    let mut out = [0; 16];
    out[4..8].copy_from_slice(&index.to_ne_bytes());
    out[8..12].copy_from_slice(&flags.to_ne_bytes());
    out[12..].copy_from_slice(&flags.to_ne_bytes());
    out
}

/// Brings an interface up, without an address of version 6 that it would give itself.
fn up(messages: &mut Messages, index: u32) {
    const LOOPBACK: u32 = 1;
    messages.begin(RTM_NEWLINK, NLM_F_ACK, &interface(index, libc::IFF_UP as u32));
    // A kernel may have no version 6.
    if index != LOOPBACK && std::path::Path::new("/proc/sys/net/ipv6").exists() {
        messages.nested(IFLA_AF_SPEC, |it| {
            it.nested(libc::AF_INET6 as u16, |it| {
                it.attribute(IFLA_INET6_ADDR_GEN_MODE, &[1]);
            });
        });
    }
}

fn address(messages: &mut Messages, index: u32, address: Ipv4Addr, prefix: u8) {
    let mut fixed = [INET, prefix, 0, 0, 0, 0, 0, 0];
    fixed[4..].copy_from_slice(&index.to_ne_bytes());
    messages
        .begin(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &fixed)
        .attribute(IFA_LOCAL, &address.octets())
        .attribute(IFA_ADDRESS, &address.octets());
}

/// Begins a route, in the main table, to a network of this prefix and in this scope.
fn route(messages: &mut Messages, prefix: u8, scope: u8) -> &mut Messages {
    const MAIN: u8 = 254;
    const BOOT: u8 = 3;
    const UNICAST: u8 = 1;
    let fixed = [INET, prefix, 0, 0, MAIN, BOOT, scope, UNICAST, 0, 0, 0, 0];
    messages.begin(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &fixed)
}

/// Finds an address that nobody has, by taking the route to it.
fn take_address(outside: &Socket, index: u32, subnet: Subnet, seed: u32) -> Result<Ipv4Addr> {
    const LINK: u8 = 253;
    for offset in 0..subnet.n_addresses() {
        let address = subnet.address(seed.wrapping_add(offset));
        let mut messages = Messages::default();
        route(&mut messages, 32, LINK)
            .attribute(RTA_DST, &address.octets())
            .attribute(RTA_OIF, &index.to_ne_bytes());
        match outside.request(&messages) {
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
            Ok(()) => return Ok(address),
        }
    }
    Err(Errno::ADDRNOTAVAIL)
}
