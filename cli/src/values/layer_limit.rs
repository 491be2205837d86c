//! `--limit`: how much a layer or an archive may hold.

use image::LimitKind;

use super::{one_of, size::size};

/// One `--limit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerLimit {
    /// What it counts.
    pub kind: LimitKind,
    /// How much is allowed.
    pub value: u64,
}

/// The names of the limits, as the configuration has them too.
const NAMES: [(&str, LimitKind); 4] = [
    ("entries", LimitKind::Entries),
    ("bytes", LimitKind::Bytes),
    ("ratio", LimitKind::Ratio),
    ("memory", LimitKind::Memory),
];

/// Parses `entries=NUMBER`, `bytes=SIZE`, `ratio=NUMBER` or `memory=SIZE`.
///
/// # Errors
///
/// Returns a message that names the text.
pub fn layer_limit(text: &str) -> Result<LayerLimit, String> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| format!("`{text}` is not `NAME=VALUE`"))?;
    let Some((_, kind)) = NAMES.iter().find(|it| it.0 == name) else {
        return Err(format!("`{name}` is no limit; known are {}", one_of(&NAMES.map(|it| it.0))));
    };
    let value = match kind {
        LimitKind::Bytes | LimitKind::Memory => size(value)?,
        _ => value.parse().map_err(|_| format!("`{value}` is not a number"))?,
    };
    match value {
        0 => Err(format!("`{text}` allows nothing at all")),
        value => Ok(LayerLimit { kind: *kind, value }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_sizes() {
        let limit = |text| layer_limit(text).map(|it| (it.kind, it.value));
        assert_eq!(limit("entries=5000000"), Ok((LimitKind::Entries, 5_000_000)));
        assert_eq!(limit("bytes=1t"), Ok((LimitKind::Bytes, 1 << 40)));
        assert_eq!(limit("ratio=9"), Ok((LimitKind::Ratio, 9)));
        assert_eq!(limit("memory=1g"), Ok((LimitKind::Memory, 1 << 30)));
        for bad in ["entries", "entries=", "entries=1k", "entries=0", "layers=3", "bytes=x"] {
            assert!(limit(bad).is_err(), "{bad}");
        }
    }
}
