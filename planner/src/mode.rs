//! What `--chmod` says: an octal number, or changes such as `u=rwX,go-w`.
//!
//! Symbolic modes are those of BSD's `chmod(1)` with an empty file creation mask, as BuildKit has them.

use alloc::{borrow::ToOwned, string::String, vec::Vec};

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
const STICKY: u32 = 0o1000;
const USER: u32 = 0o700;
const GROUP: u32 = 0o070;
const OTHER: u32 = 0o007;
/// All that `a` stands for.
const ALL: u32 = SETUID | SETGID | USER | GROUP | OTHER;

/// A mode to be set, or a change of modes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// The twelve bits to set.
    Octal(u32),
    /// Changes of what is there, applied one after another.
    Symbolic(Vec<Change>),
}

/// One step of a symbolic mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Sets bits.
    Set(u32),
    /// Clears bits.
    Clear(u32),
    /// Sets bits of folders and of what somebody could execute before any change.
    SetIfExecutable(u32),
    /// Copies the three bits of one class, found `shift` bits up, to each class in `to` (bits 0o700, 0o070, 0o007).
    Copy {
        /// Where the bits are taken from: 6, 3 or 0.
        shift: u32,
        /// Where they go to.
        to: u32,
        /// `+`, `-` or `=`.
        operator: char,
    },
}

/// A mode that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModeError {
    /// It starts with a digit and is not an octal number up to 07777.
    #[error("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777")]
    Octal {
        /// The mode as written.
        text: String,
    },
    /// It is no symbolic mode.
    #[error("invalid chmod parameter: '{text}': invalid syntax")]
    Symbolic {
        /// The mode as written.
        text: String,
    },
}

impl Mode {
    /// Reads a mode.
    ///
    /// # Errors
    ///
    /// The text is neither an octal number up to 07777 nor a list of symbolic changes.
    ///
    /// # Examples
    ///
    /// ```
    /// use planner::mode::Mode;
    ///
    /// let mode = Mode::parse("u=rwX,go=rX")?;
    /// assert_eq!(mode.apply(0o600, false), 0o644);
    /// assert_eq!(mode.apply(0o600, true), 0o755);
    /// # Ok::<(), planner::mode::ModeError>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, ModeError> {
        if text.starts_with(|it: char| it.is_ascii_digit()) {
            return match u32::from_str_radix(text, 8) {
                Ok(mode) if mode <= 0o7777 => Ok(Self::Octal(mode)),
                _ => Err(ModeError::Octal { text: text.to_owned() }),
            };
        }
        symbolic(text)
            .map(Self::Symbolic)
            .ok_or_else(|| ModeError::Symbolic { text: text.to_owned() })
    }

    /// Returns the twelve bits that a file or folder of `mode` gets.
    pub fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        let changes = match self {
            Self::Octal(mode) => return *mode,
            Self::Symbolic(changes) => changes,
        };
        let old = mode & 0o7777;
        let mut mode = old;
        for change in changes {
            match *change {
                Change::Set(bits) => mode |= bits,
                Change::Clear(bits) => mode &= !bits,
                Change::SetIfExecutable(bits) => {
                    if is_dir || old & 0o111 != 0 {
                        mode |= bits;
                    }
                }
                Change::Copy { shift, to, operator } => {
                    let bits = (((mode >> shift) & 0o7) * 0o111) & to;
                    mode = match operator {
                        '+' => mode | bits,
                        '-' => mode & !bits,
                        _ => (mode & !to) | bits,
                    };
                }
            }
        }
        mode
    }
}

fn symbolic(text: &str) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    for clause in text.split(',') {
        let n_who = clause.find(|it: char| !matches!(it, 'a' | 'u' | 'g' | 'o'))?;
        let (classes, mut rest) = clause.split_at(n_who);
        let who = classes.chars().fold(0, |who, class| {
            who | match class {
                'a' => ALL,
                'u' => SETUID | USER,
                'g' => SETGID | GROUP,
                _ => OTHER,
            }
        });
        while !rest.is_empty() {
            rest = action(rest, who, &mut changes)?;
        }
    }
    Some(changes)
}

/// Reads an operator and what it sets, and returns what is left.
fn action<'a>(text: &'a str, mut who: u32, changes: &mut Vec<Change>) -> Option<&'a str> {
    let mut chars = text.chars();
    let operator = chars.next().filter(|it| matches!(it, '+' | '-' | '='))?;
    // Set-id and sticky mean nothing to `o` alone.
    let special = who == 0 || who & !OTHER != 0;
    let mut bits = 0;
    let mut execute_if = 0;
    let mut is_done = false;
    let mut rest = chars.as_str();
    loop {
        let mut chars = rest.chars();
        match chars.next() {
            Some('r') => bits |= 0o444,
            Some('w') => bits |= 0o222,
            Some('x') => bits |= 0o111,
            Some('X') if operator != '-' => execute_if = 0o111,
            Some('X') => {}
            Some('s') if special => bits |= SETUID | SETGID,
            Some('t') if special => {
                who |= STICKY;
                bits |= STICKY;
            }
            Some('s' | 't') => {}
            Some(class @ ('u' | 'g' | 'o')) => {
                if bits != 0 {
                    set(operator, who, bits, changes);
                }
                conditional(who, execute_if, changes);
                (bits, execute_if, is_done) = (0, 0, true);
                let shift = match class {
                    'u' => 6,
                    'g' => 3,
                    _ => 0,
                };
                let to = if who == 0 { USER | GROUP | OTHER } else { who & 0o777 };
                changes.push(Change::Copy { shift, to, operator });
            }
            _ => break,
        }
        rest = chars.as_str();
    }
    if bits != 0 || operator == '=' && !is_done {
        set(operator, who, bits, changes);
    }
    conditional(who, execute_if, changes);
    Some(rest)
}

fn set(operator: char, who: u32, bits: u32, changes: &mut Vec<Change>) {
    let affected = if who == 0 { bits } else { who & bits };
    match operator {
        '+' => changes.push(Change::Set(affected)),
        '-' => changes.push(Change::Clear(affected)),
        _ => {
            changes.push(Change::Clear(if who == 0 { ALL } else { who }));
            changes.push(Change::Set(affected));
        }
    }
}

fn conditional(who: u32, bits: u32, changes: &mut Vec<Change>) {
    if bits != 0 {
        changes.push(Change::SetIfExecutable(if who == 0 { bits } else { who & bits }));
    }
}
