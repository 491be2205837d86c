//! Where something stands, as the sub-requests of a build say it in JSON.

use alloc::string::String;

use parser::span::Lines;
use serde::{Serialize, Serializer, ser::SerializeStruct};

/// A place in a Dockerfile. In JSON it is one range for every physical line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Location {
    /// The lines, where there are any.
    pub lines: Option<Lines>,
}

/// From a position to a position.
#[derive(Serialize)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Serialize)]
struct Position {
    line: u32,
}

impl Location {
    /// Returns the first line, 0 where there is none.
    pub fn line(&self) -> u32 {
        self.lines.map_or(0, |it| it.first)
    }

    /// Returns the last line, 0 where there is none.
    pub fn last_line(&self) -> u32 {
        self.lines.map_or(0, |it| it.last)
    }
}

impl From<Lines> for Location {
    fn from(lines: Lines) -> Self {
        Self { lines: Some(Lines { last: lines.last.max(lines.first), ..lines }) }
    }
}

impl Serialize for Location {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// An instruction may have many lines, and many findings: the ranges are made when they are written.
        struct Ranges(Lines);
        impl Serialize for Ranges {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let range = |line| Range { start: Position { line }, end: Position { line } };
                serializer.collect_seq((self.0.first..=self.0.last).map(range))
            }
        }
        let mut fields =
            serializer.serialize_struct("Location", usize::from(self.lines.is_some()))?;
        if let Some(lines) = self.lines {
            fields.serialize_field("ranges", &Ranges(lines))?;
        }
        fields.end()
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
