//! A logical line split into keyword, flags and arguments, by the rules of its keyword but without knowing what they mean.

use alloc::{boxed::Box, vec::Vec};
use core::ops::Range;

use crate::{
    ast::Text,
    error::Mistake,
    json::{self, Array},
    line::{Line, trim},
    report::Report,
    words::{self, BLANKS, Flag},
};

/// Triggers nested deeper than this are not looked into; more than one level is a mistake anyway.
const MAX_DEPTH: usize = 4;

/// A line split into its parts.
#[derive(Debug)]
pub(crate) struct Node {
    /// The first word.
    pub(crate) keyword: Text,
    /// Which instruction it is; `None` for an unknown one.
    pub(crate) name: Option<Name>,
    /// What stands in front of the arguments.
    pub(crate) flags: Vec<Flag>,
    /// The rest.
    pub(crate) args: Args,
    /// The arguments are a JSON array.
    pub(crate) json: bool,
}

/// The arguments of a node.
#[derive(Debug)]
pub(crate) enum Args {
    /// Words, or the whole text as one.
    Words(Vec<Text>),
    /// `ENV` and `LABEL`.
    Pairs {
        /// Name and value.
        pairs: Vec<(Text, Text)>,
        /// Written with a blank instead of `=`.
        legacy: bool,
    },
    /// `ARG`: names, and values where there are some.
    Optional(Vec<(Text, Option<Text>)>),
    /// `ONBUILD`.
    Trigger(Box<Node>),
    /// Not looked at.
    Skipped,
    /// Wrong, and reported.
    Broken,
}

/// The instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    Stopsignal,
    User,
    Volume,
    Workdir,
}

impl Name {
    /// All of them, by the name they are written with, in alphabetical order.
    pub(crate) const ALL: [(&'static str, Self); 18] = [
        ("ADD", Self::Add),
        ("ARG", Self::Arg),
        ("CMD", Self::Cmd),
        ("COPY", Self::Copy),
        ("ENTRYPOINT", Self::Entrypoint),
        ("ENV", Self::Env),
        ("EXPOSE", Self::Expose),
        ("FROM", Self::From),
        ("HEALTHCHECK", Self::Healthcheck),
        ("LABEL", Self::Label),
        ("MAINTAINER", Self::Maintainer),
        ("ONBUILD", Self::Onbuild),
        ("RUN", Self::Run),
        ("SHELL", Self::Shell),
        ("STOPSIGNAL", Self::Stopsignal),
        ("USER", Self::User),
        ("VOLUME", Self::Volume),
        ("WORKDIR", Self::Workdir),
    ];

    fn of(keyword: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.0.eq_ignore_ascii_case(keyword)).map(|it| it.1)
    }
}

impl Node {
    /// Splits a part of a line.
    pub(crate) fn parse(
        line: &Line,
        range: Range<usize>,
        escape: char,
        report: &mut Report,
    ) -> Self {
        Self::nested(line, range, escape, report, 0)
    }

    fn nested(
        line: &Line,
        range: Range<usize>,
        escape: char,
        report: &mut Report,
        depth: usize,
    ) -> Self {
        let trimmed = trim(&line.text, range);
        let body = &line.text[trimmed.clone()];
        let end = trimmed.start + body.find(BLANKS).unwrap_or(body.len());
        let keyword = line.slice(trimmed.start..end);
        let (flags, start) = words::flags(line, end..trimmed.end);
        let rest = trim(&line.text, start..trimmed.end);
        let name = Name::of(&keyword.value);
        let mut splitter = Splitter { line, escape, report, keyword: &keyword, json: false };
        let args = splitter.args(name, rest, depth);
        let json = splitter.json;
        Self { keyword, name, flags, args, json }
    }

    /// Returns whether heredocs may be opened on this line.
    pub(crate) fn takes_heredocs(&self) -> bool {
        let node = match &self.args {
            Args::Trigger(trigger) => trigger,
            _ => self,
        };
        matches!(node.name, Some(Name::Add | Name::Copy | Name::Run)) && !node.json
    }

    /// Returns the words, none where they are of another kind.
    pub(crate) fn into_words(self) -> Vec<Text> {
        match self.args {
            Args::Words(words) => words,
            _ => Vec::new(),
        }
    }
}

struct Splitter<'a> {
    line: &'a Line,
    escape: char,
    report: &'a mut Report,
    keyword: &'a Text,
    json: bool,
}

impl Splitter<'_> {
    fn args(&mut self, name: Option<Name>, rest: Range<usize>, depth: usize) -> Args {
        match name {
            None => Args::Skipped,
            Some(Name::Env | Name::Label) => self.pairs(rest),
            Some(Name::Arg) => {
                let words = words::quoted(self.line, rest, self.escape);
                Args::Optional(words.into_iter().map(|it| self.pair(it)).collect())
            }
            Some(Name::From | Name::Expose) => Args::Words(words::list(self.line, rest)),
            Some(Name::Add | Name::Copy | Name::Volume) => match self.array(rest.clone()) {
                Some(args) => args,
                None => Args::Words(words::list(self.line, rest)),
            },
            Some(Name::Cmd | Name::Entrypoint | Name::Run | Name::Shell) => self.command(rest),
            Some(Name::Maintainer | Name::Stopsignal | Name::User | Name::Workdir) => {
                Args::Words(self.whole(rest))
            }
            Some(Name::Healthcheck) => self.healthcheck(rest),
            Some(Name::Onbuild) if rest.is_empty() => Args::Words(Vec::new()),
            Some(Name::Onbuild) if depth == MAX_DEPTH => Args::Skipped,
            Some(Name::Onbuild) => {
                let trigger = Node::nested(self.line, rest, self.escape, self.report, depth + 1);
                Args::Trigger(Box::new(trigger))
            }
        }
    }

    /// The whole rest as one word, if there is any.
    fn whole(&self, rest: Range<usize>) -> Vec<Text> {
        if rest.is_empty() { Vec::new() } else { Vec::from([self.line.slice(rest)]) }
    }

    /// A JSON array or the whole rest.
    fn command(&mut self, rest: Range<usize>) -> Args {
        match self.array(rest.clone()) {
            Some(args) => args,
            None => Args::Words(self.whole(rest)),
        }
    }

    /// A JSON array. `None` where the rest is none.
    fn array(&mut self, rest: Range<usize>) -> Option<Args> {
        match json::array(&self.line.text[rest.clone()]) {
            Array::NotJson => None,
            Array::Strings(strings) => {
                self.json = true;
                let text = |(value, range): (_, Range<usize>)| Text {
                    value,
                    span: self.line.span(rest.start + range.start..rest.start + range.end),
                };
                Some(Args::Words(strings.into_iter().map(text).collect()))
            }
            Array::Mixed(range) => {
                let kind = Mistake::JsonNotStrings { keyword: self.keyword.value.clone() };
                let span = self.line.span(rest.start + range.start..rest.start + range.end);
                self.report.hinted(kind, span, Some("put it in double quotes".into()));
                Some(Args::Broken)
            }
        }
    }

    fn healthcheck(&mut self, rest: Range<usize>) -> Args {
        let text = &self.line.text[rest.clone()];
        let end = rest.start + text.find(char::is_whitespace).unwrap_or(text.len());
        let mut words = self.whole(rest.start..end);
        let command = trim(&self.line.text, end..rest.end);
        match self.command(command) {
            Args::Words(more) => {
                words.extend(more);
                Args::Words(words)
            }
            other => other,
        }
    }

    fn pairs(&mut self, rest: Range<usize>) -> Args {
        let words = words::quoted(self.line, rest.clone(), self.escape);
        let Some(first) = words.first() else {
            return Args::Pairs { pairs: Vec::new(), legacy: false };
        };
        if !self.line.text[first.clone()].contains('=') {
            return self.legacy_pair(rest);
        }
        let mut pairs = Vec::new();
        let mut broken = false;
        for range in words {
            match self.pair(range) {
                (name, Some(value)) => pairs.push((name, value)),
                (word, None) => {
                    broken = true;
                    let hint = "put a value that holds blanks in quotes".into();
                    let kind = Mistake::MissingEquals { word: word.value };
                    self.report.hinted(kind, word.span, Some(hint));
                }
            }
        }
        if broken { Args::Broken } else { Args::Pairs { pairs, legacy: false } }
    }

    /// Splits a word at its first `=`.
    fn pair(&self, word: Range<usize>) -> (Text, Option<Text>) {
        match self.line.text[word.clone()].find('=') {
            None => (self.line.slice(word), None),
            Some(equals) => {
                let at = word.start + equals;
                (self.line.slice(word.start..at), Some(self.line.slice(at + 1..word.end)))
            }
        }
    }

    /// `NAME VALUE`, where the value is all that follows.
    fn legacy_pair(&mut self, rest: Range<usize>) -> Args {
        let text = &self.line.text[rest.clone()];
        let Some(end) = text.find(BLANKS) else {
            let name = self.line.slice(rest);
            let kind = Mistake::MissingValue {
                keyword: self.keyword.value.clone(),
                name: name.value.clone(),
            };
            self.report.add(kind, name.span);
            return Args::Broken;
        };
        let start = rest.end - text[end..].trim_start_matches(BLANKS).len();
        let name = self.line.slice(rest.start..rest.start + end);
        Args::Pairs { pairs: Vec::from([(name, self.line.slice(start..rest.end))]), legacy: true }
    }
}
