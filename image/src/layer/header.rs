//! The 512-byte block that stands before each file of a tar: where its fields are, and how numbers are written in them.

use std::ops::Range;

/// The unit of a tar: headers are one block, contents are filled up with zeros to whole blocks.
pub(super) const BLOCK: usize = 512;

pub(super) const NAME: Range<usize> = 0..100;
pub(super) const MODE: Range<usize> = 100..108;
pub(super) const UID: Range<usize> = 108..116;
pub(super) const GID: Range<usize> = 116..124;
pub(super) const SIZE: Range<usize> = 124..136;
pub(super) const MTIME: Range<usize> = 136..148;
pub(super) const CHECKSUM: Range<usize> = 148..156;
pub(super) const TYPE: usize = 156;
pub(super) const LINK: Range<usize> = 157..257;
pub(super) const MAGIC: Range<usize> = 257..265;
pub(super) const MAJOR: Range<usize> = 329..337;
pub(super) const MINOR: Range<usize> = 337..345;
pub(super) const PREFIX: Range<usize> = 345..500;
/// Where star shortens the prefix to make room for other times.
pub(super) const STAR_PREFIX: Range<usize> = 345..476;
pub(super) const STAR_TRAILER: Range<usize> = 508..512;

/// Magic and version of POSIX.
pub(super) const USTAR: &[u8; 8] = b"ustar\x0000";
/// Magic and version of GNU tar.
pub(super) const GNU: &[u8; 8] = b"ustar  \0";

/// What an entry is.
pub(super) mod kind {
    pub(in crate::layer) const FILE: u8 = b'0';
    /// A file, as tars were before POSIX.
    pub(in crate::layer) const OLD_FILE: u8 = 0;
    /// A file in one piece, on systems of the past.
    pub(in crate::layer) const CONTIGUOUS: u8 = b'7';
    pub(in crate::layer) const HARDLINK: u8 = b'1';
    pub(in crate::layer) const SYMLINK: u8 = b'2';
    pub(in crate::layer) const CHAR: u8 = b'3';
    pub(in crate::layer) const BLOCK: u8 = b'4';
    pub(in crate::layer) const DIRECTORY: u8 = b'5';
    pub(in crate::layer) const FIFO: u8 = b'6';
    /// Records for the next entry.
    pub(in crate::layer) const PAX: u8 = b'x';
    /// Records for all following entries.
    pub(in crate::layer) const PAX_GLOBAL: u8 = b'g';
    /// The name of the next entry.
    pub(in crate::layer) const GNU_NAME: u8 = b'L';
    /// The link target of the next entry.
    pub(in crate::layer) const GNU_LINK: u8 = b'K';
    pub(in crate::layer) const GNU_SPARSE: u8 = b'S';
}

/// Returns the largest number that `n_bytes` hold in octal: one of them is the NUL at the end.
pub(super) const fn octal_max(n_bytes: usize) -> u64 {
    (1 << (3 * (n_bytes - 1))) - 1
}

/// Writes `value` in octal, filled with zeros, with a NUL behind. What does not fit is written as 0; it stands in a PAX record.
pub(super) fn put_octal(field: &mut [u8], value: u64) {
    let mut rest = if value <= octal_max(field.len()) { value } else { 0 };
    let Some((last, digits)) = field.split_last_mut() else { return };
    *last = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest & 7) as u8;
        rest >>= 3;
    }
}

/// Returns the sum over a header, its own field counted as spaces, with bytes taken as unsigned and as signed numbers.
/// The standard wants the first; old programs wrote the second.
pub(super) fn checksums(block: &[u8; BLOCK]) -> (u64, i64) {
    let (mut unsigned, mut signed) = (0, 0);
    for (at, byte) in block.iter().enumerate() {
        let byte = if CHECKSUM.contains(&at) { b' ' } else { *byte };
        unsigned += u64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    (unsigned, signed)
}

/// Reads a number: octal digits between spaces or NULs, or, if the first bit is set, big-endian two's complement.
pub(super) fn parse_number(field: &[u8]) -> Option<i64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // The second bit of the first byte is the sign.
        let negative = first & 0x40 != 0;
        let fill: u8 = if negative { 0xff } else { 0 };
        let top = if negative { first | 0x80 } else { first & 0x7f };
        let mut value = i64::from((top ^ fill) & 0x7f);
        for byte in rest {
            value = value.checked_mul(256)? | i64::from(byte ^ fill);
        }
        return Some(if negative { !value } else { value });
    }
    let is_space = |it: &u8| matches!(it, b' ' | 0);
    let start = field.iter().position(|it| !is_space(it)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(is_space).unwrap_or(digits.len());
    if !digits[end..].iter().all(is_space) {
        return None;
    }
    let mut value: i64 = 0;
    for digit in &digits[..end] {
        if !matches!(digit, b'0'..=b'7') {
            return None;
        }
        value = value.checked_mul(8)? | i64::from(digit - b'0');
    }
    Some(value)
}

/// Returns the text of a field up to its first NUL.
pub(super) fn parse_text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|it| *it == 0).unwrap_or(field.len());
    &field[..end]
}

/// Returns how many zeros follow a content of this length.
pub(super) fn padding(size: u64) -> usize {
    (size.wrapping_neg() % BLOCK as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b" 644 \0\0\0", Some(0o644)),
            (b"\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"77777777777\0", Some(0o77_777_777_777)),
            (b"0000648\0", None),
            (b"64 4\0", None),
            (b"-1\0", None),
            (b"\x80\0\0\0\0\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0", Some(-256)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ] {
            assert_eq!(parse_number(field), value, "{field:?}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut field = [b'x'; 8];
        put_octal(&mut field, 0o755);
        assert_eq!(&field, b"0000755\0");
        put_octal(&mut field, octal_max(8));
        assert_eq!(parse_number(&field), Some(0o7_777_777));
        put_octal(&mut field, octal_max(8) + 1);
        assert_eq!(parse_number(&field), Some(0));
    }
}
