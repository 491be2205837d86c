//! From a table of numbers and actions to a classic BPF program.
//!
//! Code is put together from pieces that each end in a return, so pieces can be moved freely and a
//! branch is only "skip the next piece". A skip too long for the 8 bits of a conditional jump goes
//! through an unconditional one.

use crate::sys::Instruction;

/// Offsets into the kernel's `struct seccomp_data`, little-endian.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARG0_LOW: u32 = 16;

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const JUMP_EQ: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_GT: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const JUMP_GE: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const JUMP_SET: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

const RET_ALLOW: u32 = 0x7FFF_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_USER_NOTIF: u32 = 0x7FC0_0000;

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// It runs.
    Allow,
    /// It fails with this error number.
    Errno(u16),
    /// It runs if one of the comparisons of its first argument holds, else it fails with `EPERM`.
    AllowIf(Vec<Compare>),
    /// Kiln is asked.
    Notify,
    /// Kiln is asked if the argument of this number has one of these bits, else it runs.
    NotifyIf(u8, u32),
}

/// A comparison of the low 32 bits of the first argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compare {
    /// It lies between two values, both included.
    Between(u32, u32),
    /// It has none of these bits.
    NoneOf(u32),
}

/// Builds the program. Each section is an architecture and its calls in order of their numbers.
///
/// A number that is missing in its section, and every call of another architecture, gets `ENOSYS`.
pub(super) fn program(sections: &[(u32, Vec<(u32, Action)>)]) -> Vec<Instruction> {
    let mut out = vec![instruction(LOAD, 0, 0, OFFSET_ARCH)];
    for (arch, calls) in sections {
        let mut body = vec![instruction(LOAD, 0, 0, OFFSET_NUMBER)];
        body.extend(search(&ranges(calls)));
        out.extend(unless_equal_skip(*arch, body));
    }
    out.extend(leaf(&Action::Errno(libc::ENOSYS as u16)));
    out
}

fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code, jt, jf, k }
}

fn unless_equal_skip(value: u32, body: Vec<Instruction>) -> Vec<Instruction> {
    let mut out = vec![
        instruction(JUMP_EQ, 1, 0, value),
        instruction(JUMP, 0, 0, u32::try_from(body.len()).unwrap_or(u32::MAX)),
    ];
    out.extend(body);
    out
}

/// Neighbours with the same action become one range; each entry is the first number of a range,
/// which ends before the next entry. The first range starts at 0.
fn ranges(calls: &[(u32, Action)]) -> Vec<(u32, Action)> {
    let unknown = Action::Errno(libc::ENOSYS as u16);
    let mut out: Vec<(u32, Action)> = Vec::new();
    let mut push = |start: u32, action: &Action| {
        if out.last().is_none_or(|(_, last)| last != action) {
            out.push((start, action.clone()));
        }
    };
    let mut next = 0;
    for (number, action) in calls {
        if *number > next {
            push(next, &unknown);
        }
        push(*number, action);
        next = number + 1;
    }
    push(next, &unknown);
    out
}

/// A binary search whose accumulator holds the number.
fn search(ranges: &[(u32, Action)]) -> Vec<Instruction> {
    match ranges {
        [] => leaf(&Action::Errno(libc::ENOSYS as u16)),
        [(_, action)] => leaf(action),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let (low, start) = (search(low), high[0].0);
            let mut out = match u8::try_from(low.len()) {
                Ok(n_low) => vec![instruction(JUMP_GE, n_low, 0, start)],
                Err(_) => vec![
                    instruction(JUMP_GE, 0, 1, start),
                    instruction(JUMP, 0, 0, u32::try_from(low.len()).unwrap_or(u32::MAX)),
                ],
            };
            out.extend(low);
            out.extend(search(high));
            out
        }
    }
}

fn leaf(action: &Action) -> Vec<Instruction> {
    let allow = instruction(RETURN, 0, 0, RET_ALLOW);
    let errno = |errno: u16| instruction(RETURN, 0, 0, RET_ERRNO | u32::from(errno));
    match action {
        Action::Allow => vec![allow],
        Action::Errno(number) => vec![errno(*number)],
        Action::Notify => vec![instruction(RETURN, 0, 0, RET_USER_NOTIF)],
        Action::NotifyIf(argument, bits) => vec![
            instruction(LOAD, 0, 0, OFFSET_ARG0_LOW + 8 * u32::from(*argument)),
            instruction(JUMP_SET, 0, 1, *bits),
            instruction(RETURN, 0, 0, RET_USER_NOTIF),
            allow,
        ],
        Action::AllowIf(compares) => {
            let mut out = vec![instruction(LOAD, 0, 0, OFFSET_ARG0_LOW)];
            for compare in compares {
                match *compare {
                    // Each piece falls through to the next comparison if it does not hold.
                    Compare::Between(low, high) if low == high => {
                        out.extend([instruction(JUMP_EQ, 0, 1, low), allow]);
                    }
                    Compare::Between(low, high) => out.extend([
                        instruction(JUMP_GE, 0, 2, low),
                        instruction(JUMP_GT, 1, 0, high),
                        allow,
                    ]),
                    Compare::NoneOf(bits) => {
                        out.extend([instruction(JUMP_SET, 1, 0, bits), allow]);
                    }
                }
            }
            out.push(errno(libc::EPERM as u16));
            out
        }
    }
}
