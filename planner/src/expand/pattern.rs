//! The patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*`, `?`, and a backslash before what shall be literal.
//!
//! They match as the regular expressions do into which BuildKit turns them: leftmost, the alternatives tried in order
//! (a star takes as much or as little as it can), and neither `*` nor `?` takes a newline. All threads of the match are
//! run side by side, so that time is bounded by pattern times text, and what they do comes out of a budget.

use alloc::{borrow::ToOwned, string::String, vec, vec::Vec};
use core::mem;

use super::{Budget, END, ExpandErrorKind};

/// A piece of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Literal(char),
    Any,
    Star,
}

/// A pattern that was understood.
#[derive(Debug)]
pub(super) struct Pattern {
    pieces: Vec<Piece>,
    greedy: bool,
}

impl Pattern {
    /// Reads a pattern. With `greedy`, stars take as much as they can.
    pub(super) fn parse(text: &str, greedy: bool) -> Result<Self, ExpandErrorKind> {
        let mut pieces = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(ch) = chars.next() {
            pieces.push(match ch {
                '*' => Piece::Star,
                '?' => Piece::Any,
                // Only needed to get the character into `${…}`; not part of the pattern.
                '\\' if matches!(chars.peek(), Some('}' | '/')) => continue,
                '\\' => match chars.next() {
                    Some(escaped @ ('*' | '?' | '\\')) => Piece::Literal(escaped),
                    other => {
                        return Err(ExpandErrorKind::InvalidPattern {
                            pattern: text.to_owned(),
                            escaped: other.unwrap_or(END),
                        });
                    }
                },
                _ => Piece::Literal(ch),
            });
        }
        Ok(Self { pieces, greedy })
    }

    /// Removes what the pattern matches at the start of `value`.
    pub(super) fn without_prefix(
        &self,
        value: &str,
        budget: &mut Budget,
    ) -> Result<String, ExpandErrorKind> {
        let end = self.find(value, 0, true, budget)?.map_or(0, |(_, end)| end);
        Ok(value.get(end..).unwrap_or_default().to_owned())
    }

    /// Puts `replacement` in place of the first match.
    pub(super) fn replace_first(
        &self,
        value: &str,
        replacement: &str,
        budget: &mut Budget,
    ) -> Result<String, ExpandErrorKind> {
        let Some((start, end)) = self.find(value, 0, false, budget)? else {
            return Ok(value.to_owned());
        };
        Ok([&value[..start], replacement, &value[end..]].concat())
    }

    /// Puts `replacement` in place of every match; `$0` in it is what was matched.
    pub(super) fn replace_all(
        &self,
        value: &str,
        replacement: &str,
        budget: &mut Budget,
    ) -> Result<String, ExpandErrorKind> {
        let mut text = String::new();
        let mut copied = 0;
        let mut from = 0;
        while let Some((start, end)) = self.find(value, from, false, budget)? {
            text.push_str(&value[copied..start]);
            // An empty match directly behind a match is none.
            if end > copied || start == 0 {
                let n_bytes = text.len();
                push_template(&mut text, replacement, &value[start..end]);
                budget.spend(text.len() - n_bytes + replacement.len())?;
            }
            copied = end;
            let width = value[from..].chars().next().map_or(1, char::len_utf8);
            from = end.max(from + width);
            if from > value.len() {
                break;
            }
        }
        text.push_str(&value[copied..]);
        Ok(text)
    }

    /// Finds the leftmost match that starts at `from` or, unless `anchored`, after it.
    fn find(
        &self,
        text: &str,
        from: usize,
        anchored: bool,
        budget: &mut Budget,
    ) -> Result<Option<(usize, usize)>, ExpandErrorKind> {
        budget.spend(self.pieces.len())?;
        let mut found = None;
        let mut threads = Threads::new(self.pieces.len());
        let mut next = Threads::new(self.pieces.len());
        let mut chars = text[from..].char_indices();
        loop {
            let (at, ch) = match chars.next() {
                Some((at, ch)) => (from + at, Some(ch)),
                None => (text.len(), None),
            };
            if found.is_none() && (at == from || !anchored) {
                self.add(&mut threads, 0, at);
            }
            budget.spend(1 + threads.list.len())?;
            for &(piece, start) in &threads.list {
                let Some(&kind) = self.pieces.get(piece) else {
                    // All threads behind this one are less wanted.
                    found = Some((start, at));
                    break;
                };
                match (kind, ch) {
                    (Piece::Literal(literal), Some(ch)) if literal == ch => {
                        self.add(&mut next, piece + 1, start);
                    }
                    (Piece::Any, Some(ch)) if ch != '\n' => self.add(&mut next, piece + 1, start),
                    (Piece::Star, Some(ch)) if ch != '\n' => self.add(&mut next, piece, start),
                    _ => {}
                }
            }
            mem::swap(&mut threads, &mut next);
            next.clear();
            let done = threads.list.is_empty() && (found.is_some() || anchored);
            if done || ch.is_none() {
                return Ok(found);
            }
        }
    }

    /// Starts a thread before `piece`, and those that a star allows, the most wanted first.
    fn add(&self, threads: &mut Threads, piece: usize, start: usize) {
        let mut last = piece;
        while self.pieces.get(last) == Some(&Piece::Star) {
            last += 1;
        }
        for step in 0..=last - piece {
            let it = if self.greedy { piece + step } else { last - step };
            threads.push(it, start);
        }
    }
}

/// Threads in the order in which they are wanted, one per place in the pattern.
struct Threads {
    list: Vec<(usize, usize)>,
    seen: Vec<bool>,
}

impl Threads {
    fn new(n_pieces: usize) -> Self {
        Self { list: Vec::new(), seen: vec![false; n_pieces + 1] }
    }

    fn push(&mut self, piece: usize, start: usize) {
        if !mem::replace(&mut self.seen[piece], true) {
            self.list.push((piece, start));
        }
    }

    fn clear(&mut self) {
        for (piece, _) in self.list.drain(..) {
            self.seen[piece] = false;
        }
    }
}

/// Removes what the pattern `text` matches at the end of `value`: both are turned round, so that the shortest match is
/// found from the left.
pub(super) fn without_suffix(
    text: &str,
    value: &str,
    greedy: bool,
    budget: &mut Budget,
) -> Result<String, ExpandErrorKind> {
    let chars: Vec<char> = text.chars().collect();
    let mut groups: Vec<&[char]> = Vec::new();
    let mut rest = chars.as_slice();
    while let Some(&first) = rest.first() {
        let n_chars = if first == '\\' && rest.len() > 1 { 2 } else { 1 };
        let (group, tail) = rest.split_at(n_chars);
        groups.push(group);
        rest = tail;
    }
    let reversed: String = groups.into_iter().rev().flatten().collect();
    let value: String = value.chars().rev().collect();
    let result = Pattern::parse(&reversed, greedy)?.without_prefix(&value, budget)?;
    Ok(result.chars().rev().collect())
}

/// Appends a replacement in which `$0` or `${0}` stands for the match, other groups (there are none) for nothing, and
/// `$$` for a dollar.
fn push_template(out: &mut String, template: &str, matched: &str) {
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        rest = after;
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let inner = rest.strip_prefix('{').unwrap_or(rest);
        let n_bytes =
            inner.find(|it: char| !it.is_alphanumeric() && it != '_').unwrap_or(inner.len());
        let (name, after) = inner.split_at(n_bytes);
        let after = if inner.len() < rest.len() { after.strip_prefix('}') } else { Some(after) };
        match after {
            Some(after) if !name.is_empty() => {
                if name == "0" {
                    out.push_str(matched);
                }
                rest = after;
            }
            _ => out.push('$'),
        }
    }
    out.push_str(rest);
}
