//! Which addresses isolated networks have: a private range that the machine does not use.

use std::net::Ipv4Addr;

use super::link::PREFIX;

/// A range of addresses. The first is the gateway's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subnet {
    base: u32,
    pub(super) prefix: u8,
}

/// Ranges to choose from, the first that is free. Those that Docker, Podman and Kubernetes take are not among them.
const CANDIDATES: [[u8; 4]; 6] = [
    [10, 217, 0, 0],
    [10, 171, 16, 0],
    [172, 29, 64, 0],
    [192, 168, 208, 0],
    [10, 6, 96, 0],
    [172, 22, 240, 0],
];

/// Four thousand addresses.
const SIZE: u8 = 20;

impl Subnet {
    /// The range that all processes of kiln on this machine take, unless the machine has come to use it.
    ///
    /// `routes` is `/proc/net/route`; `resolvers` must stay reachable, too.
    pub(super) fn choose(routes: &str, resolvers: &[Ipv4Addr]) -> Option<Self> {
        let taken: Vec<Route> = routes.lines().skip(1).filter_map(Route::parse).collect();
        CANDIDATES.into_iter().map(|it| Self { base: u32::from_be_bytes(it), prefix: SIZE }).find(
            |it| {
                let is_taken = |route: &Route| {
                    let mask = route.mask & it.mask();
                    route.mask != 0
                        && !route.interface.starts_with(PREFIX)
                        && route.destination & mask == it.base & mask
                };
                let has = |address: &Ipv4Addr| u32::from(*address) & it.mask() == it.base;
                !taken.iter().any(is_taken) && !resolvers.iter().any(has)
            },
        )
    }

    pub(super) fn mask(self) -> u32 {
        u32::MAX << (32 - self.prefix)
    }

    /// Its first byte after byte, as the packet filter compares it.
    pub(super) fn base(self) -> Ipv4Addr {
        self.base.into()
    }

    pub(super) fn gateway(self) -> Ipv4Addr {
        (self.base + 1).into()
    }

    /// How many there are beside the network's, the gateway's and the last.
    pub(super) fn n_addresses(self) -> u32 {
        !self.mask() - 2
    }

    /// One of them, by any number.
    pub(super) fn address(self, number: u32) -> Ipv4Addr {
        (self.base + 2 + number % self.n_addresses()).into()
    }
}

/// The interface of the machine's default route.
pub(super) fn default_interface(routes: &str) -> Option<&str> {
    let mut all = routes.lines().skip(1).filter_map(Route::parse);
    all.find(|it| it.mask == 0 && it.destination == 0).map(|it| it.interface)
}

struct Route<'a> {
    interface: &'a str,
    destination: u32,
    mask: u32,
}

impl<'a> Route<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::from_be);
        Some(Self {
            interface: fields.first()?,
            destination: number(fields.get(1)?)?,
            mask: number(fields.get(7)?)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth1\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
";

    #[test]
    fn a_range_that_the_machine_does_not_use() {
        let chosen = |more: &str, resolvers: &[[u8; 4]]| {
            let resolvers: Vec<Ipv4Addr> = resolvers.iter().map(|it| (*it).into()).collect();
            Subnet::choose(&format!("{ROUTES}{more}"), &resolvers).map(|it| it.gateway())
        };
        let route =
            |name: &str, to: &str, mask: &str| format!("{name}\t{to}\t0\t1\t0\t0\t0\t{mask}\t0\n");
        assert_eq!(chosen("", &[]), Some([10, 217, 0, 1].into()));
        // All of 10.0.0.0/8, one address, and one address of ours.
        assert_eq!(
            chosen(&route("tun0", "0000000A", "000000FF"), &[]),
            Some([172, 29, 64, 1].into())
        );
        assert_eq!(
            chosen(&route("tun0", "0500D90A", "FFFFFFFF"), &[]),
            Some([10, 171, 16, 1].into())
        );
        assert_eq!(
            chosen(&route("kiln0a", "0500D90A", "FFFFFFFF"), &[]),
            Some([10, 217, 0, 1].into())
        );
        assert_eq!(chosen("", &[[10, 217, 15, 255]]), Some([10, 171, 16, 1].into()));
        assert_eq!(default_interface(ROUTES), Some("eth1"));
        assert_eq!(default_interface(""), None);
    }

    #[test]
    fn addresses_are_inside() {
        let subnet = Subnet::choose("", &[]).expect("a range");
        assert_eq!(subnet.n_addresses(), 4093);
        for number in [0, 1, 4092, 4093, u32::MAX] {
            let address = u32::from(subnet.address(number));
            assert!(address > u32::from(subnet.gateway()) && address & 0xFFF != 0xFFF);
            assert_eq!(address & subnet.mask(), u32::from(subnet.base()));
        }
    }
}
