//! Reads one word, character by character.

use alloc::{borrow::ToOwned, collections::BTreeSet, format, string::String, vec::Vec};
use core::{iter::Peekable, mem, str::Chars};

use super::{
    Budget, END, Environment, ExpandErrorKind, Expanded, Lexer, MAX_DEPTH, MAX_STEPS, check_length,
    pattern::{self, Pattern},
};

/// Reads one word from left to right.
pub(super) struct Reader<'a, E: ?Sized> {
    lexer: Lexer,
    raw_escapes: bool,
    chars: Peekable<Chars<'a>>,
    env: &'a E,
    /// The word being collected; shared by all levels of nesting.
    partial: String,
    depth: usize,
    budget: Budget,
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
    pub(super) fn new(lexer: Lexer, input: &'a str, env: &'a E) -> Self {
        Self {
            lexer,
            raw_escapes: lexer.raw_escapes,
            chars: input.strip_prefix('\u{feff}').unwrap_or(input).chars().peekable(),
            env,
            partial: String::new(),
            depth: 0,
            budget: Budget(MAX_STEPS),
            matched: BTreeSet::new(),
            unmatched: BTreeSet::new(),
        }
    }

    /// Reads to the end: the text, and the same split into words.
    pub(super) fn read(mut self) -> Result<(Expanded, Vec<String>), ExpandErrorKind> {
        let (text, words) = self.until(None, self.raw_escapes)?;
        let Self { matched, unmatched, .. } = self;
        Ok((Expanded { text, matched, unmatched }, words))
    }

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
                    self.budget.spend(value.len())?;
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
                    let value = self.dollar()?;
                    self.budget.spend(value.len())?;
                    text.push_str(&value);
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
                    Pattern::parse(word, greedy)?.without_prefix(value, &mut self.budget)
                } else {
                    pattern::without_suffix(word, value, greedy, &mut self.budget)
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
            pattern.replace_all(value, &replacement, &mut self.budget)
        } else {
            pattern.replace_first(value, &replacement, &mut self.budget)
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
            Err(
                kind @ (ExpandErrorKind::TooDeep
                | ExpandErrorKind::TooLong
                | ExpandErrorKind::TooMuch),
            ) => Err(kind),
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
