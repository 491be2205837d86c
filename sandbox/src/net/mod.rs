//! Isolated networks: a way out, and nothing of the machine's loopback interface, its abstract sockets, or other sandboxes.
//!
//! Read in this order: [`netlink`] (how the kernel is asked), [`subnet`] and [`link`] (addresses and interfaces), [`nat`] (the
//! way out as root), [`helper`] (the way out for others), [`mod@publish`] (the way in), [`resolver`].
//!
//! A network namespace outlives the sandbox it was made for and serves the next, one at a time, because making one takes
//! longer than all else. It has no name: handles of this process keep it, and when those are gone the kernel removes it
//! with its interfaces.

mod helper;
mod link;
mod nat;
mod netlink;
mod publish;
mod resolver;
mod subnet;

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, OnceLock};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

pub(crate) use self::helper::TUN;
use self::helper::{Helper, Program};
use self::nat::Nat;
use self::netlink::Socket;
pub(crate) use self::publish::publish;
use self::subnet::Subnet;
use crate::spec::Network;
use crate::sys::{self, namespace};
use crate::userns;

/// How isolated networks are made on this machine.
#[derive(Debug)]
pub struct Isolated {
    way: Way,
    resolv_conf: Vec<u8>,
    gateway: IpAddr,
}

#[derive(Debug)]
enum Way {
    Nat { outside: Socket, subnet: Subnet, mtu: u32, _rules: Nat },
    Helper(Program),
}

impl Isolated {
    /// How, in words.
    pub fn describe(&self) -> &'static str {
        match self.way {
            Way::Nat { .. } => "interfaces and NAT",
            Way::Helper(Program::Pasta) => "pasta",
            Way::Helper(Program::Slirp4netns) => "slirp4netns",
        }
    }
}

/// A network namespace, and what connects it.
#[derive(Debug)]
struct Namespace {
    handle: OwnedFd,
    _helper: Option<Helper>,
}

/// Namespaces that no sandbox is in.
static IDLE: Mutex<Vec<Namespace>> = Mutex::new(Vec::new());

/// Finds out whether sandboxes can have an isolated network, by making the first one.
///
/// # Errors
///
/// Why not, in words.
pub fn isolated() -> Result<&'static Isolated, &'static str> {
    static FOUND: OnceLock<Result<Isolated, String>> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            if crate::chroot::is_chosen() {
                return Err("no network namespace can be made here".to_owned());
            }
            let (isolated, first) = find()?;
            idle().push(first);
            Ok(isolated)
        })
        .as_ref()
        .map_err(String::as_str)
}

/// The content of `/etc/resolv.conf` for a network.
pub fn resolv_conf(network: Network) -> Vec<u8> {
    match (network, isolated_if(network)) {
        (Network::Isolated, Some(isolated)) => isolated.resolv_conf.clone(),
        _ => resolver::of_machine().into_bytes(),
    }
}

/// The address of this machine as a process in a network sees it: `host-gateway`.
pub fn gateway(network: Network) -> IpAddr {
    isolated_if(network).map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |it| it.gateway)
}

fn isolated_if(network: Network) -> Option<&'static Isolated> {
    (network == Network::Isolated).then(|| isolated().ok()).flatten()
}

fn idle() -> std::sync::MutexGuard<'static, Vec<Namespace>> {
    IDLE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A namespace for one sandbox. It goes back when this is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    namespace: Option<Namespace>,
    is_kept: bool,
}

impl Lease {
    /// Takes an idle namespace or makes one. It is not used again after a process that may have changed it.
    pub(crate) fn take(is_privileged: bool) -> Result<Self, String> {
        let isolated = isolated()?;
        let is_kept = !is_privileged;
        let taken = idle().pop();
        let namespace = match taken {
            Some(namespace) => namespace,
            None => make(&isolated.way)?,
        };
        Ok(Self { namespace: Some(namespace), is_kept })
    }

    /// A handle for the process that is to enter it.
    pub(crate) fn handle(&self) -> std::io::Result<Option<OwnedFd>> {
        self.namespace.as_ref().map(|it| it.handle.try_clone()).transpose()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(namespace) = self.namespace.take()
            && self.is_kept
        {
            idle().push(namespace);
        }
    }
}

/// Tries one way after the other, the best first.
fn find() -> Result<(Isolated, Namespace), String> {
    if userns::copies_trees() {
        return Err("it takes namespaces, and commands run in a chroot here".to_owned());
    }
    let mut reasons = Vec::new();
    if !userns::is_inside() {
        match nat() {
            Ok(found) => return Ok(found),
            Err(reason) => reasons.push(format!("NAT: {reason}")),
        }
    }
    for program in Program::ALL {
        let way = Way::Helper(program);
        match make(&way) {
            Ok(namespace) => {
                let resolv_conf =
                    resolver::with_servers(&resolver::of_machine(), &[program.resolver()]);
                return Ok((Isolated { way, resolv_conf, gateway: own_address() }, namespace));
            }
            Err(reason) => reasons.push(reason),
        }
    }
    Err(reasons.join("; "))
}

fn nat() -> Result<(Isolated, Namespace), String> {
    let resolvers = resolver::reachable();
    if resolvers.is_empty() {
        return Err("the machine's name servers are on its loopback interface only".to_owned());
    }
    let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    let interface = subnet::default_interface(&routes).ok_or("the machine has no default route")?;
    let subnet = Subnet::choose(&routes, &resolvers).ok_or("no range of addresses is free")?;
    let mtu = std::fs::read_to_string(format!("/sys/class/net/{interface}/mtu"));
    let mtu = mtu.ok().and_then(|it| it.trim().parse().ok()).unwrap_or(1500_u32).min(65_535);
    if is_forwarding_dropped() {
        return Err(
            "the machine drops what it would forward (Docker's or a firewall's rules)".into()
        );
    }
    let rules = Nat::set_up(subnet).map_err(nat::explain)?;
    forward()?;
    let outside = Socket::route().map_err(|errno| format!("no netlink socket: {errno}"))?;
    let way = Way::Nat { outside, subnet, mtu, _rules: rules };
    let namespace = make(&way)?;
    let resolv_conf = resolver::with_servers(&resolver::of_machine(), &resolvers);
    Ok((Isolated { way, resolv_conf, gateway: subnet.gateway().into() }, namespace))
}

/// Rules of the older kind cannot be asked; where Docker is, it has made them so.
fn is_forwarding_dropped() -> bool {
    let has_older = std::fs::read_to_string("/proc/net/ip_tables_names")
        .is_ok_and(|it| it.lines().any(|it| it == "filter"));
    let is_older_dropped = has_older && Path::new("/sys/class/net/docker0").exists();
    is_older_dropped || Nat::is_forwarding_dropped().unwrap_or(false)
}

/// Lets the machine forward packets. It stays so, as Docker leaves it.
fn forward() -> Result<(), String> {
    const SETTING: &str = "/proc/sys/net/ipv4/ip_forward";
    let is_on = std::fs::read_to_string(SETTING).is_ok_and(|it| it.trim() == "1");
    if is_on {
        return Ok(());
    }
    std::fs::write(SETTING, "1")
        .map_err(|error| format!("`net.ipv4.ip_forward` is 0 and cannot be set: {error}"))
}

/// Makes a namespace and connects it.
fn make(way: &Way) -> Result<Namespace, String> {
    let failed = |errno: Errno| format!("a network namespace cannot be made: {errno}");
    // A thread has a namespace of its own; what it opens stays there, and it goes.
    let made = std::thread::Builder::new().spawn(new_namespace);
    let made = made.map_err(|error| format!("cannot start a thread: {error}"))?.join();
    let (handle, inside) = made.map_err(|_| "a thread was lost")?.map_err(failed)?;
    let helper = match way {
        Way::Nat { outside, subnet, mtu, .. } => {
            link::connect(outside, &inside, handle.as_fd(), *subnet, *mtu)
                .map_err(|errno| format!("interfaces cannot be made: {errno}"))?;
            None
        }
        Way::Helper(program) => {
            link::loopback_up(&inside).map_err(failed)?;
            Some(Helper::start(*program, handle.as_fd(), &inside)?)
        }
    };
    Ok(Namespace { handle, _helper: helper })
}

fn new_namespace() -> rustix::io::Result<(OwnedFd, Socket)> {
    sys::unshare(namespace::NET)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let handle = rustix::fs::open(c"/proc/thread-self/ns/net", flags, Mode::empty())?;
    // As in docker: whoever is root inside needs no capability for a low port or a ping.
    for (name, value) in [("ip_unprivileged_port_start", "0"), ("ping_group_range", "0 2147483647")]
    {
        let _ = std::fs::write(Path::new("/proc/sys/net/ipv4").join(name), value);
    }
    Ok((handle, Socket::route()?))
}

/// The address with which this machine would go out. Nothing is sent.
fn own_address() -> IpAddr {
    let address = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr().map(|it| it.ip())
    };
    address().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}
