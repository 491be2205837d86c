//! Signals for containers: their names, and the way to the command.
//!
//! A container belongs to the kiln that runs it, so that one is told: signals that it passes on anyway it gets itself. All others are written
//! into a file of the container's, and `SIGURG`, which does nothing to who does not expect it, says that something is there.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::error::RuntimeError;

/// The file.
const FILE: &str = "signals";
/// The first of the signals that have no name of their own, as programs see it, and the last.
const FIRST_REAL_TIME: u8 = 34;
const LAST: u8 = 64;

/// The signals of Linux by their numbers, from 1 on, where they are the same on all its common machines.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// A signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(u8);

impl Signal {
    /// The one that cannot be caught.
    pub const KILL: Self = Self(9);
    /// The one that asks to end.
    pub const TERM: Self = Self(15);

    /// Reads a name, with `SIG` or without it, in any case, or a number.
    ///
    /// # Errors
    ///
    /// [`RuntimeError::BadSignal`] if there is no such signal.
    pub fn parse(text: &str) -> Result<Self, RuntimeError> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let real_time = |base: u8, rest: &str| match rest {
            "" => Some(base),
            rest => {
                let (sign, number) = rest.split_at_checked(1)?;
                let number: u8 = number.parse().ok()?;
                match sign {
                    "+" => base.checked_add(number),
                    "-" => base.checked_sub(number),
                    _ => None,
                }
            }
        };
        let number = match name {
            "POLL" => Some(29),
            name => {
                let named = NAMES.iter().position(|it| *it == name);
                let named = named.and_then(|it| u8::try_from(it + 1).ok());
                let of = |prefix: &str, base| real_time(base, name.strip_prefix(prefix)?);
                named
                    .or_else(|| of("RTMIN", FIRST_REAL_TIME))
                    .or_else(|| of("RTMAX", LAST))
                    .or_else(|| name.parse().ok())
            }
        };
        // Two below the first of real time are the C library's.
        let is_good = |it: &u8| matches!(*it, 1..=31 | FIRST_REAL_TIME..=LAST);
        let bad = || RuntimeError::BadSignal { name: text.to_owned() };
        number.filter(is_good).map(Self).ok_or_else(bad)
    }

    /// Its number.
    pub fn number(self) -> i32 {
        i32::from(self.0)
    }

    /// Whether the kiln that runs a container passes it on when it gets it itself.
    pub(crate) fn is_passed_on(self) -> bool {
        matches!(self.0, 1..=3 | 10 | 12 | 14 | 15 | 18)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(usize::from(self.0) - 1) {
            Some(name) => write!(f, "SIG{name}"),
            None => write!(f, "{}", self.0),
        }
    }
}

/// Writes a signal down for the kiln that runs the container of this folder.
pub(crate) fn leave(folder: &Path, signal: Signal) -> Result<(), RuntimeError> {
    let path = folder.join(FILE);
    let write = || {
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
        file.lock()?;
        file.write_all(&[signal.0])
    };
    write().map_err(RuntimeError::io("write", &path))
}

/// Takes the signals that were written down. What cannot be read is none.
pub(crate) fn take(folder: &Path) -> Vec<i32> {
    let read = || -> io::Result<Vec<u8>> {
        let mut file: File = OpenOptions::new().read(true).write(true).open(folder.join(FILE))?;
        file.lock()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        file.set_len(0)?;
        file.rewind()?;
        Ok(bytes)
    };
    read().unwrap_or_default().into_iter().map(i32::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let number = |text: &str| Signal::parse(text).map(Signal::number).ok();
        for (text, expected) in [
            ("TERM", 15),
            ("SIGINT", 2),
            ("sigquit", 3),
            ("winch", 28),
            ("9", 9),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-14", 50),
            ("SIGPOLL", 29),
            ("64", 64),
        ] {
            assert_eq!(number(text), Some(expected), "{text}");
        }
        for text in [
            "", "SIG", "NOPE", "0", "32", "33", "65", "-1", "RTMIN-1", "RTMAX+1", "RTMIN3",
            "RTMIN+", "RTMINé",
        ] {
            assert_eq!(number(text), None, "{text}");
        }
        assert_eq!(Signal::parse("28").map(|it| it.to_string()).ok().as_deref(), Some("SIGWINCH"));
    }

    #[test]
    fn what_is_left_is_taken_once_and_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(take(folder.path()), [0; 0]);
        for text in ["WINCH", "RTMIN+3"] {
            leave(folder.path(), Signal::parse(text).expect("a signal")).expect("written");
        }
        assert_eq!(take(folder.path()), [28, 37]);
        assert_eq!(take(folder.path()), [0; 0]);
    }
}
