//! Collecting mistakes.

use alloc::{string::String, vec::Vec};

use crate::{
    error::{Diagnostic, Mistake},
    span::{Lines, Span},
};

/// The mistakes found so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    diagnostics: Vec<Diagnostic>,
    /// How many of them have their lines.
    placed: usize,
}

impl Report {
    /// Adds a mistake. Its lines follow with [`place`](Self::place).
    pub(crate) fn add(&mut self, kind: Mistake, span: Span) {
        self.hinted(kind, span, None);
    }

    /// Adds a mistake with a hint.
    pub(crate) fn hinted(&mut self, kind: Mistake, span: Span, hint: Option<String>) {
        self.diagnostics.push(Diagnostic { kind, span, lines: Lines::default(), hint });
    }

    /// Gives the mistakes added since the last call their lines.
    pub(crate) fn place(&mut self, lines: Lines) {
        for it in &mut self.diagnostics[self.placed..] {
            it.lines = lines;
        }
        self.placed = self.diagnostics.len();
    }

    /// Returns the mistakes in the order of the text.
    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        self.diagnostics.sort_by_key(|it| (it.span.start(), it.span.end()));
        self.diagnostics
    }
}
