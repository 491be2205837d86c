//! `--add-host`: lines of `/etc/hosts`.

use std::net::IpAddr;

/// One `--add-host`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddHost {
    /// The name.
    pub name: String,
    /// Its address as text, or `host-gateway`.
    pub address: String,
}

/// Parses `NAME:ADDRESS` or `NAME=ADDRESS`; an IPv6 address may stand in brackets.
///
/// # Errors
///
/// Returns a message that names the part that is wrong.
pub fn add_host(text: &str) -> Result<AddHost, String> {
    let (name, address) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .ok_or_else(|| format!("`{text}` is not of the form `host:address`"))?;
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(format!("`{text}` has no host name before the address"));
    }
    let bare = address.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(address);
    if bare != "host-gateway" && bare.parse::<IpAddr>().is_err() {
        return Err(format!("`{address}` is not an IP address"));
    }
    Ok(AddHost { name: name.to_owned(), address: bare.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let parsed = |text| add_host(text).map(|it| (it.name, it.address));
        let pair = |a: &str, b: &str| Ok((a.to_owned(), b.to_owned()));
        assert_eq!(parsed("a:1.2.3.4"), pair("a", "1.2.3.4"));
        assert_eq!(parsed("a=::1"), pair("a", "::1"));
        assert_eq!(parsed("a:[::1]"), pair("a", "::1"));
        assert_eq!(parsed("a:::1"), pair("a", "::1"));
        assert_eq!(parsed("a:host-gateway"), pair("a", "host-gateway"));
        for bad in ["a", "a:b", ":1.2.3.4", "a=1.2.3"] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }
}
