//! Parser directives: the `# key=value` lines at the top, and which frontend a file asks for.

use alloc::{string::String, vec::Vec};

use nom::{
    Parser,
    character::complete::{alpha1, alphanumeric0, char, multispace0},
    combinator::recognize,
    error::Error,
};

use crate::{json, span::Span};

/// A frontend that a file asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Syntax {
    /// The image reference: the value up to its first blank.
    pub reference: String,
    /// The whole value, which the frontend gets as its command line.
    pub command_line: String,
    /// The bytes of the value.
    pub span: Span,
    /// Its line, counted from 1; 0 (or 1 behind `#!`) for JSON, whose lines BuildKit does not count.
    pub line: u32,
}

/// Finds the frontend that a file asks for: `# syntax=…`, `// syntax=…`, or a JSON object with the key `syntax`.
///
/// A byte order mark and a first line that starts with `#!` are passed over.
///
/// # Source
///
/// BuildKit, `frontend/dockerfile/parser/directives.go`, `DetectSyntax`.
///
/// # Examples
///
/// ```
/// let syntax = parser::syntax::detect("# syntax=docker/dockerfile:1 --debug\nFROM scratch\n").unwrap();
/// assert_eq!(syntax.reference, "docker/dockerfile:1");
/// assert_eq!(syntax.command_line, "docker/dockerfile:1 --debug");
/// ```
pub fn detect(text: &str) -> Option<Syntax> {
    let (start, line) = body(text);
    directive(text, "syntax").or_else(|| find(text, "//", "syntax")).or_else(|| {
        let (value, range) = json::member(&text[start..], "syntax")?;
        let span = Span::new(start + range.start, start + range.end);
        Some(Syntax { reference: value.clone(), command_line: value, span, line })
    })
}

/// Finds the directive of a name among the `# key=value` lines at the top.
pub(crate) fn directive(text: &str, name: &str) -> Option<Syntax> {
    find(text, "#", name)
}

/// The key and value of a directive line, behind its comment sign.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Directive<'a> {
    /// The key, in lower case: `syntax`, `escape` or `check`.
    pub(crate) key: &'static str,
    /// The value without blanks around it.
    pub(crate) value: &'a str,
    /// Where the value starts in the line.
    pub(crate) at: usize,
}

const KEYS: [&str; 3] = ["syntax", "escape", "check"];

/// Reads directive lines until the first line that is none.
#[derive(Debug, Default)]
pub(crate) struct Directives {
    seen: Vec<&'static str>,
    done: bool,
}

impl Directives {
    /// Ends the directives, because of a line that is neither one nor a comment.
    pub(crate) fn end(&mut self) {
        self.done = true;
    }

    /// Reads a line without leading blanks. `Some(Err(key))` is a key that was there before.
    pub(crate) fn line<'a>(
        &mut self,
        line: &'a str,
        sign: &str,
    ) -> Option<Result<Directive<'a>, &'static str>> {
        if self.done {
            return None;
        }
        let Some(directive) = read(line, sign) else {
            self.done = true;
            return None;
        };
        if self.seen.contains(&directive.key) {
            return Some(Err(directive.key));
        }
        self.seen.push(directive.key);
        Some(Ok(directive))
    }
}

fn read<'a>(line: &'a str, sign: &str) -> Option<Directive<'a>> {
    let body = line.strip_prefix(sign)?.trim_start();
    let word = recognize((alpha1::<_, Error<&str>>, alphanumeric0));
    let (rest, (word, _, _)) = (word, multispace0, char('=')).parse(body).ok()?;
    let key = KEYS.into_iter().find(|it| it.eq_ignore_ascii_case(word))?;
    let value = rest.trim_ascii();
    if value.is_empty() {
        // The value is at least one character: of blanks only, the last one.
        let at = rest.len().checked_sub(1)?;
        return Some(Directive { key, value: &rest[at..], at: line.len() - 1 });
    }
    let at = line.len() - rest.trim_ascii_start().len();
    Some(Directive { key, value, at })
}

/// The options of `# kiln=OPTION,…`, each with its place in the line: what kiln does otherwise than BuildKit, for which such
/// a line is a comment like others. So it may stand among the comments at the top as well as among directives, above all
/// of which it would end.
pub(crate) fn kiln_options(line: &str) -> Option<Vec<(usize, &str)>> {
    let (key, list) = line.strip_prefix('#')?.split_once('=')?;
    if !key.trim().eq_ignore_ascii_case("kiln") {
        return None;
    }
    let mut at = line.len() - list.len();
    let place = |word: &'_ str| {
        let start = at + word.len() - word.trim_start().len();
        at += word.len() + 1;
        start
    };
    let starts: Vec<usize> = list.split(',').map(place).collect();
    Some(starts.into_iter().zip(list.split(',').map(str::trim)).collect())
}

/// Returns where the text starts behind a byte order mark and a `#!` line, and how many lines were passed over.
fn body(text: &str) -> (usize, u32) {
    let start = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    if !text[start..].starts_with("#!") {
        return (start, 0);
    }
    (text[start..].find('\n').map_or(text.len(), |it| start + it + 1), 1)
}

fn find(text: &str, sign: &str, name: &str) -> Option<Syntax> {
    let (mut start, mut number) = body(text);
    let mut directives = Directives::default();
    for line in text[start..].split_inclusive('\n') {
        number += 1;
        let bare = line.strip_suffix('\n').unwrap_or(line);
        let bare = bare.strip_suffix('\r').unwrap_or(bare);
        let directive = directives.line(bare, sign)?.ok()?;
        if directive.key == name {
            let at = start + directive.at;
            return Some(Syntax {
                reference: directive.value.split(' ').next().unwrap_or("").into(),
                command_line: directive.value.into(),
                span: Span::new(at, at + directive.value.len()),
                line: number,
            });
        }
        start += line.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<(String, u32, &str)> {
        detect(text).map(|it| (it.reference, it.line, &text[it.span.start()..it.span.end()]))
    }

    #[test]
    fn all_forms() {
        assert_eq!(found("# syntax = a b\n"), Some(("a".into(), 1, "a b")));
        assert_eq!(found("#!/bin/x\n#SYNTAX=a\r\n"), Some(("a".into(), 2, "a")));
        assert_eq!(found("\u{feff}# escape=`\n# syntax=a"), Some(("a".into(), 2, "a")));
        assert_eq!(found("//check=x\n//syntax=a\n"), Some(("a".into(), 2, "a")));
        assert_eq!(found("\u{feff}{\"syntax\": \"a b\"}"), Some(("a b".into(), 0, "\"a b\"")));
        assert_eq!(found("# hello\n# syntax=a\n"), None);
        assert_eq!(found("\n# syntax=a\n"), None);
        assert_eq!(found("# syntax=\n"), None);
        assert_eq!(found("# escape=`\n# escape=`\n# syntax=a\n"), None);
        assert_eq!(found("  # syntax=a\n"), None);
    }
}
