//! JSON as Go's `encoding/json` writes it, byte for byte, so that digests agree with those of other builders.

use serde::Serialize;

/// Writes a document: no white space, fields in the order of their declaration, maps sorted, and `<`, `>`, `&` and the line
/// separators U+2028 and U+2029 escaped, as Go does it.
///
/// # Errors
///
/// If `value` cannot be JSON, as a map whose keys are no strings.
pub fn to_canonical_json(value: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let plain = serde_json::to_string(value)?;
    // These characters stand only in strings: nothing else in JSON uses them.
    if !plain.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return Ok(plain.into_bytes());
    }
    let mut out = String::with_capacity(plain.len() + 64);
    for letter in plain.chars() {
        match letter {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            _ => out.push(letter),
        }
    }
    Ok(out.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_html_could_misread_is_escaped() {
        let json = to_canonical_json(&["a<b>&\u{2028}c", "ü"]).expect("JSON");
        assert_eq!(String::from_utf8_lossy(&json), "[\"a\\u003cb\\u003e\\u0026\\u2028c\",\"ü\"]");
    }
}
