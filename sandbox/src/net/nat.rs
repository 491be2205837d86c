//! The way out: what comes from an isolated network gets the machine's address, and what goes from one to another is dropped.
//!
//! The rules are a table that belongs to a socket of this process: the kernel removes it when the process ends, however that
//! happens. Each process of kiln has its own, and all say the same.
//!
//! # Source
//!
//! `linux/netfilter/nf_tables.h`; `nft(8)`, "flags owner".

use rustix::io::{Errno, Result};

use super::link::PREFIX;
use super::netlink::{
    Messages, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, Socket, attributes,
};
use super::subnet::Subnet;

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const GET_CHAIN: u16 = SUBSYSTEM << 8 | 4;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const TABLE_F_OWNER: u32 = 2;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const REGISTER: u32 = 1;
const FORWARD: u32 = 2;
const POSTROUTING: u32 = 4;
const DROP: u32 = 0;
const INET: u8 = libc::AF_INET as u8;
/// The family of tables for both versions, `NFPROTO_INET`.
const BOTH: u8 = 1;

/// The rules of this process. They are gone when this is.
#[derive(Debug)]
pub(super) struct Nat {
    _socket: Socket,
}

impl Nat {
    /// Sets the rules up.
    ///
    /// # Errors
    ///
    /// The kernel's; `EINVAL` or `EOPNOTSUPP` before Linux 5.12, which had no tables with an owner.
    pub(super) fn set_up(subnet: Subnet) -> Result<Self> {
        let socket = Socket::netfilter()?;
        socket.request(&rules(&format!("{PREFIX}-{}", std::process::id()), subnet))?;
        Ok(Self { _socket: socket })
    }

    /// Whether other rules of this machine drop what is forwarded unless they know it.
    pub(super) fn is_forwarding_dropped() -> Result<bool> {
        let mut messages = Messages::default();
        messages.begin(GET_CHAIN, NLM_F_DUMP, &family(0));
        let mut is_dropped = false;
        Socket::netfilter()?.exchange(&messages, |kind, body| {
            // The kernel answers with chains, as if they were new.
            if let (NEW_CHAIN, Some((fixed, rest))) = (kind, body.split_at_checked(4)) {
                is_dropped |= matches!(fixed[0], INET | BOTH) && drops_forwarded(rest);
            }
        })?;
        Ok(is_dropped)
    }
}

fn drops_forwarded(chain: &[u8]) -> bool {
    let number = |bytes: &[u8]| bytes.first_chunk().map(|it| u32::from_be_bytes(*it));
    let find = |bytes, wanted| {
        let mut all = attributes(bytes);
        all.find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
    };
    let hook = find(chain, CHAIN_HOOK).and_then(|it| find(it, HOOK_NUMBER)).and_then(number);
    hook == Some(FORWARD) && find(chain, CHAIN_POLICY).and_then(number) == Some(DROP)
}

/// `struct nfgenmsg`.
fn family(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}

fn rules(table: &str, subnet: Subnet) -> Messages {
    let mut messages = Messages::default();
    let [high, low] = SUBSYSTEM.to_be_bytes();
    let create = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    messages.begin(BATCH_BEGIN, 0, &[0, 0, high, low]);
    messages
        .begin(NEW_TABLE, create, &family(INET))
        .text(TABLE_NAME, table)
        .attribute(TABLE_FLAGS, &TABLE_F_OWNER.to_be_bytes());
    for (name, kind, hook, priority) in
        [("nat", "nat", POSTROUTING, 100_i32), ("forward", "filter", FORWARD, -10)]
    {
        messages
            .begin(NEW_CHAIN, create, &family(INET))
            .text(CHAIN_TABLE, table)
            .text(CHAIN_NAME, name)
            .nested(CHAIN_HOOK, |it| {
                it.attribute(HOOK_NUMBER, &hook.to_be_bytes())
                    .attribute(HOOK_PRIORITY, &priority.to_be_bytes());
            })
            .text(CHAIN_TYPE, kind);
    }
    rule(&mut messages, table, "nat", |it| {
        source_address(it);
        masked(it, subnet.mask());
        equals(it, &subnet.base().octets());
        expression(it, "masq", |_| {});
    });
    rule(&mut messages, table, "forward", |it| {
        for key in [META_IIFNAME, META_OIFNAME] {
            meta(it, key);
            // Fewer bytes than a name has compare its beginning.
            equals(it, PREFIX.as_bytes());
        }
        verdict(it, DROP);
    });
    messages.begin(BATCH_END, 0, &[0, 0, high, low]);
    messages
}

fn rule(messages: &mut Messages, table: &str, chain: &str, fill: impl FnOnce(&mut Messages)) {
    const NLM_F_APPEND: u16 = 0x800;
    messages
        .begin(NEW_RULE, NLM_F_ACK | NLM_F_CREATE | NLM_F_APPEND, &family(INET))
        .text(RULE_TABLE, table)
        .text(RULE_CHAIN, chain)
        .nested(RULE_EXPRESSIONS, fill);
}

fn expression(messages: &mut Messages, name: &str, fill: impl FnOnce(&mut Messages)) {
    messages.nested(LIST_ELEMENT, |it| {
        it.text(EXPRESSION_NAME, name).nested(EXPRESSION_DATA, fill);
    });
}

/// Loads the source address of a packet.
fn source_address(messages: &mut Messages) {
    const NETWORK_HEADER: u32 = 1;
    const SOURCE: u32 = 12;
    expression(messages, "payload", |it| {
        for (kind, value) in (1..).zip([REGISTER, NETWORK_HEADER, SOURCE, 4]) {
            it.attribute(kind, &value.to_be_bytes());
        }
    });
}

/// Keeps the bits of a mask.
fn masked(messages: &mut Messages, mask: u32) {
    expression(messages, "bitwise", |it| {
        for (kind, value) in (1..).zip([REGISTER, REGISTER, 4]) {
            it.attribute(kind, &value.to_be_bytes());
        }
        for (kind, value) in [(4, mask), (5, 0)] {
            it.nested(kind, |it| {
                it.attribute(DATA_VALUE, &value.to_be_bytes());
            });
        }
    });
}

/// Goes on only if what was loaded equals this.
fn equals(messages: &mut Messages, value: &[u8]) {
    const EQUAL: u32 = 0;
    expression(messages, "cmp", |it| {
        it.attribute(1, &REGISTER.to_be_bytes()).attribute(2, &EQUAL.to_be_bytes()).nested(
            3,
            |it| {
                it.attribute(DATA_VALUE, value);
            },
        );
    });
}

/// Loads something about a packet.
fn meta(messages: &mut Messages, key: u32) {
    expression(messages, "meta", |it| {
        it.attribute(1, &REGISTER.to_be_bytes()).attribute(2, &key.to_be_bytes());
    });
}

fn verdict(messages: &mut Messages, code: u32) {
    const VERDICT_REGISTER: u32 = 0;
    expression(messages, "immediate", |it| {
        it.attribute(1, &VERDICT_REGISTER.to_be_bytes()).nested(2, |it| {
            it.nested(DATA_VERDICT, |it| {
                it.attribute(VERDICT_CODE, &code.to_be_bytes());
            });
        });
    });
}

/// What an error of [`Nat::set_up`] means.
pub(super) fn explain(errno: Errno) -> String {
    match errno {
        Errno::PERM | Errno::ACCESS => "packet filters may not be changed here".to_owned(),
        Errno::INVAL | Errno::OPNOTSUPP => {
            "the kernel has no tables with an owner, which Linux 5.12 brought".to_owned()
        }
        Errno::NOENT | Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT => {
            "the kernel has no nf_tables with NAT".to_owned()
        }
        errno => format!("the packet filter refuses: {errno}"),
    }
}
