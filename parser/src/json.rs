//! As much JSON as a Dockerfile needs: arrays of strings, and one key of an object.

use alloc::{string::String, vec::Vec};
use core::ops::Range;

use nom::{
    Parser,
    branch::alt,
    bytes::complete::tag,
    character::complete::{char, digit1, one_of},
    combinator::{opt, recognize},
    error::Error,
};

/// How deep values may be nested; Go has the same limit.
const MAX_DEPTH: usize = 10_000;

/// What a text is that may be a JSON array of strings.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Array {
    /// The strings, each with its range in the text, quotes included.
    Strings(Vec<(String, Range<usize>)>),
    /// An array with the range of the first element that is no string.
    Mixed(Range<usize>),
    /// No JSON array.
    NotJson,
}

/// Reads a text as a JSON array of strings.
pub(crate) fn array(text: &str) -> Array {
    if !text.trim_start().starts_with('[') {
        return Array::NotJson;
    }
    let start = text.len() - text.trim_start().len();
    let mut strings = Vec::new();
    let mut other = None;
    let valid = Scanner::new(text, start).run(|item| {
        if item.depth == 1 {
            match item.string {
                Some(string) => strings.push((string, item.range)),
                None => other = other.take().or(Some(item.range)),
            }
        }
    });
    match (valid, other) {
        (None, _) => Array::NotJson,
        (Some(()), Some(range)) => Array::Mixed(range),
        (Some(()), None) => Array::Strings(strings),
    }
}

/// Reads a text as a JSON object and returns the last string of the given key, with its range.
pub(crate) fn member(text: &str, key: &str) -> Option<(String, Range<usize>)> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let mut found = None;
    Scanner::new(text, 0).run(|item| {
        if item.depth == 1 && item.key.as_deref() == Some(key) {
            found = item.string.map(|it| (it, item.range));
        }
    })?;
    found
}

/// A value met on the way.
struct Item {
    /// How many arrays and objects it lies in.
    depth: usize,
    /// Its key, in an object.
    key: Option<String>,
    /// Its text, if it is a string.
    string: Option<String>,
    /// Where it stands; of an array or object only the opening bracket.
    range: Range<usize>,
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    /// The closing brackets that are due.
    stack: Vec<u8>,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str, at: usize) -> Self {
        Self { text, at, stack: Vec::new() }
    }

    /// Walks over one value and the white space around it. `None` if that is not all there is.
    fn run(mut self, mut visit: impl FnMut(Item)) -> Option<()> {
        let mut key = None;
        loop {
            self.blanks();
            let depth = self.stack.len();
            let start = self.at;
            let mut string = None;
            let mut opened = false;
            match self.peek()? {
                b'"' => string = Some(self.string()?),
                open @ (b'[' | b'{') => {
                    self.at += 1;
                    self.stack.push(open + 2); // In ASCII each closes two behind its opening.
                    opened = true;
                    if self.stack.len() > MAX_DEPTH {
                        return None;
                    }
                }
                _ => self.scalar()?,
            }
            visit(Item { depth, key: key.take(), string, range: start..self.at });
            self.blanks();
            let mut fresh = opened;
            loop {
                let Some(close) = self.stack.last().copied() else {
                    return (self.at == self.text.len()).then_some(());
                };
                let byte = self.peek()?;
                if byte == close {
                    self.at += 1;
                    self.stack.pop();
                    fresh = false;
                    self.blanks();
                    continue;
                }
                if !fresh {
                    self.expect(b',')?;
                    self.blanks();
                }
                if close == b'}' {
                    key = Some(self.string()?);
                    self.blanks();
                    self.expect(b':')?;
                }
                break;
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn scalar(&mut self) -> Option<()> {
        let text = &self.text[self.at..];
        let number = (
            opt(char::<_, Error<&str>>('-')),
            alt((tag("0"), digit1)),
            opt((char('.'), digit1)),
            opt((one_of("eE"), opt(one_of("+-")), digit1)),
        );
        if let Ok((rest, number)) = recognize(number).parse(text) {
            // Go reads numbers as floats and refuses what does not fit.
            self.at += text.len() - rest.len();
            return number.parse::<f64>().is_ok_and(f64::is_finite).then_some(());
        }
        let mut word = alt((tag::<_, _, Error<&str>>("true"), tag("false"), tag("null")));
        let (rest, _) = word.parse(text).ok()?;
        self.at += text.len() - rest.len();
        Some(())
    }

    fn string(&mut self) -> Option<String> {
        self.expect(b'"')?;
        let mut value = String::new();
        loop {
            let rest = &self.text[self.at..];
            let end = rest.find(|it: char| it == '"' || it == '\\' || it < ' ')?;
            value.push_str(&rest[..end]);
            self.at += end + 1;
            match rest.as_bytes()[end] {
                b'"' => return Some(value),
                b'\\' => value.push(self.escape()?),
                _ => return None,
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        let letter = self.peek()?;
        self.at += 1;
        Some(match letter {
            b'"' | b'\\' | b'/' => char::from(letter),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.hex()?;
                self.surrogate(unit)
            }
            _ => return None,
        })
    }

    /// Joins a high surrogate with the low one behind it. One alone becomes the replacement character.
    fn surrogate(&mut self, high: u32) -> char {
        if let 0xD800..0xDC00 = high
            && self.text[self.at..].starts_with("\\u")
        {
            let before = self.at;
            self.at += 2;
            match self.hex() {
                Some(low @ 0xDC00..0xE000) => {
                    let point = 0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00);
                    return char::from_u32(point).unwrap_or(char::REPLACEMENT_CHARACTER);
                }
                _ => self.at = before,
            }
        }
        char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER)
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        if !digits.bytes().all(|it| it.is_ascii_hexdigit()) {
            return None;
        }
        self.at += 4;
        u32::from_str_radix(digits, 16).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{borrow::ToOwned, vec};

    fn strings(text: &str) -> Option<Vec<String>> {
        match array(text) {
            Array::Strings(it) => Some(it.into_iter().map(|it| it.0).collect()),
            _ => None,
        }
    }

    #[test]
    fn arrays_of_strings() {
        assert_eq!(strings("[]"), Some(vec![]));
        assert_eq!(
            strings(r#" [ "a" , "b\n\u00e9\ud83d\ude00" ] "#),
            Some(vec!["a".to_owned(), "b\né😀".to_owned()])
        );
        assert_eq!(strings(r#"["\ud83dx"]"#), Some(vec!["\u{fffd}x".to_owned()]));
        assert_eq!(array(r#"["a", 1]"#), Array::Mixed(6..7));
        assert_eq!(array(r#"[["a"]]"#), Array::Mixed(1..2));
        for bad in [
            "",
            "a",
            "['a']",
            r#"["a",]"#,
            r#"["a" "b"]"#,
            r#"["a"] b"#,
            r#"["a""#,
            "[1e999]",
            "[01]",
            "[truex]",
            r#"["\x"]"#,
            "[\"\t\"]",
            "[,]",
            "[",
            "[}",
            "[{]}",
            r#"[{"a"}]"#,
        ] {
            assert_eq!(array(bad), Array::NotJson, "{bad}");
        }
        assert_eq!(array(r#"[{"a": [{}, {"b": null}]}]"#), Array::Mixed(1..2));
    }

    #[test]
    fn members_of_objects() {
        let value = |text| member(text, "syntax").map(|it| it.0);
        assert_eq!(value(r#"{"a": {"syntax": "x"}, "syntax": "y", "b": 1}"#), Some("y".to_owned()));
        assert_eq!(value(r#"{"syntax": 1}"#), None);
        assert_eq!(value(r#"{"syntax": "x"} x"#), None);
        assert_eq!(value(r#"["syntax"]"#), None);
    }
}
