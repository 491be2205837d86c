//! Mistakes as a person reads them: message, place with a caret, hint.
//!
//! ```text
//! error[unknown-stage]: stage `biulder` is not defined
//!  --> Dockerfile:7:13
//!   |
//! 7 | COPY --from=biulder out srv
//!   |             ^^^^^^^
//! hint: did you mean `builder`?
//! ```

use std::borrow::Cow;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::Serialize;

use parser::span::Span;

/// A text that mistakes are in.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// What to call it, for example `Dockerfile`.
    pub name: &'a str,
    /// Its bytes as text.
    pub text: &'a str,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It cannot be built.
    Error,
    /// It can, and should be looked at.
    Warning,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// A name for this kind of mistake that never changes.
    pub code: String,
    /// One lower-case line.
    pub message: String,
    /// The bytes to underline; `None` where it has no place.
    pub span: Option<Span>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl From<&parser::error::Diagnostic> for Diagnostic {
    fn from(mistake: &parser::error::Diagnostic) -> Self {
        Self {
            severity: Severity::Error,
            code: mistake.code().to_owned(),
            message: mistake.to_string(),
            span: Some(mistake.span),
            hint: mistake.hint.clone(),
        }
    }
}

/// A mistake for programs, as `--format json` writes it. Lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the fields are those of `Diagnostic` and of its place")]
pub struct JsonDiagnostic<'a> {
    pub severity: Severity,
    pub code: &'a str,
    pub message: &'a str,
    pub file: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<Place>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<Place>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<&'a str>,
}

/// Line and column, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the fields say what they are")]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

/// Nobody reads more mistakes than this, and a file may have one in each of its lines.
const N_SHOWN: usize = 100;

/// Writes mistakes for a person, in the order they are given, a blank line between them. Of very many the first ones are shown.
pub fn render(source: Source<'_>, diagnostics: &[Diagnostic], colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let shown = diagnostics.iter().take(N_SHOWN);
    let mut texts: Vec<String> = shown.map(|it| one(source, it, &renderer)).collect();
    match diagnostics.len().saturating_sub(N_SHOWN) {
        0 => {}
        n_more => texts.push(format!("and {n_more} more\n")),
    }
    texts.join("\n")
}

fn one(source: Source<'_>, diagnostic: &Diagnostic, renderer: &Renderer) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(diagnostic.message.as_str()).id(diagnostic.code.as_str());
    let report = match diagnostic.span {
        Some(span) => {
            let range = visible(source.text, span);
            let (lines, first_line) = lines(source.text, &range);
            let range = range.start - lines.start..range.end - lines.start;
            let has_mark = lines.start == 0;
            let (text, range) = printable(&source.text[lines], range, has_mark);
            let snippet = Snippet::source(text).path(source.name).line_start(first_line);
            title.element(snippet.annotation(AnnotationKind::Primary.span(range)))
        }
        None => annotate_snippets::Group::with_title(title),
    };
    let mut out = renderer.render(&[report]);
    out.push('\n');
    if diagnostic.span.is_none() {
        out.push_str(&format!(" --> {}\n", source.name));
    }
    if let Some(hint) = &diagnostic.hint {
        out.push_str(&format!("hint: {hint}\n"));
    }
    out
}

/// Returns the bytes to underline: inside the text, at character boundaries, without white space at the end.
fn visible(text: &str, span: Span) -> std::ops::Range<usize> {
    let mut start = span.start().min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let mut end = span.end().clamp(start, text.len());
    while !text.is_char_boundary(end) {
        end += 1;
    }
    let trimmed = start + text[start..end].trim_end().len();
    start..trimmed.max(start)
}

/// Returns the lines that a range is in, and the number of the first of them: all that the renderer has to look at.
fn lines(text: &str, range: &std::ops::Range<usize>) -> (std::ops::Range<usize>, usize) {
    let start = text[..range.start].rfind('\n').map_or(0, |it| it + 1);
    let end = text[range.end..].find('\n').map_or(text.len(), |it| range.end + it + 1);
    (start..end, text[..start].matches('\n').count() + 1)
}

/// Returns a text as it can be shown, and where a range of it is there: without the byte order mark of a file, which takes no place,
/// and with a replacement character for each byte that is not UTF-8.
fn printable(
    text: &str,
    range: std::ops::Range<usize>,
    has_mark: bool,
) -> (Cow<'_, str>, std::ops::Range<usize>) {
    let body = text.strip_prefix('\u{feff}').filter(|_| has_mark).unwrap_or(text);
    let skipped = text.len() - body.len();
    let range = range.start.saturating_sub(skipped)..range.end.saturating_sub(skipped);
    let is_byte = |it: char| it >= '\u{10ff00}';
    if !body.contains(is_byte) {
        return (body.into(), range);
    }
    let shown = |text: &str| text.replace(is_byte, "\u{fffd}");
    let start = shown(&body[..range.start]).len();
    let end = start + shown(&body[range.clone()]).len();
    (shown(body).into(), start..end)
}

/// Returns mistakes for programs.
pub fn json<'a>(source: Source<'a>, diagnostics: &'a [Diagnostic]) -> Vec<JsonDiagnostic<'a>> {
    let convert = |it: &'a Diagnostic| {
        let range = it.span.map(|span| visible(source.text, span));
        JsonDiagnostic {
            severity: it.severity,
            code: &it.code,
            message: &it.message,
            file: source.name,
            start: range.as_ref().map(|it| place(source.text, it.start)),
            end: range.as_ref().map(|it| place(source.text, it.end)),
            hint: it.hint.as_deref(),
        }
    };
    diagnostics.iter().map(convert).collect()
}

/// Returns line and column of a byte, which is at a character boundary.
pub fn place(text: &str, offset: usize) -> Place {
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |it| it + 1);
    Place {
        line: before.matches('\n').count() + 1,
        column: before[line_start..].trim_start_matches('\u{feff}').chars().count() + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "FROM busybox AS builder\n\nFROM scratch\nCOPY --from=biulder out srv\nRUN a \\\n  && b\n";

    fn diagnostic(needle: &str, hint: Option<&str>) -> Diagnostic {
        let span = TEXT.find(needle).map(|at| Span::new(at, at + needle.len()));
        Diagnostic {
            severity: Severity::Error,
            code: "unknown-stage".to_owned(),
            message: "stage `biulder` is not defined".to_owned(),
            span,
            hint: hint.map(str::to_owned),
        }
    }

    #[test]
    fn of_very_many_the_first_are_shown() {
        let source = Source { name: "Dockerfile", text: TEXT };
        let many = vec![diagnostic("biulder", None); N_SHOWN + 7];
        let shown = render(source, &many, false);
        assert_eq!(shown.matches("error[unknown-stage]").count(), N_SHOWN);
        assert!(shown.ends_with("\n\nand 7 more\n"), "{shown}");
    }

    #[test]
    fn the_caret_is_under_the_bytes() {
        let source = Source { name: "Dockerfile", text: TEXT };
        let shown =
            render(source, &[diagnostic("biulder", Some("did you mean `builder`?"))], false);
        let expected = "\
error[unknown-stage]: stage `biulder` is not defined
 --> Dockerfile:4:13
  |
4 | COPY --from=biulder out srv
  |             ^^^^^^^
hint: did you mean `builder`?
";
        assert_eq!(shown, expected);
    }

    #[test]
    fn several_lines_and_no_place() {
        let source = Source { name: "Dockerfile", text: TEXT };
        let shown = render(
            source,
            &[diagnostic("RUN a \\\n  && b\n", None), diagnostic("nowhere", None)],
            false,
        );
        let expected = "\
error[unknown-stage]: stage `biulder` is not defined
 --> Dockerfile:5:1
  |
5 | / RUN a \\
6 | |   && b
  | |______^

error[unknown-stage]: stage `biulder` is not defined
 --> Dockerfile
";
        assert_eq!(shown, expected);
    }

    #[test]
    fn odd_spans_do_no_harm() {
        let source = Source { name: "D", text: "é" };
        for (start, end) in [(0, 0), (1, 1), (1, 2), (2, 2), (5, 9)] {
            let diagnostic =
                Diagnostic { span: Some(Span::new(start, end)), ..diagnostic("", None) };
            assert!(
                render(source, std::slice::from_ref(&diagnostic), false).contains("D:1:"),
                "{start} {end}"
            );
            assert_eq!(json(source, &[diagnostic]).len(), 1);
        }
        let source = Source { name: "D", text: "" };
        assert!(!render(source, &[diagnostic("", None)], true).is_empty());
    }

    #[test]
    fn bytes_and_marks_do_not_move_the_caret() {
        let text = parser::decode(b"\xef\xbb\xbfa\xff\xfe b");
        let at = text.find('b').expect("it is there");
        let diagnostic = Diagnostic { span: Some(Span::new(at, at + 1)), ..diagnostic("", None) };
        let shown = render(Source { name: "D", text: &text }, &[diagnostic], false);
        assert!(
            shown.ends_with(" --> D:1:5\n  |\n1 | a\u{fffd}\u{fffd} b\n  |     ^\n"),
            "{shown}"
        );
    }

    #[test]
    fn json_has_line_and_column() {
        let diagnostics = [diagnostic("biulder", None)];
        let json = json(Source { name: "Dockerfile", text: TEXT }, &diagnostics);
        assert_eq!(json[0].start, Some(Place { line: 4, column: 13 }));
        assert_eq!(json[0].end, Some(Place { line: 4, column: 20 }));
    }
}
