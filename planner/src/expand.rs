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
mod reader;

use alloc::{
    borrow::ToOwned,
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};

use reader::Reader;

/// How deep `${a:-${b:-…}}` may nest.
const MAX_DEPTH: usize = 200;
/// How long a result may get, in bytes.
const MAX_LENGTH: usize = 16 << 20;
/// How many steps all patterns and substitutions of a word may take together: bytes put in place, and places of a pattern
/// looked at. What one substitution makes, another can take apart again, so that a limit on the result is not enough.
const MAX_STEPS: usize = 8 << 20;
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
#[error("failed to process {:?}: {kind}", short(word))]
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
    /// Working out the result takes too long.
    #[error("the substitutions take more than {MAX_STEPS} steps")]
    TooMuch,
}

/// What is left of [`MAX_STEPS`].
#[derive(Debug)]
struct Budget(usize);

impl Budget {
    fn spend(&mut self, n_steps: usize) -> Result<(), ExpandErrorKind> {
        self.0 = self.0.checked_sub(n_steps).ok_or(ExpandErrorKind::TooMuch)?;
        Ok(())
    }
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
        Reader::new(*self, input, env)
            .read()
            .map_err(|kind| ExpandError { word: input.to_owned(), kind })
    }
}

/// The start of a long word: a message is no place for all of it.
fn short(word: &str) -> String {
    const MAX_CHARS: usize = 200;
    match word.char_indices().nth(MAX_CHARS) {
        Some((at, _)) => [&word[..at], "…"].concat(),
        None => word.to_owned(),
    }
}

fn check_length(text: &str) -> Result<(), ExpandErrorKind> {
    if text.len() > MAX_LENGTH { Err(ExpandErrorKind::TooLong) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn nesting_has_a_limit() {
        let word = "${a:-".repeat(100_000);
        let error = Lexer::new('\\').word(&word, &env(&[])).map_err(|it| it.kind);
        assert_eq!(error, Err(ExpandErrorKind::TooDeep));
    }

    #[test]
    fn length_has_a_limit() {
        let error = Lexer::new('\\').word(&"a".repeat(17 << 20), &env(&[])).map_err(|it| it.kind);
        assert_eq!(error, Err(ExpandErrorKind::TooLong));
    }

    #[test]
    fn substitutions_take_a_limited_number_of_steps() {
        let env = env(&[("a", &"x".repeat(1 << 16)), ("x", "x")]);
        let stars = alloc::format!("${{a##{}y}}", "*x".repeat(1 << 14));
        let thrown_away = "${b:+${a//x/$a}}".to_owned();
        for word in ["$a".repeat(1 << 10), "${a//x/$a}".to_owned(), thrown_away, stars] {
            let error = Lexer::new('\\').word(&word, &env).map_err(|it| it.kind);
            assert_eq!(error, Err(ExpandErrorKind::TooMuch));
        }
    }

    #[test]
    fn the_last_pair_of_a_name_wins() {
        let pairs = [("a", "1"), ("b", "2"), ("a", "3")];
        let pairs: Vec<_> =
            pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let text = Lexer::new('\\').word("$a$b", &pairs).map(|it| it.text);
        assert_eq!(text.as_deref(), Ok("32"));
    }

    #[test]
    fn patterns_take_time_in_proportion() {
        let env = env(&[("a", &"a".repeat(2_000))]);
        let word = alloc::format!("${{a##{}b}}", "*a".repeat(200));
        let text = Lexer::new('\\').word(&word, &env).map(|it| it.text.len());
        assert_eq!(text, Ok(2_000));
    }
}
