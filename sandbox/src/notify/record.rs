//! The owner that a file has for the processes of a sandbox, kept in an attribute of the file.
//!
//! ```text
//! user.kiln.stat = UID:GID                 a file or a folder
//!                  UID:GID:c:MAJOR:MINOR   an empty file that stands for a device; b for a block device
//! ```
//!
//! A file without the attribute belongs to 0:0. Overlay copies it when it copies a file up, and it stays with a file that is
//! renamed. The store (`cache::owners`) writes and reads the same.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::XattrFlags;
use rustix::io::{Errno, Result};

/// The attribute.
pub(crate) const NAME: &CStr = c"user.kiln.stat";

/// How the names of all of our attributes begin.
pub(crate) const PREFIX: &[u8] = b"user.kiln.";

/// Longest value, in bytes; a longer one is none of ours.
const MAX_VALUE: usize = 64;

/// What is remembered of a file. The default is what a file without a record has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Record {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) device: Option<Device>,
}

/// The device that an empty file stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) is_block: bool,
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

impl Record {
    /// The value of the attribute.
    fn encode(self) -> String {
        let mut out = format!("{}:{}", self.uid, self.gid);
        if let Some(Device { is_block, major, minor }) = self.device {
            let kind = if is_block { 'b' } else { 'c' };
            out += &format!(":{kind}:{major}:{minor}");
        }
        out
    }

    /// Reads the value of the attribute.
    fn parse(value: &[u8]) -> Option<Self> {
        let mut fields = std::str::from_utf8(value).ok()?.split(':');
        let number = |text: Option<&str>| text?.parse::<u32>().ok();
        let (uid, gid) = (number(fields.next())?, number(fields.next())?);
        let device = match fields.next() {
            None => None,
            Some(kind @ ("b" | "c")) => Some(Device {
                is_block: kind == "b",
                major: number(fields.next())?,
                minor: number(fields.next())?,
            }),
            Some(_) => return None,
        };
        fields.next().is_none().then_some(Self { uid, gid, device })
    }

    /// The record of the file at a path; `None` if it has none, or is of a kind that can have none.
    pub(crate) fn get(path: &CStr, follow: bool) -> Result<Option<Self>> {
        let mut value = [0; MAX_VALUE];
        let got = if follow {
            rustix::fs::getxattr(path, NAME, &mut value)
        } else {
            rustix::fs::lgetxattr(path, NAME, &mut value)
        };
        match got {
            Ok(n_bytes) => Ok(Self::parse(&value[..n_bytes])),
            Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Gives the file at a path, which is no link, this record.
    pub(crate) fn set(self, path: &CStr) -> Result<()> {
        if self == Self::default() {
            return match rustix::fs::removexattr(path, NAME) {
                Err(Errno::NODATA | Errno::NOTSUP) => Ok(()),
                result => result,
            };
        }
        rustix::fs::setxattr(path, NAME, self.encode().as_bytes(), XattrFlags::empty())
    }

    /// Gives an open file this record.
    pub(crate) fn set_on(self, file: BorrowedFd<'_>) -> Result<()> {
        let path = std::ffi::CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()));
        self.set(&path.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The other crate that keeps these records reads the same file.
    #[test]
    fn values_of_the_attribute() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/single-id/records");
        let text = std::fs::read_to_string(path).expect("the records are there");
        let mut n_values = 0;
        for line in text.lines().filter(|it| !it.starts_with('#')) {
            let (value, fields) = line.split_once(" = ").expect("a value and what it means");
            let fields: Vec<&str> = fields.split(' ').collect();
            let number = |nth: usize| fields[nth].parse().expect("a number");
            let device = |is_block| Device { is_block, major: number(3), minor: number(4) };
            let expected = match (fields[0], fields.get(2)) {
                ("none", _) => None,
                (_, kind) => Some(Record {
                    uid: number(0),
                    gid: number(1),
                    device: kind.map(|it| device(*it == "b")),
                }),
            };
            assert_eq!(Record::parse(value.as_bytes()), expected, "{line}");
            if let Some(record) = expected {
                assert_eq!(record.encode(), value, "{line}");
            }
            n_values += 1;
        }
        assert!(n_values > 10, "{n_values}");
    }
}
