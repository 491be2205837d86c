//! PAX records: `LENGTH KEY=VALUE\n`, for what a tar header has no room for.

use super::{
    header::{self, octal_max},
    sparse,
    write::split_name,
};
use crate::entry::{Entry, Kind, Time};

const XATTR: &[u8] = b"SCHILY.xattr.";

/// Returns the records that an entry of this name needs, sorted by key; empty if it needs none.
pub(super) fn records(entry: &Entry, name: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    // Capital letters sort before small ones.
    for (name, value) in &entry.xattrs {
        put(&mut out, &[XATTR, name].concat(), value);
    }
    let max_id = octal_max(header::UID.len());
    if u64::from(entry.gid) > max_id {
        put(&mut out, b"gid", entry.gid.to_string().as_bytes());
    }
    if let Kind::Symlink { target } | Kind::Hardlink { target } = &entry.kind
        && (target.len() > header::LINK.len() || !target.is_ascii())
    {
        put(&mut out, b"linkpath", target);
    }
    let fits = u64::try_from(entry.mtime.secs).is_ok_and(|it| it <= octal_max(header::MTIME.len()));
    if !fits || entry.mtime.nanos != 0 {
        put(&mut out, b"mtime", time(entry.mtime).as_bytes());
    }
    if !name.is_ascii() || (name.len() > header::NAME.len() && split_name(name).is_none()) {
        put(&mut out, b"path", name);
    }
    if let Kind::File { size } = entry.kind
        && size > octal_max(header::SIZE.len())
    {
        put(&mut out, b"size", size.to_string().as_bytes());
    }
    if u64::from(entry.uid) > max_id {
        put(&mut out, b"uid", entry.uid.to_string().as_bytes());
    }
    out
}

/// Appends one record. Its length counts its own digits.
fn put(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let n_rest = key.len() + value.len() + b" =\n".len();
    let mut length = n_rest;
    while length != n_rest + n_digits(length) {
        length = n_rest + n_digits(length);
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn n_digits(number: usize) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

/// Writes a time as a decimal fraction without trailing zeros.
fn time(time: Time) -> String {
    let (sign, secs, nanos) = match (time.secs, time.nanos) {
        (secs, 0) => return secs.to_string(),
        // -1.5 is kept as two seconds before and half a second after the epoch.
        (secs, nanos) if secs < 0 => ("-", (secs + 1).unsigned_abs(), 1_000_000_000 - nanos),
        (secs, nanos) => ("", secs.unsigned_abs(), nanos),
    };
    let fraction = format!("{nanos:09}");
    format!("{sign}{secs}.{}", fraction.trim_end_matches('0'))
}

/// Reads a time as [`time`] writes it. Digits beyond nanoseconds are cut off.
fn parse_time(text: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(text).ok()?;
    let (negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|it| it.is_ascii_digit()) {
        return None;
    }
    let secs: i64 = whole.parse().ok()?;
    let nanos = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanos = nanos.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    Some(match (negative, nanos) {
        (false, _) => Time { secs, nanos },
        (true, 0) => Time { secs: -secs, nanos },
        (true, _) => Time { secs: -secs - 1, nanos: 1_000_000_000 - nanos },
    })
}

/// What PAX records say of an entry.
#[derive(Debug, Clone, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) linkpath: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Time>,
    pub(super) xattrs: std::collections::BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) sparse: Option<sparse::Records>,
}

impl Pax {
    /// Reads the content of a PAX header, and lets each record override what `self` says already. An empty value takes a record back.
    ///
    /// # Errors
    ///
    /// Says what is malformed; programs differ in what they make of such records, so nothing is guessed.
    pub(super) fn parse(&mut self, mut rest: &[u8]) -> Result<(), &'static str> {
        while !rest.is_empty() {
            let (key, value, after) = split_record(rest)?;
            rest = after;
            self.apply(key, value)?;
        }
        Ok(())
    }

    /// Says whether any record changes what other programs would take from the header itself.
    pub(super) fn is_empty(&self) -> bool {
        self.path.is_none()
            && self.linkpath.is_none()
            && self.size.is_none()
            && self.uid.is_none()
            && self.gid.is_none()
            && self.mtime.is_none()
            && self.xattrs.is_empty()
            && self.sparse.is_none()
    }

    fn apply(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let number = || -> Result<Option<u64>, &'static str> {
            if value.is_empty() {
                return Ok(None);
            }
            let is_number = value.iter().all(u8::is_ascii_digit);
            let text = std::str::from_utf8(value).ok().filter(|_| is_number);
            text.and_then(|it| it.parse().ok()).map(Some).ok_or("a PAX record is no number")
        };
        let id = || match number()? {
            None => Ok(None),
            Some(id) => {
                u32::try_from(id).map(Some).map_err(|_| "an owner in a PAX record is too large")
            }
        };
        let text = || match value {
            [] => Ok(None),
            value if value.contains(&0) => Err("a path in a PAX record has a NUL in it"),
            value => Ok(Some(value.to_vec())),
        };
        match key {
            b"path" => self.path = text()?,
            b"linkpath" => self.linkpath = text()?,
            b"size" => self.size = number()?,
            b"uid" => self.uid = id()?,
            b"gid" => self.gid = id()?,
            b"mtime" if value.is_empty() => self.mtime = None,
            b"mtime" => {
                self.mtime = Some(parse_time(value).ok_or("a time in a PAX record is malformed")?)
            }
            _ if key.starts_with(b"GNU.sparse.") => {
                self.sparse.get_or_insert_default().apply(key, value)?;
            }
            _ => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    if name.is_empty() || name.contains(&0) {
                        return Err("an attribute in a PAX record has a bad name");
                    }
                    self.xattrs.insert(name.to_vec(), value.to_vec());
                }
            }
        }
        Ok(())
    }
}

/// The key and the value of a record, and what follows.
type Split<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// Takes the first record off.
fn split_record(bytes: &[u8]) -> Result<Split<'_>, &'static str> {
    const MALFORMED: &str = "a PAX record is malformed";
    let space = bytes.iter().take(10).position(|it| *it == b' ').ok_or(MALFORMED)?;
    let digits = &bytes[..space];
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(MALFORMED);
    }
    let length = digits.iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
    let record = bytes.get(space + 1..length).ok_or(MALFORMED)?;
    let record = record.strip_suffix(b"\n").ok_or(MALFORMED)?;
    let equals = record.iter().position(|it| *it == b'=').ok_or(MALFORMED)?;
    if equals == 0 || record[..equals].contains(&0) {
        return Err(MALFORMED);
    }
    Ok((&record[..equals], &record[equals + 1..], &bytes[length..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_count_themselves() {
        for n in [1, 2, 3, 4, 5, 6, 90, 91, 92, 93, 94, 990, 991, 992, 993] {
            let mut out = Vec::new();
            put(&mut out, b"k", &vec![b'v'; n]);
            let space = out.iter().position(|it| *it == b' ').expect("a space");
            assert_eq!(out.len().to_string().as_bytes(), &out[..space]);
            assert_eq!(split_record(&out), Ok((&b"k"[..], &vec![b'v'; n][..], &b""[..])));
        }
    }

    #[test]
    fn times_are_decimal_fractions() {
        for (text, secs, nanos) in [
            ("0.000000001", 0, 1),
            ("-0.5", -1, 500_000_000),
            ("-1.5", -2, 500_000_000),
            ("-1", -1, 0),
            ("12345.67", 12345, 670_000_000),
            ("-9223372036854775807", -i64::MAX, 0),
        ] {
            assert_eq!(parse_time(text.as_bytes()), Some(Time { secs, nanos }), "{text}");
            assert_eq!(time(Time { secs, nanos }), text);
        }
        assert_eq!(parse_time(b"1.0000000019"), Some(Time { secs: 1, nanos: 1 }));
        for bad in ["", "-", ".5", "1.x", "+1", "1e3", "99999999999999999999", " 1"] {
            assert_eq!(parse_time(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn malformed_records_are_errors() {
        for bad in [
            "x",
            "5 a=b",
            "6 a=b",
            "6 a=b\nx",
            "7 a=b\n",
            "+6 a=b\n",
            " 6 a=b\n",
            "0 a=b\n",
            "6 =ab\n",
            "6 abc\n",
            "99999999999 a=b\n",
            "3 \n",
            "10 size=x\n",
            "12 path=a\0b\n",
            "10 uid=-1\n",
            "18 uid=4294967296\n",
        ] {
            assert!(Pax::default().parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn later_records_win_and_empty_ones_take_back() {
        let mut pax = Pax::default();
        pax.parse(b"9 path=a\n9 path=b\n8 uid=7\n7 uid=\n").expect("good records");
        assert_eq!((pax.path.as_deref(), pax.uid), (Some(&b"b"[..]), None));
    }
}
