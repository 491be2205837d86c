//! A Dockerfile written again, in one style: keywords in capitals, one blank between words, continued lines indented by four.
//!
//! What the file says does not change, not even by a blank: commands for a shell, strings, heredocs and triggers keep every
//! byte, so that a formatted file is built from the cache of the one before. Comments stay where they are. Each
//! statement is read again after it was written; one that would say something else, or would be written in another way
//! the next time, is left as it was.

use alloc::{borrow::ToOwned, string::String, vec::Vec};
use core::ops::Range;

use crate::{
    Diagnostic,
    ast::{Heredoc, Text},
    line::{MAX_LINE, continuation, is_comment},
    node::{Args, Name, Node},
    parse,
    span::Span,
    statement::{Statement, Statements},
    words::BLANKS,
};

/// What a continued line begins with.
const INDENT: &str = "    ";

/// Writes a Dockerfile in one style.
///
/// The result says the same, and formatting it again changes nothing.
///
/// # Errors
///
/// What is wrong with the file: only a good one is formatted.
///
/// # Examples
///
/// ```
/// let text = "from   busybox as b\ncopy --link a   \\\n\tb /c\nRun  a \\  \n  && b";
/// let formatted = parser::format::format(text).unwrap_or_default();
/// assert_eq!(formatted, "FROM busybox AS b\nCOPY --link a \\\n    b /c\nRUN a \\\n  && b\n");
/// ```
pub fn format(text: &str) -> Result<String, Vec<Diagnostic>> {
    let (_, diagnostics) = parse(text);
    if !diagnostics.is_empty() {
        return Err(diagnostics);
    }
    let mark = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let mut out = String::from(&text[..mark]);
    let mut end = mark;
    let mut statements = Statements::new(text, '\\');
    while let Some(statement) = statements.next() {
        between(&text[end..statement.span.start()], &mut out, Some(&statement));
        out.push_str(&formatted(text, &statement, statements.escape));
        out.push('\n');
        end = statement.span.end();
    }
    between(&text[end..], &mut out, None);
    Ok(out)
}

/// Writes the comments between two statements, or behind the last one, with one blank line where there are some.
fn between(gap: &str, out: &mut String, next: Option<&Statement>) {
    let is_first = out.is_empty() || out.as_str() == "\u{feff}";
    let mut lines: Vec<&str> = gap.split('\n').map(str::trim_end).collect();
    if next.is_some() {
        // The indentation of the statement.
        lines.pop();
    }
    // What is left of the line before.
    let lines = if is_first { &lines[..] } else { lines.get(1..).unwrap_or_default() };
    let mut is_blank = false;
    let mut has_comment = false;
    for line in lines {
        if line.is_empty() {
            is_blank = true;
            continue;
        }
        // At the top, a comment behind a blank line is no directive.
        if is_blank {
            out.push('\n');
        }
        out.push_str(line);
        out.push('\n');
        (is_blank, has_comment) = (false, true);
    }
    if is_blank && next.is_some() && (has_comment || !is_first) {
        out.push('\n');
    }
}

fn formatted(text: &str, statement: &Statement, escape: char) -> String {
    let written = Writer::new(text, escape).write(statement);
    match written.filter(|it| is_same(it, statement, escape)) {
        Some(written) => written,
        None => text[range(statement.span)].to_owned(),
    }
}

fn range(span: Span) -> Range<usize> {
    span.start()..span.end()
}

/// Reports whether a text is one statement that says what this one says, and stays as it is when it is formatted.
fn is_same(text: &str, statement: &Statement, escape: char) -> bool {
    let mut statements = Statements::new(text, escape);
    let Some(again) = statements.next() else { return false };
    let fits = text.split('\n').all(|it| it.len() <= MAX_LINE);
    let same = |a: &Heredoc, b: &Heredoc| {
        (&a.name, &a.raw, a.expand, a.chomp, a.fd) == (&b.name, &b.raw, b.expand, b.chomp, b.fd)
    };
    let heredocs = again.heredocs.len() == statement.heredocs.len()
        && again.heredocs.iter().zip(&statement.heredocs).all(|(a, b)| same(a, b));
    let triggers = trigger(&again) == trigger(statement);
    fits && statements.next().is_none()
        && heredocs
        && triggers
        && is_same_node(&again.node, &statement.node)
        && Writer::new(text, escape).write(&again).as_deref() == text.get(range(again.span))
}

/// The text that an `ONBUILD` keeps.
fn trigger(statement: &Statement) -> Option<&str> {
    let keyword = &statement.node.keyword.value;
    let line = statement.line.text.trim_start();
    let is_trigger = statement.node.name == Some(Name::Onbuild);
    is_trigger.then(|| line.get(keyword.len()..).unwrap_or_default().trim_start())
}

fn is_same_node(a: &Node, b: &Node) -> bool {
    let flags =
        |it: &Node| -> Vec<String> { it.flags.iter().map(|it| it.text.value.clone()).collect() };
    (a.name, a.json) == (b.name, b.json) && flags(a) == flags(b) && is_same_args(a, b)
}

fn is_same_args(a: &Node, b: &Node) -> bool {
    let same = |a: &Text, b: &Text| a.value == b.value;
    match (&a.args, &b.args) {
        (Args::Words(words), Args::Words(others)) => {
            let keyword = word_in_capitals(a.name);
            let same = |(n, (a, b)): (usize, (&Text, &Text))| match keyword == Some(n) {
                true => a.value.eq_ignore_ascii_case(&b.value),
                false => a.value == b.value,
            };
            words.len() == others.len() && words.iter().zip(others).enumerate().all(same)
        }
        (
            Args::Pairs { pairs, legacy },
            Args::Pairs { pairs: other_pairs, legacy: other_legacy },
        ) => {
            let same =
                |(a, b): (&(Text, Text), &(Text, Text))| same(&a.0, &b.0) && same(&a.1, &b.1);
            legacy == other_legacy
                && pairs.len() == other_pairs.len()
                && pairs.iter().zip(other_pairs).all(same)
        }
        (Args::Optional(pairs), Args::Optional(others)) => {
            let value = |it: &Option<Text>| it.as_ref().map(|it| it.value.clone());
            pairs.len() == others.len()
                && pairs
                    .iter()
                    .zip(others)
                    .all(|(a, b)| same(&a.0, &b.0) && value(&a.1) == value(&b.1))
        }
        (Args::Trigger(a), Args::Trigger(b)) => is_same_node(a, b),
        (Args::Skipped, Args::Skipped) => true,
        _ => false,
    }
}

/// Which argument is a keyword as well: `AS`, and `CMD` or `NONE`.
fn word_in_capitals(name: Option<Name>) -> Option<usize> {
    match name {
        Some(Name::From) => Some(1),
        Some(Name::Healthcheck) => Some(0),
        _ => None,
    }
}

/// Writes one statement, part by part; what lies between the parts is only looked at for line breaks and comments.
struct Writer<'a> {
    text: &'a str,
    escape: char,
    out: String,
    /// The offset up to which the text has been written.
    end: usize,
    /// Something that is neither blank nor comment was between two parts.
    is_lost: bool,
}

impl<'a> Writer<'a> {
    fn new(text: &'a str, escape: char) -> Self {
        Writer { text, escape, out: String::new(), end: 0, is_lost: false }
    }

    fn write(mut self, statement: &Statement) -> Option<String> {
        let Statement { node, line, heredocs, span, .. } = statement;
        self.out.push_str(&node.keyword.value.to_ascii_uppercase());
        self.end = node.keyword.span.end();
        node.flags.iter().for_each(|it| self.part(range(it.text.span)));
        let line_end = heredocs.first().map_or(span.end(), |it| it.span.start());
        match &node.args {
            Args::Words(words) => {
                let keyword = word_in_capitals(node.name);
                let before_array = usize::from(node.name == Some(Name::Healthcheck));
                let n_plain = if node.json { before_array } else { words.len() };
                for (n, word) in words.get(..n_plain)?.iter().enumerate() {
                    let start = self.out.len();
                    self.part(range(word.span));
                    if keyword == Some(n) {
                        self.out[start..].make_ascii_uppercase();
                    }
                }
                if node.json {
                    self.array(&words[n_plain..], line_end)?;
                }
            }
            Args::Pairs { pairs, legacy: false } => {
                for (key, value) in pairs {
                    self.part(key.span.start()..value.span.end());
                }
            }
            Args::Pairs { pairs, legacy: true } => {
                for (key, value) in pairs {
                    self.part(range(key.span));
                    self.part(range(value.span));
                }
            }
            Args::Optional(pairs) => {
                for (key, value) in pairs {
                    let end = value.as_ref().map_or(key.span, |it| it.span).end();
                    self.part(key.span.start()..end);
                }
            }
            Args::Trigger(trigger) => {
                let end = line.span(0..line.text.len()).end();
                self.part(trigger.keyword.span.start()..end);
            }
            Args::Skipped | Args::Broken => return None,
        }
        self.rest(line_end);
        if let (Some(first), Some(last)) = (heredocs.first(), heredocs.last()) {
            self.out.push('\n');
            self.out.push_str(self.text.get(first.span.start()..last.span.end())?);
        }
        (!self.is_lost).then_some(self.out)
    }

    /// Writes a part, and what is to be between it and the one before.
    fn part(&mut self, range: Range<usize>) {
        self.gap(range.start, " ", None);
        self.raw(range);
    }

    /// Writes `otherwise`, or a line break and the comments if there is a line break up to `to`. `mark` may stand there,
    /// and has been written.
    fn gap(&mut self, to: usize, otherwise: &str, mark: Option<char>) {
        let gap = self.text.get(self.end..to).unwrap_or("?");
        let (breaks, comments) = self.comments(gap, mark);
        if breaks {
            self.out.push_str(if self.out.ends_with(' ') { "" } else { " " });
            self.out.push(self.escape);
            self.out.push('\n');
            for comment in comments {
                self.out.push_str(INDENT);
                self.out.push_str(comment);
                self.out.push('\n');
            }
            self.out.push_str(INDENT);
        } else {
            self.out.push_str(otherwise);
        }
        self.end = to;
    }

    /// Returns whether a gap goes over the end of a line, and the comments in it.
    fn comments<'b>(&mut self, gap: &'b str, mut mark: Option<char>) -> (bool, Vec<&'b str>) {
        let mut comments = Vec::new();
        for (n, line) in gap.split('\n').enumerate() {
            if n > 0 && is_comment(line) {
                comments.push(line.trim());
                continue;
            }
            for ch in line.chars() {
                match ch {
                    _ if mark == Some(ch) => mark = None,
                    _ if ch == self.escape || BLANKS.contains(&ch) => {}
                    _ => self.is_lost = true,
                }
            }
        }
        (gap.contains('\n'), comments)
    }

    /// Writes a part as it stands, without the blanks behind its continuations and without its blank lines.
    fn raw(&mut self, range: Range<usize>) {
        self.end = range.end;
        let Some(text) = self.text.get(range) else {
            self.is_lost = true;
            return;
        };
        let mut lines = text.split('\n').enumerate().peekable();
        while let Some((n, line)) = lines.next() {
            let is_last = lines.peek().is_none();
            if n > 0 {
                if line.trim().is_empty() && !is_last {
                    continue;
                }
                self.out.push('\n');
            }
            match continuation(line.trim_end_matches('\r'), self.escape) {
                _ if is_last => self.out.push_str(line),
                _ if n > 0 && is_comment(line) => self.out.push_str(line.trim_end()),
                (piece, true) => {
                    self.out.push_str(piece);
                    self.out.push(self.escape);
                }
                (line, false) => self.out.push_str(line),
            }
        }
    }

    /// Writes a JSON array.
    fn array(&mut self, items: &[Text], line_end: usize) -> Option<()> {
        let open = self.find('[', line_end)?;
        self.gap(open, " ", None);
        self.out.push('[');
        self.end = open + 1;
        for (n, item) in items.iter().enumerate() {
            let (mark, blank) = if n > 0 { (Some(','), " ") } else { (None, "") };
            self.out.extend(mark);
            self.gap(item.span.start(), blank, mark);
            self.raw(range(item.span));
        }
        let close = self.find(']', line_end)?;
        self.gap(close, "", None);
        self.out.push(']');
        self.end = close + 1;
        Some(())
    }

    /// Finds a character that is in no comment.
    fn find(&self, ch: char, line_end: usize) -> Option<usize> {
        let mut at = self.end;
        for (n, line) in self.text.get(at..line_end)?.split_inclusive('\n').enumerate() {
            match line.find(ch) {
                Some(found) if n == 0 || !is_comment(line) => return Some(at + found),
                _ => at += line.len(),
            }
        }
        None
    }

    /// Writes the comments behind a continuation that nothing follows.
    fn rest(&mut self, line_end: usize) {
        let gap = self.text.get(self.end..line_end).unwrap_or("?");
        let (_, comments) = self.comments(gap, None);
        for comment in comments {
            self.out.push('\n');
            self.out.push_str(comment);
        }
    }
}
