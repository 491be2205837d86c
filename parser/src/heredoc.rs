//! Heredocs: which words of a line open one, and the words of a line as a shell would split them.
//!
//! The splitting keeps quotes, escapes and variables as they are; it only has to agree with BuildKit on where words end
//! and on which lines it gives up (an unclosed quote, a substitution it does not know). Such a line has no heredocs.

use alloc::{string::String, vec::Vec};

use nom::{
    Parser,
    bytes::complete::tag,
    character::complete::{char, digit0},
    combinator::{opt, rest, verify},
    error::Error,
};

/// The opening of a heredoc.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Opening {
    /// The delimiter without quotes.
    pub(crate) name: String,
    /// No part of the delimiter is quoted.
    pub(crate) expand: bool,
    /// Written `<<-`.
    pub(crate) chomp: bool,
    /// The number before `<<`.
    pub(crate) fd: u32,
}

/// Returns the heredocs that a logical line opens.
pub(crate) fn openings(line: &str) -> Vec<Opening> {
    if !line.contains("<<") {
        return Vec::new();
    }
    let keep = Keep { quotes: true, escapes: true };
    let words = words(line, keep).unwrap_or_default();
    words.iter().filter_map(|it| opening(it)).collect()
}

/// Reads a word as the opening of a heredoc: `[FD]<<[-]NAME`.
pub(crate) fn opening(word: &str) -> Option<Opening> {
    let name = verify(rest, |it: &str| !it.is_empty() && !it.contains('<'));
    let (_, (fd, _, dash, name)) =
        (digit0::<_, Error<&str>>, tag("<<"), opt(char('-')), name).parse(word).ok()?;
    let plain = words(name, Keep { quotes: false, escapes: false })?;
    let quoted = words(name, Keep { quotes: true, escapes: false })?;
    let ([plain], [quoted]) = (plain.as_slice(), quoted.as_slice()) else {
        return None;
    };
    let count = |it: &str| it.chars().filter(|it| matches!(it, '\'' | '"')).count();
    Some(Opening {
        name: plain.clone(),
        expand: count(plain) == count(quoted),
        chomp: dash.is_some(),
        fd: fd.parse().unwrap_or(if fd.is_empty() { 0 } else { u32::MAX }),
    })
}

/// Removes the tabs at the start of each line.
pub(crate) fn chomp(body: &str) -> String {
    body.split_inclusive('\n').map(|it| it.trim_start_matches('\t')).collect()
}

/// Substitutions nested deeper than this are given up on, so that no input exhausts the stack.
const MAX_DEPTH: usize = 64;

/// What stays in the words.
#[derive(Debug, Clone, Copy)]
struct Keep {
    quotes: bool,
    escapes: bool,
}

/// Splits text into words as BuildKit's shell lexer does with no variable set, all of them kept as written.
fn words(text: &str, keep: Keep) -> Option<Vec<String>> {
    let mut lexer = Lexer { chars: text.chars(), keep, depth: 0 };
    let mut words = Words::default();
    lexer.run(None, keep.escapes, &mut words)?;
    Some(words.finish())
}

#[derive(Debug, Default)]
struct Words {
    word: String,
    words: Vec<String>,
    all: String,
}

impl Words {
    /// Adds a character that ends the word if it is a blank.
    fn push(&mut self, ch: char) {
        if !ch.is_whitespace() {
            self.word.push(ch);
        } else if !self.word.is_empty() {
            self.words.push(core::mem::take(&mut self.word));
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.words.push(self.word);
        }
        self.words
    }
}

struct Lexer<'a> {
    chars: core::str::Chars<'a>,
    keep: Keep,
    depth: usize,
}

impl Lexer<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.clone().next()
    }

    /// Reads up to `stop`, or up to the end without one. `None` where BuildKit reports an error.
    fn run(&mut self, stop: Option<char>, escapes: bool, out: &mut Words) -> Option<()> {
        while let Some(ch) = self.peek() {
            if stop == Some(ch) {
                self.chars.next();
                return Some(());
            }
            match ch {
                '\'' | '"' => {
                    let mut quoted = String::new();
                    if ch == '\'' {
                        self.single(&mut quoted)?
                    } else {
                        self.double(escapes, &mut quoted)?
                    }
                    out.word.push_str(&quoted);
                    out.all.push_str(&quoted);
                }
                '$' => {
                    let value = self.dollar()?;
                    value.chars().for_each(|it| out.push(it));
                    out.all.push_str(&value);
                }
                '\\' => {
                    self.chars.next();
                    if escapes {
                        out.word.push('\\');
                        out.all.push('\\');
                    }
                    if let Some(ch) = self.chars.next() {
                        out.word.push(ch);
                        out.all.push(ch);
                    }
                }
                _ => {
                    self.chars.next();
                    out.push(ch);
                    out.all.push(ch);
                }
            }
        }
        stop.is_none().then_some(())
    }

    fn single(&mut self, out: &mut String) -> Option<()> {
        self.quote(out);
        loop {
            if self.peek()? == '\'' {
                self.quote(out);
                return Some(());
            }
            out.extend(self.chars.next());
        }
    }

    fn double(&mut self, escapes: bool, out: &mut String) -> Option<()> {
        self.quote(out);
        loop {
            match self.peek()? {
                '"' => {
                    self.quote(out);
                    return Some(());
                }
                '$' => out.push_str(&self.dollar()?),
                '\\' => {
                    self.chars.next();
                    if escapes {
                        out.push('\\');
                    }
                    match self.peek()? {
                        '"' | '$' | '\\' => out.extend(self.chars.next()),
                        _ => out.push('\\'),
                    }
                }
                ch => {
                    self.chars.next();
                    out.push(ch);
                }
            }
        }
    }

    fn quote(&mut self, out: &mut String) {
        let quote = self.chars.next();
        if self.keep.quotes {
            out.extend(quote);
        }
    }

    /// A variable, as written.
    fn dollar(&mut self) -> Option<String> {
        self.chars.next();
        let mut out = String::from("$");
        if self.peek() != Some('{') {
            self.name(&mut out);
            return Some(out);
        }
        self.chars.next();
        out.push('{');
        if matches!(self.peek()?, '{' | '}' | ':') {
            return None;
        }
        self.name(&mut out);
        let mut modifier = self.chars.next()?;
        out.push(modifier);
        if modifier == '}' {
            return Some(out);
        }
        if modifier == ':' {
            modifier = self.chars.next()?;
            out.push(modifier);
            if matches!(modifier, '#' | '%') {
                return None;
            }
        } else if !matches!(modifier, '+' | '-' | '?' | '#' | '%' | '/') {
            return None;
        }
        if modifier == '/' && !out.ends_with(":/") {
            if self.peek() == Some('/') {
                self.chars.next();
                out.push('/');
            }
            out.push_str(&self.nested('/', true)?);
            out.push('/');
            out.push_str(&self.nested('}', true)?);
        } else {
            out.push_str(&self.nested('}', matches!(modifier, '#' | '%'))?);
        }
        out.push('}');
        Some(out)
    }

    fn nested(&mut self, stop: char, escapes: bool) -> Option<String> {
        if self.depth == MAX_DEPTH {
            return None;
        }
        self.depth += 1;
        let mut words = Words::default();
        let done = self.run(Some(stop), escapes, &mut words);
        self.depth -= 1;
        done.map(|()| words.all)
    }

    fn name(&mut self, out: &mut String) {
        let Some(first) = self.peek() else { return };
        if first.is_numeric() {
            while let Some(ch) = self.peek().filter(|it| it.is_numeric()) {
                self.chars.next();
                out.push(ch);
            }
        } else if matches!(first, '@' | '*' | '#' | '?' | '-' | '$' | '!') {
            self.chars.next();
            out.push(first);
        } else {
            while let Some(ch) = self.peek().filter(|it| it.is_alphanumeric() || *it == '_') {
                self.chars.next();
                out.push(ch);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn names(line: &str) -> Vec<String> {
        openings(line).into_iter().map(|it| it.name).collect()
    }

    #[test]
    fn lines_open_heredocs() {
        let none: Vec<String> = vec![];
        assert_eq!(names("RUN <<A 3<<-B cat <<'C D' <<\"E\""), ["A", "B", "C D", "E"]);
        assert_eq!(names("RUN <<$X <<${Y:-a}"), ["$X", "${Y:-a}"]);
        assert_eq!(names("RUN <<EOF>out"), ["EOF>out"]);
        assert_eq!(names("RUN <<- EOF"), none);
        assert_eq!(names("RUN << EOF"), none);
        assert_eq!(names("RUN <<<EOF"), none);
        assert_eq!(names("RUN '<<EOF'"), none);
        assert_eq!(names("RUN \\<<EOF"), none);
        assert_eq!(names("RUN echo it's <<EOF"), none);
        assert_eq!(names("RUN echo ${x^} <<EOF"), none);
        assert_eq!(names("RUN echo ${x%%.*} ${y//a/b} <<EOF"), ["EOF"]);
    }

    #[test]
    fn quotes_forbid_expansion() {
        assert!(opening("<<EOF").unwrap().expand);
        assert!(!opening("<<'EOF'").unwrap().expand);
        assert!(!opening("<<E\"O\"F").unwrap().expand);
        assert_eq!(
            opening("12<<-X").unwrap(),
            Opening { name: "X".into(), expand: true, chomp: true, fd: 12 }
        );
    }

    #[test]
    fn deep_nesting_is_given_up() {
        let line = alloc::format!("RUN <<EOF {}", "${a:-".repeat(100_000));
        assert!(openings(&line).is_empty());
    }
}
