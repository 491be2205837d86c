//! Words of a Dockerfile: quotes, escapes and variables resolved.
//!
//! A word is what an instruction has for an argument: `a$B`, `"${C:-x y}"`. [`Lexer::word`] gives its text,
//! [`Lexer::words`] splits the result at blanks that were not quoted. Which instruction expands which of its words, and
//! with which variables, is decided by the callers.
//!
//! The rules are those of BuildKit's `shell` package, its oddities included: a `${v:-word}` throws away the
//! part of a word that stood directly before it when the result is split (but not when it is taken whole).
//!
//! # Invariants
//!
//! - **Bounded.** Nesting and the length of a result have limits, so that no text can exhaust stack or memory.
//! - **No order.** Names come out sorted.

mod pattern;

use alloc::{
    borrow::ToOwned,
    collections::{BTreeMap, BTreeSet},
    format,
    string::String,
    vec::Vec,
};
use core::{iter::Peekable, mem, str::Chars};

use pattern::Pattern;

/// How deep `${a:-${b:-…}}` may nest.
const MAX_DEPTH: usize = 200;
/// How long a result may get, in bytes.
const MAX_LENGTH: usize = 16 << 20;
/// What Go prints for the end of the text where it expects a character.
const END: char = '\u{fffd}';

/// Variables to be looked up by name.
pub trait Environment {
    /// Returns the value of a variable, or `None` where it is not set.
    fn get(&self, name: &str) -> Option<&str>;
    /// Returns all names, in any order.
    fn names(&self) -> Vec<&str>;
}

impl Environment for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<&str> {
        self.get(name).map(String::as_str)
    }

    fn names(&self) -> Vec<&str> {
        self.keys().map(String::as_str).collect()
    }
}

/// The last pair of a name wins.
impl Environment for [(String, String)] {
    fn get(&self, name: &str) -> Option<&str> {
        self.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn names(&self) -> Vec<&str> {
        self.iter().map(|(key, _)| key.as_str()).collect()
    }
}

impl Environment for Vec<(String, String)> {
    fn get(&self, name: &str) -> Option<&str> {
        Environment::get(self.as_slice(), name)
    }

    fn names(&self) -> Vec<&str> {
        Environment::names(self.as_slice())
    }
}

/// Resolves quotes, escapes and variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lexer {
    /// The escape character, a backslash or a backtick.
    pub escape: char,
    /// Quotes stay in the result.
    pub raw_quotes: bool,
    /// Escape characters stay in the result (what they escape is still not special).
    pub raw_escapes: bool,
    /// Variables that are not set stay in the result as they were written.
    pub keep_unset: bool,
    /// Quotes have no meaning.
    pub skip_quotes: bool,
}

/// The result of [`Lexer::word`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expanded {
    /// The text.
    pub text: String,
    /// Names that were looked up and are set.
    pub matched: BTreeSet<String>,
    /// Names that were looked up and are not set.
    pub unmatched: BTreeSet<String>,
}

/// A word that cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to process {word:?}: {kind}")]
pub struct ExpandError {
    /// The word as written.
    pub word: String,
    /// Why.
    pub kind: ExpandErrorKind,
}

/// Why a word cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExpandErrorKind {
    /// A quote or a brace is not closed.
    #[error("unexpected end of statement while looking for matching {closing}")]
    UnexpectedEnd {
        /// What would close it.
        closing: &'static str,
    },
    /// `${` without `}`.
    #[error("syntax error: missing '}}'")]
    MissingBrace,
    /// `${v/pattern` without a second `/`.
    #[error("syntax error: missing '/' in ${{}}")]
    MissingSlash,
    /// `${}`, `${{` or `${:`.
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    /// What follows the name in `${…}` is no known operator.
    #[error("unsupported modifier ({modifier}) in substitution")]
    UnsupportedModifier {
        /// The operator.
        modifier: String,
    },
    /// `${v?message}` and the variable is not set (or is empty, with `:?`).
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// The message that the Dockerfile gives, or one of ours.
        message: String,
    },
    /// A pattern of `#`, `%` or `/` escapes what needs no escape.
    #[error("invalid pattern ({pattern}) in substitution: invalid escape '\\{escaped}'")]
    InvalidPattern {
        /// The pattern.
        pattern: String,
        /// The character after the backslash.
        escaped: char,
    },
    /// Substitutions are nested too deep.
    #[error("substitutions are nested more than {MAX_DEPTH} deep")]
    TooDeep,
    /// The result is too long.
    #[error("the result is longer than {MAX_LENGTH} bytes")]
    TooLong,
}

impl Lexer {
    /// Makes a lexer that resolves everything.
    pub fn new(escape: char) -> Self {
        Self {
            escape,
            raw_quotes: false,
            raw_escapes: false,
            keep_unset: false,
            skip_quotes: false,
        }
    }

    /// Expands `input` as one word.
    ///
    /// # Errors
    ///
    /// An open quote, a substitution that is not understood, or a required variable that is not set.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::collections::BTreeMap;
    /// use planner::expand::Lexer;
    ///
    /// let env = BTreeMap::from([("NAME".to_owned(), "app".to_owned())]);
    /// let lexer = Lexer::new('\\');
    /// assert_eq!(lexer.word("/srv/${NAME}-${TAG:-latest}", &env)?.text, "/srv/app-latest");
    /// # Ok::<(), planner::expand::ExpandError>(())
    /// ```
    pub fn word(
        &self,
        input: &str,
        env: &(impl Environment + ?Sized),
    ) -> Result<Expanded, ExpandError> {
        self.run(input, env).map(|(expanded, _)| expanded)
    }

    /// Expands `input` and splits the result at blanks that are not quoted.
    ///
    /// # Errors
    ///
    /// As [`word`](Self::word).
    pub fn words(
        &self,
        input: &str,
        env: &(impl Environment + ?Sized),
    ) -> Result<Vec<String>, ExpandError> {
        self.run(input, env).map(|(_, words)| words)
    }

    fn run(
        &self,
        input: &str,
        env: &(impl Environment + ?Sized),
    ) -> Result<(Expanded, Vec<String>), ExpandError> {
        let mut reader = Reader {
            lexer: *self,
            raw_escapes: self.raw_escapes,
            chars: input.strip_prefix('\u{feff}').unwrap_or(input).chars().peekable(),
            env,
            partial: String::new(),
            depth: 0,
            matched: BTreeSet::new(),
            unmatched: BTreeSet::new(),
        };
        match reader.until(None, self.raw_escapes) {
            Ok((text, words)) => {
                let Reader { matched, unmatched, .. } = reader;
                Ok((Expanded { text, matched, unmatched }, words))
            }
            Err(kind) => Err(ExpandError { word: input.to_owned(), kind }),
        }
    }
}

/// Reads one word from left to right.
struct Reader<'a, E: ?Sized> {
    lexer: Lexer,
    raw_escapes: bool,
    chars: Peekable<Chars<'a>>,
    env: &'a E,
    /// The word being collected; shared by all levels of nesting.
    partial: String,
    depth: usize,
    matched: BTreeSet<String>,
    unmatched: BTreeSet<String>,
}

/// Words found so far on one level.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    in_word: bool,
}

impl Words {
    fn push(&mut self, partial: &mut String, ch: char) {
        if !ch.is_whitespace() {
            partial.push(ch);
            self.in_word = true;
        } else if self.in_word && !partial.is_empty() {
            self.done.push(mem::take(partial));
            self.in_word = false;
        }
    }

    fn push_quoted(&mut self, partial: &mut String, text: &str) {
        partial.push_str(text);
        self.in_word = true;
    }

    fn finish(mut self, partial: &mut String) -> Vec<String> {
        if !partial.is_empty() {
            self.done.push(mem::take(partial));
        }
        self.done
    }
}

impl<'a, E: Environment + ?Sized> Reader<'a, E> {
    /// Reads up to and over `stop`, or to the end.
    fn until(
        &mut self,
        stop: Option<char>,
        raw_escapes: bool,
    ) -> Result<(String, Vec<String>), ExpandErrorKind> {
        if self.depth >= MAX_DEPTH {
            return Err(ExpandErrorKind::TooDeep);
        }
        self.depth += 1;
        self.partial.clear();
        let outer = mem::replace(&mut self.raw_escapes, raw_escapes);
        let result = self.until_inner(stop);
        self.raw_escapes = outer;
        self.depth -= 1;
        result
    }

    fn until_inner(
        &mut self,
        stop: Option<char>,
    ) -> Result<(String, Vec<String>), ExpandErrorKind> {
        let mut text = String::new();
        let mut words = Words::default();
        while let Some(&ch) = self.chars.peek() {
            if stop == Some(ch) {
                self.chars.next();
                return Ok((text, words.finish(&mut self.partial)));
            }
            match ch {
                '$' => {
                    let value = self.dollar()?;
                    text.push_str(&value);
                    for ch in value.chars() {
                        words.push(&mut self.partial, ch);
                    }
                }
                '\'' | '"' if !self.lexer.skip_quotes => {
                    let value =
                        if ch == '\'' { self.single_quoted()? } else { self.double_quoted()? };
                    text.push_str(&value);
                    words.push_quoted(&mut self.partial, &value);
                }
                _ => {
                    self.chars.next();
                    let mut literal = ch;
                    if ch == self.lexer.escape {
                        let mut buffer = [0; 4];
                        if self.raw_escapes {
                            words.push_quoted(&mut self.partial, ch.encode_utf8(&mut buffer));
                            text.push(ch);
                        }
                        let Some(escaped) = self.chars.next() else { break };
                        words.push_quoted(&mut self.partial, escaped.encode_utf8(&mut buffer));
                        literal = escaped;
                    } else {
                        words.push(&mut self.partial, ch);
                    }
                    text.push(literal);
                }
            }
            check_length(&text)?;
        }
        match stop {
            None => Ok((text, words.finish(&mut self.partial))),
            Some('/') => Err(ExpandErrorKind::UnexpectedEnd { closing: "/" }),
            Some(_) => Err(ExpandErrorKind::UnexpectedEnd { closing: "}" }),
        }
    }

    fn single_quoted(&mut self) -> Result<String, ExpandErrorKind> {
        let mut text = String::new();
        let quote = self.chars.next();
        if self.lexer.raw_quotes {
            text.extend(quote);
        }
        loop {
            match self.chars.next() {
                None => {
                    return Err(ExpandErrorKind::UnexpectedEnd { closing: "single-quote" });
                }
                Some('\'') => {
                    if self.lexer.raw_quotes {
                        text.push('\'');
                    }
                    return Ok(text);
                }
                Some(ch) => text.push(ch),
            }
        }
    }

    fn double_quoted(&mut self) -> Result<String, ExpandErrorKind> {
        let mut text = String::new();
        let quote = self.chars.next();
        if self.lexer.raw_quotes {
            text.extend(quote);
        }
        loop {
            match self.chars.peek() {
                None => {
                    return Err(ExpandErrorKind::UnexpectedEnd { closing: "double-quote" });
                }
                Some('"') => {
                    self.chars.next();
                    if self.lexer.raw_quotes {
                        text.push('"');
                    }
                    return Ok(text);
                }
                Some('$') => {
                    text.push_str(&self.dollar()?);
                    check_length(&text)?;
                }
                Some(&ch) => {
                    self.chars.next();
                    if ch != self.lexer.escape {
                        text.push(ch);
                        continue;
                    }
                    if self.raw_escapes {
                        text.push(ch);
                    }
                    match self.chars.peek() {
                        None => {} // The missing quote is found next.
                        Some(&next) if matches!(next, '"' | '$') || next == ch => {
                            self.chars.next();
                            text.push(next);
                        }
                        Some(_) => text.push(ch), // Escapes nothing and stays.
                    }
                }
            }
        }
    }

    /// Reads `$name`, `${…}` or a lone `$`.
    fn dollar(&mut self) -> Result<String, ExpandErrorKind> {
        self.chars.next();
        if self.chars.peek() != Some(&'{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match self.look_up(&name) {
                None if self.lexer.keep_unset => format!("${name}"),
                value => value.unwrap_or_default().to_owned(),
            });
        }

        self.chars.next();
        match self.chars.peek() {
            None => return Err(ExpandErrorKind::MissingBrace),
            Some('{' | '}' | ':') => return Err(ExpandErrorKind::BadSubstitution),
            Some(_) => {}
        }
        let name = self.name();
        match self.chars.next() {
            Some('}') => Ok(match self.look_up(&name) {
                None if self.lexer.keep_unset => format!("${{{name}}}"),
                value => value.unwrap_or_default().to_owned(),
            }),
            Some(':') => {
                let operator = self.chars.next().unwrap_or(END);
                self.modified(&name, operator, true)
            }
            Some(operator @ ('+' | '-' | '?' | '#' | '%')) => self.modified(&name, operator, false),
            Some('/') => self.replaced(&name),
            other => Err(ExpandErrorKind::UnsupportedModifier {
                modifier: String::from(other.unwrap_or(END)),
            }),
        }
    }

    /// Reads the rest of `${name-word}` and its kin. With `colon`, an empty variable counts as not set.
    fn modified(
        &mut self,
        name: &str,
        operator: char,
        colon: bool,
    ) -> Result<String, ExpandErrorKind> {
        let trims = matches!(operator, '#' | '%');
        let modifier = if colon { format!(":{operator}") } else { String::from(operator) };
        if colon && trims {
            return Err(ExpandErrorKind::UnsupportedModifier { modifier });
        }
        let word = self.part('}', trims, ExpandErrorKind::MissingBrace)?;
        let value = self.look_up(name);
        if value.is_none() && self.lexer.keep_unset {
            return Ok(format!("${{{name}{modifier}{word}}}"));
        }
        let is_set = value.is_some();
        let value = value.unwrap_or_default();
        let counts = is_set && !(colon && value.is_empty());
        match operator {
            '-' => Ok(if counts { value.to_owned() } else { word }),
            '+' => Ok(if counts { word } else { String::new() }),
            '?' if counts => Ok(value.to_owned()),
            '?' => {
                let message = match (word.is_empty(), is_set) {
                    (false, _) => word,
                    (true, false) => "is not allowed to be unset".to_owned(),
                    (true, true) => "is not allowed to be empty".to_owned(),
                };
                Err(ExpandErrorKind::Required { name: name.to_owned(), message })
            }
            '#' | '%' => {
                let (word, greedy) = match word.strip_prefix(operator) {
                    Some(rest) => (rest, true),
                    None => (word.as_str(), false),
                };
                if operator == '#' {
                    Ok(Pattern::parse(word, greedy)?.without_prefix(value))
                } else {
                    pattern::without_suffix(word, value, greedy)
                }
            }
            _ => Err(ExpandErrorKind::UnsupportedModifier { modifier }),
        }
    }

    /// Reads the rest of `${name/pattern/replacement}`, the first slash being read.
    fn replaced(&mut self, name: &str) -> Result<String, ExpandErrorKind> {
        let all = self.chars.next_if_eq(&'/').is_some();
        let pattern = self.part('/', true, ExpandErrorKind::MissingSlash)?;
        let replacement = self.part('}', true, ExpandErrorKind::MissingBrace)?;
        let value = self.look_up(name);
        if value.is_none() && self.lexer.keep_unset {
            return Ok(format!("${{{name}/{pattern}/{replacement}}}"));
        }
        let value = value.unwrap_or_default();
        let pattern = Pattern::parse(&pattern, true)?;
        if all {
            pattern.replace_all(value, &replacement)
        } else {
            Ok(pattern.replace_first(value, &replacement))
        }
    }

    /// Reads a nested word; whatever is wrong at the very end of the text is `at_end`.
    fn part(
        &mut self,
        stop: char,
        raw_escapes: bool,
        at_end: ExpandErrorKind,
    ) -> Result<String, ExpandErrorKind> {
        match self.until(Some(stop), raw_escapes) {
            Ok((text, _)) => Ok(text),
            Err(kind @ (ExpandErrorKind::TooDeep | ExpandErrorKind::TooLong)) => Err(kind),
            Err(_) if self.chars.peek().is_none() => Err(at_end),
            Err(kind) => Err(kind),
        }
    }

    /// Reads a name: a special parameter, digits, or letters, digits and underscores.
    fn name(&mut self) -> String {
        let mut name = String::new();
        if self.chars.peek().is_some_and(|it| it.is_numeric()) {
            while let Some(ch) = self.chars.next_if(|it| it.is_numeric()) {
                name.push(ch);
            }
            return name;
        }
        let special = |it: &char| matches!(it, '@' | '*' | '#' | '?' | '-' | '$' | '!');
        if let Some(ch) = self.chars.next_if(special) {
            return String::from(ch);
        }
        while let Some(ch) = self.chars.next_if(|it| it.is_alphanumeric() || *it == '_') {
            name.push(ch);
        }
        name
    }

    fn look_up(&mut self, name: &str) -> Option<&'a str> {
        let env = self.env;
        let value = env.get(name);
        let names = if value.is_some() { &mut self.matched } else { &mut self.unmatched };
        if !names.contains(name) {
            names.insert(name.to_owned());
        }
        value
    }
}

fn check_length(text: &str) -> Result<(), ExpandErrorKind> {
    if text.len() > MAX_LENGTH { Err(ExpandErrorKind::TooLong) } else { Ok(()) }
}
