//! Physical lines, and the logical line that continuation makes of several.

use alloc::{string::String, vec::Vec};
use core::ops::Range;

use crate::{ast::Text, span::Span};

/// The longest line BuildKit reads, without its line feed, in bytes.
pub(crate) const MAX_LINE: usize = 64 * 1024 - 1;

/// Hands out the lines of a text one by one.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// The number of the line handed out last, from 1.
    pub(crate) number: u32,
    /// Lines that were too long, with their numbers.
    pub(crate) too_long: Vec<(u32, Span)>,
}

/// One line as it stands in the text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Physical<'a> {
    /// The offset of its first byte.
    pub(crate) start: usize,
    /// Its text with the line feed, if it has one.
    pub(crate) text: &'a str,
}

impl<'a> Physical<'a> {
    /// Its text without line feed and carriage returns.
    pub(crate) fn bare(&self) -> &'a str {
        self.text.trim_end_matches(['\r', '\n'])
    }
}

impl<'a> Reader<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let at = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        Self { text, at, number: 0, too_long: Vec::new() }
    }

    pub(crate) fn next(&mut self) -> Option<Physical<'a>> {
        let start = self.at;
        let rest = &self.text[start..];
        if rest.is_empty() {
            return None;
        }
        let content = rest.find('\n').unwrap_or(rest.len());
        let end = (content + 1).min(rest.len());
        self.at += end;
        self.number = self.number.saturating_add(1);
        if content > MAX_LINE {
            self.too_long.push((self.number, Span::new(start, start + content)));
        }
        Some(Physical { start, text: &rest[..end] })
    }
}

/// A logical line: continuations joined, with the way back to the text it came from.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// What is left after joining.
    pub(crate) text: String,
    /// `(offset in text, offset in the file)` of each piece, ascending.
    pieces: Vec<(usize, usize)>,
}

impl Line {
    /// Appends a piece that stands at `from` in the file.
    pub(crate) fn push(&mut self, piece: &str, from: usize) {
        self.pieces.push((self.text.len(), from));
        self.text.push_str(piece);
    }

    /// Returns the place in the file of a range of the joined text.
    pub(crate) fn span(&self, range: Range<usize>) -> Span {
        let start = self.offset(range.start, self.piece(range.start));
        // The end belongs to the piece of the last byte, not to the next piece.
        let last = range.end.saturating_sub(1).max(range.start);
        let end = self.offset(range.end.max(range.start), self.piece(last));
        Span::new(start, end)
    }

    /// Returns a range of the joined text with its place in the file.
    pub(crate) fn slice(&self, range: Range<usize>) -> Text {
        Text { value: self.text[range.clone()].into(), span: self.span(range) }
    }

    fn piece(&self, at: usize) -> usize {
        self.pieces.partition_point(|it| it.0 <= at).saturating_sub(1)
    }

    fn offset(&self, at: usize, piece: usize) -> usize {
        self.pieces.get(piece).map_or(0, |(joined, from)| from + at.saturating_sub(*joined))
    }
}

/// Shortens a range by the white space at its ends.
pub(crate) fn trim(text: &str, range: Range<usize>) -> Range<usize> {
    let slice = &text[range.clone()];
    let start = range.start + (slice.len() - slice.trim_start().len());
    let end = range.start + slice.trim_end().len();
    start..end.max(start)
}

/// Splits the escape character that continues a line off its end.
///
/// It does not continue where it stands behind another one. BuildKit looks no further back, so three in a row do not
/// continue either.
pub(crate) fn continuation(line: &str, escape: char) -> (&str, bool) {
    let Some(body) = line.trim_end_matches([' ', '\t']).strip_suffix(escape) else {
        return (line, false);
    };
    if body.ends_with(escape) { (line, false) } else { (body, true) }
}

/// A comment starts with `#` as the first character that is no blank.
pub(crate) fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_lead_back_through_joints() {
        let mut line = Line::default();
        line.push("RUN a ", 10);
        line.push("  b", 20);
        assert_eq!(line.span(0..3), Span::new(10, 13));
        assert_eq!(line.span(4..6), Span::new(14, 16));
        assert_eq!(line.span(4..9), Span::new(14, 23));
        assert_eq!(line.span(6..6), Span::new(20, 20));
    }

    #[test]
    fn doubled_escape_does_not_continue() {
        assert_eq!(continuation(r"a \ ", '\\'), ("a ", true));
        assert_eq!(continuation(r"\", '\\'), ("", true));
        assert_eq!(continuation(r"a \\", '\\'), (r"a \\", false));
        assert_eq!(continuation(r"a \\\", '\\'), (r"a \\\", false));
        assert_eq!(continuation("a `\t", '`'), ("a ", true));
    }
}
