//! Statements: logical lines with what belongs to them, read off a text one by one.

use alloc::{borrow::ToOwned, format, string::String, vec::Vec};

use crate::{
    ast::{Comment, Heredoc},
    error::Mistake,
    heredoc::{self, Opening},
    line::{Line, MAX_LINE, Physical, Reader, continuation, is_comment},
    node::Node,
    report::Report,
    span::{Lines, Span},
    suggest::suggest,
    syntax::{self, Directives},
};

/// One logical line, split, with the comments above and the heredocs below.
pub(crate) struct Statement {
    /// The line, continuations joined.
    pub(crate) line: Line,
    /// Its parts.
    pub(crate) node: Node,
    /// The heredocs it opens.
    pub(crate) heredocs: Vec<Heredoc>,
    /// All its bytes, with heredocs.
    pub(crate) span: Span,
    /// All its lines, with heredocs.
    pub(crate) lines: Lines,
    /// The comments above.
    pub(crate) comments: Vec<Comment>,
    /// The lines that are blank inside a continuation.
    pub(crate) empty_continuations: Vec<u32>,
}

/// Reads statements off a text.
pub(crate) struct Statements<'a> {
    reader: Reader<'a>,
    directives: Directives,
    comments: Vec<Comment>,
    /// The escape character that holds so far.
    pub(crate) escape: char,
    /// `# kiln=strict-heredoc` was there.
    pub(crate) strict_heredoc: bool,
    /// No instruction was read yet.
    at_top: bool,
    /// What is wrong so far.
    pub(crate) report: Report,
}

impl<'a> Statements<'a> {
    pub(crate) fn new(text: &'a str, escape: char) -> Self {
        Self {
            reader: Reader::new(text),
            directives: Directives::default(),
            comments: Vec::new(),
            escape,
            strict_heredoc: false,
            at_top: true,
            report: Report::default(),
        }
    }

    /// Returns the number of the line read last.
    pub(crate) fn line_number(&self) -> u32 {
        self.reader.number
    }

    /// Reads the next statement.
    pub(crate) fn next(&mut self) -> Option<Statement> {
        while let Some(physical) = self.reader.next() {
            if is_comment(physical.text) {
                self.comment(&physical);
                continue;
            }
            self.directives.end();
            if let Some(statement) = self.statement(&physical) {
                self.at_top = false;
                return Some(statement);
            }
        }
        self.check_lengths();
        None
    }

    fn check_lengths(&mut self) {
        for (number, span) in core::mem::take(&mut self.reader.too_long) {
            let kind = Mistake::LineTooLong { found: span.end() - span.start(), limit: MAX_LINE };
            self.report.add(kind, span);
            self.report.place(Lines { first: number, last: number });
        }
    }

    fn comment(&mut self, physical: &Physical<'_>) {
        let line = self.reader.number;
        let bare = physical.bare();
        let token = bare.trim_start();
        let at = physical.start + bare.len() - token.len();
        if self.at_top {
            self.kiln_options(token, at);
        }
        match self.directives.line(token, "#") {
            None => {
                let mut chars = physical.text.chars();
                chars.next();
                let text = chars.as_str().trim();
                if text.is_empty() {
                    self.comments.clear();
                } else {
                    self.comments.push(Comment { text: text.to_owned(), line });
                }
            }
            Some(Ok(directive)) if directive.key == "escape" => {
                let start = at + directive.at;
                match directive.value {
                    "\\" => self.escape = '\\',
                    "`" => self.escape = '`',
                    value => self.report.hinted(
                        Mistake::InvalidEscape { value: value.to_owned() },
                        Span::new(start, start + value.len()),
                        None,
                    ),
                }
            }
            Some(Ok(_)) => {}
            Some(Err(name)) => {
                let kind = Mistake::DuplicateDirective { name: name.to_owned() };
                self.report.add(kind, Span::new(at, at + token.trim_end().len()));
            }
        }
        self.report.place(Lines { first: line, last: line });
    }

    /// Reads what kiln alone understands, in a comment line that stands at `at`.
    fn kiln_options(&mut self, line: &str, at: usize) {
        const STRICT_HEREDOC: &str = "strict-heredoc";
        for (start, option) in syntax::kiln_options(line).into_iter().flatten() {
            if option == STRICT_HEREDOC {
                self.strict_heredoc = true;
                continue;
            }
            let hint = match suggest(option, [STRICT_HEREDOC].into_iter(), false) {
                Some(close) => format!("did you mean `{close}`?"),
                None => format!("the only one that there is: `{STRICT_HEREDOC}`"),
            };
            let span = Span::new(at + start, at + start + option.len());
            let kind = Mistake::UnknownKilnOption { option: option.to_owned() };
            self.report.hinted(kind, span, Some(hint));
        }
    }

    /// Reads the logical line that starts with a physical line. `None` for a blank one.
    fn statement(&mut self, first: &Physical<'_>) -> Option<Statement> {
        let bare = first.bare();
        let token = bare.trim_start();
        let (piece, mut continues) = continuation(token, self.escape);
        if piece.is_empty() && !continues {
            return None;
        }
        let start = first.start + bare.len() - token.len();
        let mut end = first.start + bare.len();
        let first_line = self.reader.number;
        let mut line = Line::default();
        line.push(piece, start);
        let mut empty_continuations = Vec::new();
        while continues {
            let Some(next) = self.reader.next() else { break };
            let bare = next.bare();
            if !bare.trim_start().is_empty() {
                end = next.start + bare.len();
            }
            if is_comment(bare) {
                continue;
            }
            if bare.trim_start().is_empty() {
                empty_continuations.push(self.reader.number);
                continue;
            }
            let piece;
            (piece, continues) = continuation(bare, self.escape);
            line.push(piece, next.start);
        }
        let node = Node::parse(&line, 0..line.text.len(), self.escape, &mut self.report);
        let openings =
            if node.takes_heredocs() { heredoc::openings(&line.text) } else { Vec::new() };
        let mut heredocs = Vec::new();
        for opening in openings {
            let (heredoc, terminated) = self.heredoc(opening, end);
            end = heredoc.span.end();
            if !terminated {
                // It took all there is; another one would only be missed for the same reason.
                self.unterminated(&heredoc.name, &line);
                heredocs.push(heredoc);
                break;
            }
            heredocs.push(heredoc);
        }
        let lines = Lines { first: first_line, last: self.reader.number };
        self.report.place(lines);
        Some(Statement {
            line,
            node,
            heredocs,
            span: Span::new(start, end),
            lines,
            comments: core::mem::take(&mut self.comments),
            empty_continuations,
        })
    }

    /// Reads the body of a heredoc, of which the last line read ends at `end`, and whether it is terminated.
    fn heredoc(&mut self, opening: Opening, mut end: usize) -> (Heredoc, bool) {
        let Opening { name, expand, chomp, fd } = opening;
        let mut raw = String::new();
        let mut start = None;
        let mut terminated = false;
        while !terminated && let Some(physical) = self.reader.next() {
            let bare = physical.bare();
            start = start.or(Some(physical.start));
            end = physical.start + bare.len();
            let candidate = if chomp { bare.trim_start_matches('\t') } else { bare };
            terminated = candidate == name;
            if !terminated {
                raw.push_str(physical.text);
            }
        }
        let content = if chomp { heredoc::chomp(&raw) } else { raw.clone() };
        let span = Span::new(start.unwrap_or(end), end);
        (Heredoc { name, content, raw, expand, chomp, fd, span }, terminated)
    }

    fn unterminated(&mut self, name: &str, line: &Line) {
        // Where the word stands was lost in splitting; quotes inside the name are not looked for.
        let opens = |at: &usize| {
            line.text[at + 2..].trim_start_matches(['-', '\'', '"', '\\']).starts_with(name)
        };
        let at = line.text.match_indices("<<").map(|it| it.0).find(opens);
        let start = at.unwrap_or(0);
        let end =
            line.text[start..].find(char::is_whitespace).map_or(line.text.len(), |it| start + it);
        let hint = format!("end it with a line that holds `{name}` and nothing else");
        let kind = Mistake::UnterminatedHeredoc { name: name.to_owned() };
        self.report.hinted(kind, line.span(start..end), Some(hint));
    }
}
