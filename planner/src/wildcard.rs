//! Patterns in the sources of `COPY` and `ADD`: `*`, `?`, `[a-z]` and escapes, as Go's `filepath.Match` has them.
//!
//! Names are bytes. Where a pattern takes one character, that is one UTF-8 sequence, or one byte that is not UTF-8.

use alloc::{string::String, vec::Vec};

use crate::path::clean;

/// The separator of paths.
const SLASH: Unit = b'/' as Unit;

/// A character, or [`INVALID`] plus a byte that is not UTF-8.
pub(crate) type Unit = u32;
/// Above all characters.
const INVALID: Unit = 0x0011_0000;

/// The pattern is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern")]
pub struct BadPattern;

/// A source with wildcards, split where they begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// The folder to search, cleaned; symbolic links in it are followed. `.` for the root of the tree.
    pub base: String,
    /// What the paths below the base have to match, each as a whole; `None` where the source is a plain path (the base).
    ///
    /// What matches is copied and, if it is a folder, not searched any further. A malformed pattern matches nothing.
    pub pattern: Option<String>,
}

/// Reports whether a source has wildcards. What a backslash escapes is none.
pub fn has_wildcards(source: &str) -> bool {
    let mut bytes = source.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

/// Splits a source before the first part of its path that has wildcards.
///
/// # Examples
///
/// ```
/// use planner::wildcard::split;
///
/// let source = split("web/./src/*.js");
/// assert_eq!((source.base.as_str(), source.pattern.as_deref()), ("web/src", Some("*.js")));
/// ```
pub fn split(source: &str) -> Split {
    let mut base = Vec::new();
    let mut pattern = Vec::new();
    for part in source.split('/') {
        if !pattern.is_empty() || has_wildcards(part) {
            pattern.push(part);
        } else {
            base.push(part);
        }
    }
    Split {
        // The join of nothing but an empty first part is the root.
        base: if base == [""] { "/".into() } else { clean(&base.join("/")) },
        pattern: (!pattern.is_empty()).then(|| clean(&pattern.join("/"))),
    }
}

/// Matches a whole name against a pattern. `*` and `?` take no slash.
///
/// # Errors
///
/// The pattern is malformed, whether or not the name comes so far.
pub fn matches(pattern: &[u8], name: &[u8]) -> Result<bool, BadPattern> {
    let tokens = parse(pattern)?;
    Ok(matches_tokens(&tokens, name))
}

/// A piece of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    /// This character.
    Literal(Unit),
    /// Any character but a slash.
    Any,
    /// Any number of characters but slashes.
    Star,
    /// One of a set of characters.
    Class(Class),
}

/// A set of characters, `[a-z]` or `[^a-z]`. It may hold the slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Class {
    negated: bool,
    ranges: Vec<(Unit, Unit)>,
}

impl Class {
    /// Reports whether the character belongs to the set.
    pub(crate) fn has(&self, unit: Unit) -> bool {
        self.ranges.iter().any(|&(low, high)| (low..=high).contains(&unit)) != self.negated
    }

    /// Reports whether a range ends before it starts.
    pub(crate) fn is_backwards(&self) -> bool {
        self.ranges.iter().any(|(low, high)| low > high)
    }
}

/// Splits the first character off.
pub(crate) fn next_unit(bytes: &[u8]) -> Option<(Unit, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    if first.is_ascii() {
        return Some((Unit::from(first), rest));
    }
    let n_bytes = match first {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    };
    let text = bytes.get(..n_bytes).and_then(|it| core::str::from_utf8(it).ok());
    match text.and_then(|it| it.chars().next()) {
        Some(ch) => Some((ch.into(), &bytes[n_bytes..])),
        None => Some((INVALID + Unit::from(first), rest)),
    }
}

/// Reads a whole pattern.
pub(crate) fn parse(pattern: &[u8]) -> Result<Vec<Token>, BadPattern> {
    let mut tokens = Vec::new();
    let mut rest = pattern;
    while let Some((unit, tail)) = next_unit(rest) {
        rest = tail;
        tokens.push(match u8::try_from(unit) {
            Ok(b'*') => Token::Star,
            Ok(b'?') => Token::Any,
            Ok(b'[') => {
                let (class, tail) = class(rest)?;
                rest = tail;
                Token::Class(class)
            }
            Ok(b'\\') => {
                let (escaped, tail) = next_unit(rest).ok_or(BadPattern)?;
                rest = tail;
                Token::Literal(escaped)
            }
            _ => Token::Literal(unit),
        });
    }
    Ok(tokens)
}

/// Reads a class, its opening bracket being read.
fn class(text: &[u8]) -> Result<(Class, &[u8]), BadPattern> {
    let (negated, mut rest) = match text.strip_prefix(b"^") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut ranges = Vec::new();
    loop {
        if let (Some(tail), false) = (rest.strip_prefix(b"]"), ranges.is_empty()) {
            return Ok((Class { negated, ranges }, tail));
        }
        let (low, tail) = class_unit(rest)?;
        let (high, tail) = match tail.strip_prefix(b"-") {
            Some(tail) => class_unit(tail)?,
            None => (low, tail),
        };
        ranges.push((low, high));
        rest = tail;
    }
}

fn class_unit(text: &[u8]) -> Result<(Unit, &[u8]), BadPattern> {
    let (unit, rest) = match text.first() {
        None | Some(b'-' | b']') => return Err(BadPattern),
        Some(b'\\') => next_unit(&text[1..]).ok_or(BadPattern)?,
        Some(_) => next_unit(text).ok_or(BadPattern)?,
    };
    // Something has to come: at least the closing bracket.
    if unit >= INVALID || rest.is_empty() { Err(BadPattern) } else { Ok((unit, rest)) }
}

/// Matches a whole name: where a star is met, the shortest thing it can take is tried first, and only the last star is
/// ever tried again, which is enough because all stars take the same.
fn matches_tokens(tokens: &[Token], name: &[u8]) -> bool {
    let mut token_idx = 0;
    let mut rest = name;
    let mut retry: Option<(usize, &[u8])> = None;
    loop {
        match tokens.get(token_idx) {
            None if rest.is_empty() => return true,
            Some(Token::Star) => {
                token_idx += 1;
                retry = Some((token_idx, rest));
                continue;
            }
            Some(token) => {
                let taken = next_unit(rest).filter(|(unit, _)| takes(token, *unit));
                if let Some((_, tail)) = taken {
                    token_idx += 1;
                    rest = tail;
                    continue;
                }
            }
            None => {}
        }
        // The last star takes one more.
        let Some((after, from)) = retry else { return false };
        match next_unit(from) {
            Some((unit, tail)) if unit != SLASH => {
                retry = Some((after, tail));
                (token_idx, rest) = (after, tail);
            }
            _ => return false,
        }
    }
}

/// Reports whether a token, which is no star, takes a character.
pub(crate) fn takes(token: &Token, unit: Unit) -> bool {
    match token {
        Token::Literal(literal) => *literal == unit,
        Token::Any => unit != SLASH,
        Token::Class(class) => class.has(unit),
        Token::Star => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_like_go() {
        for (pattern, name, wanted) in [
            ("abc", "abc", Ok(true)),
            ("*", "abc", Ok(true)),
            ("*c", "abc", Ok(true)),
            ("a*", "a", Ok(true)),
            ("a*", "ab/c", Ok(false)),
            ("a*/b", "abc/b", Ok(true)),
            ("a*/b", "a/c/b", Ok(false)),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", Ok(true)),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", Ok(false)),
            ("a*b?c*x", "abxbbxdbxebxczzx", Ok(true)),
            ("a*b?c*x", "abxbbxdbxebxczzy", Ok(false)),
            ("ab[b-d]", "abc", Ok(true)),
            ("ab[e-g]", "abc", Ok(false)),
            ("ab[^e-g]", "abc", Ok(true)),
            ("a\\*b", "a*b", Ok(true)),
            ("a\\*b", "ab", Ok(false)),
            ("a?b", "a\u{263a}b", Ok(true)),
            ("a???b", "a\u{263a}b", Ok(false)),
            ("[a-\u{3b6}]*", "\u{3b1}", Ok(true)),
            ("*[a-\u{3b6}]", "A", Ok(false)),
            ("[\\]a]", "]", Ok(true)),
            ("[\\-x]", "-", Ok(true)),
            ("[x\\-]", "z", Ok(false)),
            ("[]a]", "]", Err(BadPattern)),
            ("[-]", "-", Err(BadPattern)),
            ("[x-]", "x", Err(BadPattern)),
            ("[a-b-d]", "a", Err(BadPattern)),
            ("[", "a", Err(BadPattern)),
            ("[^", "a", Err(BadPattern)),
            ("a[", "ab", Err(BadPattern)),
            ("a/b[", "x", Err(BadPattern)),
            ("*x", "xxx", Ok(true)),
            ("\\", "a", Err(BadPattern)),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), wanted, "{pattern} {name}");
        }
        assert_eq!(matches(b"a?b", b"a\xffb"), Ok(true));
        assert_eq!(matches(b"a\xffb", b"a\xffb"), Ok(true));
    }
}
