//! Splitting the arguments of an instruction.

use alloc::{string::String, vec::Vec};
use core::ops::Range;

use crate::{ast::Text, line::Line};

/// The characters between words, where BuildKit does not use Unicode's idea of them.
pub(crate) const BLANKS: [char; 5] = ['\t', '\u{b}', '\u{c}', '\r', ' '];

/// A flag as it stands in front of the arguments, quotes and escapes resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flag {
    /// All of it, with its dashes.
    pub(crate) text: Text,
    /// The name without dashes.
    pub(crate) name: Text,
    /// The value, if there is a `=`.
    pub(crate) value: Option<Text>,
}

/// Splits at runs of blanks.
pub(crate) fn list(line: &Line, range: Range<usize>) -> Vec<Text> {
    let mut words = Vec::new();
    let mut at = range.start;
    let text = &line.text[range];
    for word in text.split(BLANKS) {
        if !word.is_empty() {
            words.push(line.slice(at..at + word.len()));
        }
        at += word.len() + 1;
    }
    words
}

/// Splits into words, where quotes and escapes keep blanks inside. Both stay in the words.
pub(crate) fn quoted(line: &Line, range: Range<usize>, escape: char) -> Vec<Range<usize>> {
    let text = &line.text[range.clone()];
    let mut words = Vec::new();
    let mut start = None;
    let mut quote = None;
    let mut chars = text.char_indices();
    let mut end = range.end;
    while let Some((at, ch)) = chars.next() {
        let at = range.start + at;
        if start.is_none() {
            if ch.is_whitespace() {
                continue;
            }
            start = Some(at);
        }
        match quote {
            None if ch.is_whitespace() => {
                words.extend(start.take().map(|it| it..at));
                continue;
            }
            None if matches!(ch, '\'' | '"') => quote = Some(ch),
            Some(open) if ch == open => quote = None,
            _ => {}
        }
        // Nothing can be escaped between single quotes.
        if ch == escape && quote != Some('\'') && chars.next().is_none() {
            // An escape at the very end is dropped.
            end = at;
        }
    }
    words.extend(start.map(|it| it..end).filter(|it| !it.is_empty()));
    words
}

/// Splits the flags off the front. Returns them and where the arguments start.
///
/// Inside flags a backslash escapes whatever the escape directive says, as in BuildKit.
pub(crate) fn flags(line: &Line, range: Range<usize>) -> (Vec<Flag>, usize) {
    let mut flags = Vec::new();
    let mut at = range.start;
    loop {
        let rest = &line.text[at..range.end];
        at += rest.len() - rest.trim_start().len();
        if !line.text[at..range.end].starts_with("--") {
            return (flags, at);
        }
        let (flag, end) = flag(line, at..range.end);
        at = end;
        if flag.text.value == "--" {
            return (flags, at);
        }
        flags.push(flag);
    }
}

fn flag(line: &Line, range: Range<usize>) -> (Flag, usize) {
    let mut value = String::new();
    let mut quote = None;
    let mut equals = None;
    let mut end = range.end;
    let mut chars = line.text[range.clone()].char_indices();
    while let Some((offset, ch)) = chars.next() {
        let at = range.start + offset;
        match quote {
            None if ch.is_whitespace() => {
                end = at;
                break;
            }
            None if matches!(ch, '\'' | '"') => quote = Some(ch),
            Some(open) if ch == open => quote = None,
            _ if ch == '\\' => value.extend(chars.next().map(|it| it.1)),
            _ => {
                if ch == '=' && equals.is_none() {
                    equals = Some((value.len(), at));
                }
                value.push(ch);
            }
        }
    }
    let span = line.span(range.start..end);
    let name_end = equals.map_or(end, |it| it.1);
    let name = &value[..equals.map_or(value.len(), |it| it.0)];
    let name = name.strip_prefix("--").unwrap_or(name).into();
    let flag = Flag {
        name: Text { value: name, span: line.span((range.start + 2).min(name_end)..name_end) },
        value: equals.map(|(in_value, at)| Text {
            value: value[in_value + 1..].into(),
            span: line.span(at + 1..end),
        }),
        text: Text { value, span },
    };
    (flag, end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn line(text: &str) -> Line {
        let mut line = Line::default();
        line.push(text, 0);
        line
    }

    #[test]
    fn quoted_words() {
        let split = |text: &str| -> Vec<String> {
            let line = line(text);
            quoted(&line, 0..text.len(), '\\').into_iter().map(|it| line.text[it].into()).collect()
        };
        assert_eq!(split(r#"a="b c" d='e \' f\ g"#), [r#"a="b c""#, r"d='e \'", r"f\ g"]);
        assert_eq!(split(r#"a="\" b""#), [r#"a="\" b""#]);
        assert_eq!(split(r#""" b"#), [r#""""#, "b"]);
        assert_eq!(split(r"a\"), ["a"]);
        assert_eq!(split(r"a \"), ["a"]);
        assert_eq!(split(r"a \\"), ["a", r"\\"]);
    }

    #[test]
    fn flags_end_at_a_bare_double_dash() {
        let split = |text: &str| -> (Vec<String>, String) {
            let line = line(text);
            let (flags, at) = flags(&line, 0..text.len());
            (flags.into_iter().map(|it| it.text.value).collect(), line.text[at..].into())
        };
        assert_eq!(split("--a=b --c d --e"), (vec!["--a=b".into(), "--c".into()], "d --e".into()));
        assert_eq!(split("--a -- --c"), (vec!["--a".into()], " --c".into()));
        assert_eq!(split("--"), (vec![], "".into()));
        assert_eq!(split(r#"--a="b c"\ d e"#), (vec!["--a=b c d".into()], "e".into()));
    }
}
