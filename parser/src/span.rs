//! Byte ranges of a text, and the lines they lie on.

use core::fmt;

/// A half-open range of byte offsets into the text that was parsed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Makes a span of the bytes from `start` up to, but not including, `end`.
    ///
    /// An `end` before `start` gives an empty span at `start`.
    pub fn new(start: usize, end: usize) -> Self {
        let clamp = |it: usize| u32::try_from(it).unwrap_or(u32::MAX);
        let start = clamp(start);
        Self { start, end: clamp(end).max(start) }
    }

    /// Returns the offset of the first byte.
    pub fn start(self) -> usize {
        self.start as usize
    }

    /// Returns the offset after the last byte.
    pub fn end(self) -> usize {
        self.end as usize
    }

    /// Returns the smallest span that holds both.
    pub fn to(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

/// Physical lines, from `first` to `last`, both counted from 1 and both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lines {
    /// The line of the first byte.
    pub first: u32,
    /// The line of the last byte.
    pub last: u32,
}

/// Where a byte stands, as people count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line, counted from 1.
    pub line: usize,
    /// The column in bytes, counted from 1.
    pub byte_column: usize,
    /// The column in characters, counted from 1.
    pub column: usize,
}

/// Returns the line and the columns of the byte at `offset`.
///
/// An offset after the end counts as the end, one inside a character as the start of it.
pub fn position(text: &str, offset: usize) -> Position {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |it| it + 1);
    Position {
        line: before.bytes().filter(|it| *it == b'\n').count() + 1,
        byte_column: offset - line_start + 1,
        column: before[line_start..].chars().count() + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_from_one() {
        let at = |offset| {
            let it = position("ab\nüx\n", offset);
            (it.line, it.byte_column, it.column)
        };
        assert_eq!(at(0), (1, 1, 1));
        assert_eq!(at(2), (1, 3, 3));
        assert_eq!(at(3), (2, 1, 1));
        assert_eq!(at(4), (2, 1, 1));
        assert_eq!(at(5), (2, 3, 2));
        assert_eq!(at(99), (3, 1, 1));
    }
}
