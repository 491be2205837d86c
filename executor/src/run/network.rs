//! The network of a RUN, and the files in `/etc` that belong to it.

use planner::plan::{Network, RunOp};

use crate::{
    execute::Execution,
    session::{DefaultNetwork, Task},
};

impl Execution<'_> {
    /// The network for a RUN. Where the default one cannot be had, it is the machine's, and the build says so once.
    pub(super) fn network(&self, op: &RunOp, task: &Task<'_>) -> sandbox::Network {
        let choice = &self.session.default_network;
        let reason = match (op.network, choice) {
            (Network::None, _) => return sandbox::Network::None,
            (Network::Host, _) | (_, DefaultNetwork::Host) => return sandbox::Network::Host,
            (_, DefaultNetwork::Isolated) => return sandbox::Network::Isolated,
            (_, DefaultNetwork::IsolatedOrHost) => match loopback_proxy(op) {
                Some(name) => format!("`{name}` names a proxy on the machine's loopback interface"),
                None => match sandbox::isolated() {
                    Ok(_) => return sandbox::Network::Isolated,
                    Err(reason) => reason.to_owned(),
                },
            },
        };
        if self.session.is_said_once("network") {
            task.warn(format!("RUN has the network of the machine, not one of its own: {reason}"));
        }
        sandbox::Network::Host
    }
}

/// The name of a variable with a proxy that only the machine itself can reach.
fn loopback_proxy(op: &RunOp) -> Option<&str> {
    let is_loopback = |value: &str| {
        let host = value.split_once("://").map_or(value, |(_, rest)| rest);
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        host.starts_with("127.") || host.starts_with("localhost") || host.starts_with("[::1]")
    };
    let is_proxy = |name: &str| {
        let name = name.to_ascii_lowercase();
        name.ends_with("_proxy") && name != "no_proxy"
    };
    let own = op.env.pairs();
    let own = own.into_iter().filter(|(name, value)| is_proxy(name) && is_loopback(value));
    let given = op.proxy_env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    own.chain(given.filter(|(name, value)| is_proxy(name) && is_loopback(value)))
        .map(|(name, _)| name)
        .next()
}

pub(super) fn hosts_file(op: &RunOp, network: sandbox::Network) -> Vec<u8> {
    let mut text = format!(
        "127.0.0.1\tlocalhost {}\n::1\tlocalhost ip6-localhost ip6-loopback\n",
        op.hostname
    );
    for (name, address) in &op.extra_hosts {
        match address.as_str() {
            "host-gateway" => text.push_str(&format!("{}\t{name}\n", sandbox::gateway(network))),
            address => text.push_str(&format!("{address}\t{name}\n")),
        }
    }
    text.into_bytes()
}
