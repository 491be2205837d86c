//! Messages to the kernel's network configuration, and a socket for them.
//!
//! Only what [`link`](super::link) and [`nat`](super::nat) need: requests that are answered with an error number, and one
//! that lists. A socket belongs to the network namespace in which it was opened, wherever it is used later.
//!
//! # Source
//!
//! `netlink(7)`, `linux/netlink.h`.

use std::os::fd::OwnedFd;

use rustix::io::{Errno, Result};
use rustix::net::netlink::NETFILTER;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Of a request.
pub(super) const NLM_F_REQUEST: u16 = 0x1;
/// An answer is wanted even if all went well.
pub(super) const NLM_F_ACK: u16 = 0x4;
/// All there are.
pub(super) const NLM_F_DUMP: u16 = 0x300;
/// Make it.
pub(super) const NLM_F_CREATE: u16 = 0x400;
/// It must not be there yet.
pub(super) const NLM_F_EXCL: u16 = 0x200;

const NESTED: u16 = 0x8000;
const HEADER: usize = 16;

/// A message, or several in a row.
#[derive(Debug, Default)]
pub(super) struct Messages {
    bytes: Vec<u8>,
    n_messages: u32,
    /// Where the last one starts.
    start: usize,
}

impl Messages {
    /// Begins a message with its fixed part.
    pub(super) fn begin(&mut self, kind: u16, flags: u16, fixed: &[u8]) -> &mut Self {
        self.start = self.bytes.len();
        self.n_messages += 1;
        self.bytes.extend(0_u32.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend(self.n_messages.to_ne_bytes());
        self.bytes.extend(0_u32.to_ne_bytes());
        self.append(fixed)
    }

    /// Appends bytes to the message, and fills up to a multiple of four.
    pub(super) fn append(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let length = (self.bytes.len() - self.start) as u32;
        self.bytes[self.start..self.start + 4].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// Appends an attribute.
    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = (value.len() + 4) as u16;
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.append(value)
    }

    /// Appends a text with a zero at its end.
    pub(super) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        self.attribute(kind, &[value.as_bytes(), b"\0"].concat())
    }

    /// Appends an attribute that holds others.
    pub(super) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.attribute(kind | NESTED, &[]);
        fill(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }
}

/// A connection to the kernel.
#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

impl Socket {
    /// For interfaces, addresses and routes, whose protocol has the number 0.
    pub(super) fn route() -> Result<Self> {
        Self::open(None)
    }

    /// For packet filters.
    pub(super) fn netfilter() -> Result<Self> {
        Self::open(Some(NETFILTER))
    }

    fn open(protocol: Option<rustix::net::Protocol>) -> Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol).map(Self)
    }

    /// Sends messages and returns the first error.
    pub(super) fn request(&self, messages: &Messages) -> Result<()> {
        self.exchange(messages, |_, _| {})
    }

    /// Sends messages and shows each one that comes back, its type and what follows the header.
    pub(super) fn exchange(
        &self,
        messages: &Messages,
        mut see: impl FnMut(u16, &[u8]),
    ) -> Result<()> {
        rustix::net::send(&self.0, &messages.bytes, SendFlags::empty())?;
        let mut result = Ok(());
        let mut buffer = vec![0_u8; 32 << 10];
        loop {
            // The kernel has done everything when `send` returns; only of long lists is more to come.
            let n_read = match rustix::net::recv(&self.0, &mut *buffer, RecvFlags::DONTWAIT) {
                Err(Errno::AGAIN) | Ok((0, _)) => return result,
                Err(Errno::INTR) => continue,
                read => read?.0,
            };
            let mut rest = &buffer[..n_read];
            while let Some((kind, body, after)) = split(rest) {
                rest = after;
                match kind {
                    NLMSG_ERROR => {
                        let number = body.first_chunk().map_or(0, |it| i32::from_ne_bytes(*it));
                        if number != 0 && result.is_ok() {
                            result = Err(Errno::from_raw_os_error(-number));
                        }
                    }
                    NLMSG_DONE => return result,
                    kind => see(kind, body),
                }
            }
        }
    }

    /// The number of an interface, by its name.
    pub(super) fn index(&self, name: &str) -> Result<u32> {
        rustix::net::netdevice::name_to_index(&self.0, name)
    }
}

/// The type of the first message, what follows its header, and the messages after it.
fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let message = bytes.get(..length).filter(|it| it.len() >= HEADER)?;
    let after = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, &message[HEADER..], after))
}

/// The attributes in a row of them: number and value.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?) & !NESTED;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_what_the_kernel_reads() {
        let mut messages = Messages::default();
        messages.begin(16, NLM_F_ACK, &[1, 2, 3, 4]).text(3, "lo");
        messages.begin(17, 0, &[]).nested(18, |it| {
            it.attribute(1, b"veth!");
        });
        let first = [24 + 4, 0, 0, 0, 16, 0, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 7, 0, 3, 0];
        assert_eq!(messages.bytes[..24], first);
        assert_eq!(messages.bytes[24..28], *b"lo\0\0");
        let (kind, body, after) = split(&messages.bytes).expect("a message");
        assert_eq!((kind, body.len(), after.len()), (16, 12, 32));
        let (kind, body, after) = split(after).expect("a message");
        assert_eq!((kind, after.len()), (17, 0));
        let nested: Vec<_> = attributes(body).collect();
        assert_eq!((nested.len(), nested[0].0), (1, 18));
        assert_eq!(attributes(nested[0].1).collect::<Vec<_>>(), [(1, &b"veth!"[..])]);
        assert!(split(&[9, 0, 0, 0]).is_none());
        assert_eq!(attributes(&[3, 0, 0]).count(), 0);
    }
}
