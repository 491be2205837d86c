//! The system calls a sandboxed process may make, as a classic BPF program.
//!
//! `seccomp/syscalls.txt` is the table: every call, its number on each ABI, and the verdict, which is
//! that of the default profile of Docker and BuildKit. What the table does not know is answered with
//! `ENOSYS`, so that a C library falls back to an older call. Arguments that the kernel reads as
//! 32-bit integers are compared as such; comparing all 64 bits would let a caller set bits that only
//! the filter sees.
//!
//! The program is a binary search over ranges of numbers, one per ABI, and is built once per set of
//! granted capabilities.

mod bpf;

use std::sync::OnceLock;

use crate::caps;
use crate::sys::Instruction;
use bpf::{Action, Compare};

const TABLE: &str = include_str!("seccomp/syscalls.txt");

/// Bits of `clone` flags that make new namespaces.
const NAMESPACE_FLAGS: u32 = 0x7E02_0000;

/// Socket families that are allowed, as ranges with both ends. Not among them: AF_ALG (38) and
/// AF_VSOCK (40), whose kernel sides reach past the sandbox, and families that nothing uses.
const SOCKET_FAMILIES: [(u32, u32); 8] =
    [(0, 11), (13, 18), (21, 22), (24, 24), (26, 33), (35, 36), (39, 39), (41, 45)];

/// Socket families that lead to no other machine: AF_UNIX and AF_NETLINK.
const LOCAL_FAMILIES: [(u32, u32); 2] = [(1, 1), (16, 16)];

/// Values of `personality` that are allowed: Linux, Linux 2.6 version, both with 32-bit addresses
/// unchanged, and the query.
const PERSONALITIES: [u32; 5] = [0, 8, 0x20000, 0x20008, u32::MAX];

/// An ABI: how its calls are told apart, and its column in the table.
struct Abi {
    audit_arch: u32,
    column: usize,
    /// x32 shares its architecture with x86-64 and marks its numbers with a bit.
    is_x32: bool,
}

const X32_BIT: u32 = 0x4000_0000;

#[cfg(target_arch = "x86_64")]
const ABIS: [Abi; 3] = [
    Abi { audit_arch: 0xC000_003E, column: 1, is_x32: false },
    Abi { audit_arch: 0x4000_0003, column: 2, is_x32: false },
    Abi { audit_arch: 0xC000_003E, column: 3, is_x32: true },
];
#[cfg(target_arch = "aarch64")]
const ABIS: [Abi; 2] = [
    Abi { audit_arch: 0xC000_00B7, column: 4, is_x32: false },
    Abi { audit_arch: 0x4000_0028, column: 5, is_x32: false },
];

/// The filter for a process that is granted the capabilities `granted`.
pub(crate) fn filter(granted: u64) -> std::borrow::Cow<'static, [Instruction]> {
    static DEFAULT: OnceLock<Vec<Instruction>> = OnceLock::new();
    if granted == caps::DEFAULT {
        DEFAULT.get_or_init(|| build(granted, &SOCKET_FAMILIES, true, |_| None)).into()
    } else {
        build(granted, &SOCKET_FAMILIES, true, |_| None).into()
    }
}

/// When a supervisor is asked about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Each time.
    Always,
    /// If the argument of this number has one of these bits.
    IfBits(u8, u32),
    /// Never: it fails, so that programs take a call that the supervisor knows.
    Absent,
}

/// The filter of a process with a supervisor. Calls of other architectures, which it would have to know in another form,
/// are refused.
///
/// Unless it `is_confined`, all calls are allowed but those that would do what the supervisor is asked about behind its
/// back.
pub(crate) fn supervised(
    granted: u64,
    is_confined: bool,
    ask: impl Fn(&str) -> Option<Ask>,
) -> Vec<Instruction> {
    let abi = &ABIS[0];
    let mut calls: Vec<(u32, Action)> = rows()
        .filter_map(|row| {
            let number = row[abi.column].parse::<u32>().ok()?;
            let own = verdict(row[row.len() - 1], granted, &SOCKET_FAMILIES);
            let own =
                if is_confined || row[0].starts_with("io_uring_") { own } else { Action::Allow };
            Some((number, with(own, ask(row[0]))))
        })
        .collect();
    calls.sort_by_key(|(number, _)| *number);
    bpf::program(&[(abi.audit_arch, calls)])
}

/// What happens to a call that somebody is asked about.
fn with(own: Action, asked: Option<Ask>) -> Action {
    match (own, asked) {
        (Action::Allow, Some(Ask::Always)) => Action::Notify,
        (Action::Allow, Some(Ask::IfBits(argument, bits))) => Action::NotifyIf(argument, bits),
        (_, Some(Ask::Absent)) => Action::Errno(libc::ENOSYS as u16),
        (own, _) => own,
    }
}

/// The names of the calls and their numbers here.
pub(crate) fn numbers() -> impl Iterator<Item = (&'static str, i32)> {
    rows().filter_map(|row| Some((row[0], row[ABIS[0].column].parse().ok()?)))
}

/// The filter of a process that has no namespaces: it can set limits of its own only, without `has_network` it can make local sockets
/// only, and somebody is asked about calls of this machine's own architecture.
pub(crate) fn without_namespaces(
    granted: u64,
    has_network: bool,
    ask: impl Fn(&str) -> Option<Ask>,
) -> Vec<Instruction> {
    let families: &[_] = if has_network { &SOCKET_FAMILIES } else { &LOCAL_FAMILIES };
    build(granted, families, false, ask)
}

fn build(
    granted: u64,
    families: &[(u32, u32)],
    has_own_ids: bool,
    ask: impl Fn(&str) -> Option<Ask>,
) -> Vec<Instruction> {
    let mut sections: Vec<(u32, Vec<(u32, Action)>)> = Vec::new();
    for abi in &ABIS {
        let mut calls: Vec<(u32, Action)> = rows()
            .filter_map(|row| {
                let number = row[abi.column].parse::<u32>().ok()?;
                let number = if abi.is_x32 { number | X32_BIT } else { number };
                // Its arguments are in memory, where a filter does not look.
                if row[0] == "socketcall" && families != SOCKET_FAMILIES {
                    return Some((number, Action::Errno(libc::EPERM as u16)));
                }
                let own = match row[0] {
                    // By its number it would be a process outside, kiln for one.
                    "prlimit64" if !has_own_ids => Action::AllowIf(vec![Compare::Between(0, 0)]),
                    _ => verdict(row[row.len() - 1], granted, families),
                };
                let asked = if abi.column == ABIS[0].column { ask(row[0]) } else { None };
                Some((number, with(own, asked)))
            })
            .collect();
        calls.sort_by_key(|(number, _)| *number);
        match sections.iter_mut().find(|(arch, _)| *arch == abi.audit_arch) {
            Some((_, known)) => known.extend(calls),
            None => sections.push((abi.audit_arch, calls)),
        }
    }
    bpf::program(&sections)
}

fn rows() -> impl Iterator<Item = Vec<&'static str>> {
    TABLE
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter(|row| row.len() == 7)
}

fn verdict(text: &str, granted: u64, families: &[(u32, u32)]) -> Action {
    let is_admin = granted & (1 << 21) != 0;
    match text {
        "allow" => Action::Allow,
        "absent" if is_admin => Action::Allow,
        "absent" => Action::Errno(libc::ENOSYS as u16),
        "no-new-namespaces" if is_admin => Action::Allow,
        "no-new-namespaces" => Action::AllowIf(vec![Compare::NoneOf(NAMESPACE_FLAGS)]),
        "socket-family" => Action::AllowIf(
            families.iter().map(|(low, high)| Compare::Between(*low, *high)).collect(),
        ),
        "personality" => Action::AllowIf(
            PERSONALITIES.iter().map(|value| Compare::Between(*value, *value)).collect(),
        ),
        text => {
            let caps = text.strip_prefix("cap:").unwrap_or_default();
            let is_granted = |name| caps::bit(name).is_some_and(|bit| granted & bit != 0);
            if caps.split(',').any(is_granted) {
                Action::Allow
            } else {
                Action::Errno(libc::EPERM as u16)
            }
        }
    }
}

#[cfg(test)]
#[path = "seccomp/tests.rs"]
mod tests;
