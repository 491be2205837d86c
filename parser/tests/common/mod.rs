//! What holds of every tree.

use parser::{
    Diagnostic,
    ast::{Instruction, Kind},
    span::Span,
};

/// Checks that instructions follow each other, hold their parts, and that every span can be shown.
pub(crate) fn check_spans(text: &str, instructions: &[Instruction], diagnostics: &[Diagnostic]) {
    let mut end = 0;
    let mut last_line = 0;
    for it in instructions {
        assert!(it.span.start() >= end, "{:?} overlaps the one before", it.span);
        assert!(it.lines.first > last_line && it.lines.last >= it.lines.first, "{:?}", it.lines);
        end = it.span.end();
        last_line = it.lines.last;
        check_span(text, it.span);
        check_within(text, it.keyword.span, it.span);
        check_kind(text, &it.kind, it.span);
    }
    // What lies between instructions is blank or a comment.
    let mut at = 0;
    for span in instructions.iter().map(|it| it.span).chain([Span::new(text.len(), text.len())]) {
        let between = text[at..span.start()].trim_start_matches('\u{feff}');
        for line in between.split('\n') {
            let line = line.trim();
            assert!(line.is_empty() || line.starts_with('#'), "`{line}` is lost");
        }
        at = span.end();
    }
    for it in diagnostics {
        check_span(text, it.span);
        assert!(it.lines.first >= 1 && it.lines.last >= it.lines.first, "{it:?}");
        assert!(parser::error::CODES.contains(&it.code()), "{}", it.code());
    }
    assert!(diagnostics.is_sorted_by_key(|it| it.span.start()));
}

/// Checks all spans of a kind. They are taken from its `Debug` form, which shows each as `START..END` outside quotes, so
/// that no field can be forgotten.
fn check_kind(text: &str, kind: &Kind, parent: Span) {
    let shown = format!("{kind:?}");
    let mut rest = shown.as_str();
    while let Some(at) = rest.find(['"', '.']) {
        if rest[at..].starts_with('"') {
            rest = skip_string(&rest[at + 1..]);
            continue;
        }
        let digits = |it: char| !it.is_ascii_digit();
        let start = rest[..at].rsplit(digits).next().and_then(|it| it.parse().ok());
        let after = rest[at..].trim_start_matches('.');
        let end = after.split(digits).next().and_then(|it| it.parse().ok());
        if let (Some(start), Some(end)) = (start, end) {
            check_within(text, Span::new(start, end), parent);
        }
        rest = after;
    }
}

fn skip_string(mut rest: &str) -> &str {
    while let Some(at) = rest.find(['"', '\\']) {
        let quote = rest[at..].starts_with('"');
        rest = &rest[at + 1..];
        if quote {
            return rest;
        }
        rest = &rest[rest.chars().next().map_or(0, char::len_utf8)..];
    }
    rest
}

fn check_within(text: &str, span: Span, parent: Span) {
    check_span(text, span);
    assert!(span.start() >= parent.start() && span.end() <= parent.end(), "{span:?} in {parent:?}");
}

fn check_span(text: &str, span: Span) {
    assert!(text.get(span.start()..span.end()).is_some(), "{span:?} of {}", text.len());
}
