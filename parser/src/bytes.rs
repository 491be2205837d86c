//! Text that may hold bytes that are not UTF-8.
//!
//! A Dockerfile is bytes; the parser works on `str`. Each byte that is not part of valid UTF-8 becomes one character of
//! Unicode's last, private block (`U+10FF00` plus the byte), and turns back into that byte where the value leaves.
//! Characters of that block in the input are taken apart into their bytes, so nothing is ambiguous.

use alloc::{borrow::Cow, string::String, vec::Vec};

const BASE: u32 = 0x10_FF00;

/// Makes text of `bytes`, keeping bytes that are not UTF-8 as private characters.
///
/// # Examples
///
/// ```
/// let text = parser::decode(b"RUN echo \xff");
/// assert_eq!(text, "RUN echo \u{10ffff}");
/// assert_eq!(parser::encode(&text), b"RUN echo \xff");
/// ```
pub fn decode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for ch in chunk.valid().chars() {
            if byte_of(ch).is_some() {
                let mut buffer = [0; 4];
                text.extend(ch.encode_utf8(&mut buffer).bytes().map(char_of));
            } else {
                text.push(ch);
            }
        }
        text.extend(chunk.invalid().iter().copied().map(char_of));
    }
    text
}

/// Makes bytes of `text`: the inverse of [`decode`].
pub fn encode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for ch in text.chars() {
        match byte_of(ch) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(ch.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

/// Makes text of `text` for those who know nothing of this, with `replacement` for each byte that is not UTF-8.
pub fn replace<'a>(text: &'a str, replacement: &str) -> Cow<'a, str> {
    if !text.chars().any(|it| byte_of(it).is_some()) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for chunk in encode(text).utf8_chunks() {
        out.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|_| out.push_str(replacement));
    }
    Cow::Owned(out)
}

fn char_of(byte: u8) -> char {
    char::from_u32(BASE + u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn byte_of(ch: char) -> Option<u8> {
    // Bytes below 0x80 are always UTF-8, so only the upper half of the block is in use.
    let byte = u32::from(ch).checked_sub(BASE)?;
    u8::try_from(byte).ok().filter(|it| *it >= 0x80)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_get_a_replacement_for_each_byte() {
        assert_eq!(replace(&decode(b"caf\xe9 \xe2\x82!"), "?"), "caf? ??!");
        let private = "\u{10ffe9}ä";
        assert_eq!(replace(&decode(private.as_bytes()), "?"), private);
        assert_eq!(replace("ä", "?"), "ä");
    }

    #[test]
    fn every_byte_survives() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(encode(&decode(&all)), all);
        let private = "\u{10ff00}\u{10ff7f}\u{10ff80}\u{10ffff}".as_bytes();
        assert_eq!(encode(&decode(private)), private);
        assert_eq!(decode("grün".as_bytes()), "grün");
    }
}
