//! Where something stands, as the sub-requests of a build say it in JSON.

use alloc::{string::String, vec::Vec};

use parser::span::Lines;
use serde::{Serialize, Serializer};

/// A place in a Dockerfile: one range for every physical line.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Location {
    /// The lines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<Range>,
}

/// From a position to a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Range {
    /// Where it starts.
    pub start: Position,
    /// Where it ends.
    pub end: Position,
}

/// A position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Position {
    /// The line, counted from 1.
    pub line: u32,
}

impl Location {
    /// Returns the first line, 0 where there is none.
    pub fn line(&self) -> u32 {
        self.ranges.first().map_or(0, |it| it.start.line)
    }

    /// Returns the last line, 0 where there is none.
    pub fn last_line(&self) -> u32 {
        self.ranges.last().map_or(0, |it| it.end.line)
    }
}

impl From<Lines> for Location {
    fn from(lines: Lines) -> Self {
        let range = |line| Range { start: Position { line }, end: Position { line } };
        Self { ranges: (lines.first..=lines.last.max(lines.first)).map(range).collect() }
    }
}

/// Writes bytes as base64, as JSON has them.
pub(crate) fn base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut group = [0; 4];
        group[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(group);
        for digit_idx in 0..4 {
            let digit = bits >> (18 - 6 * digit_idx) & 63;
            let is_there = digit_idx <= chunk.len();
            text.push(if is_there { DIGITS[digit as usize].into() } else { '=' });
        }
    }
    serializer.serialize_str(&text)
}
