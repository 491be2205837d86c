//! Signals for containers, and their way to the command.
//!
//! A container belongs to the kiln that runs it, so that one is told: the signal is written into a file of the container's, and
//! `SIGURG`, which does nothing to who does not expect it, says that something is there. A signal that this kiln gets itself would mean
//! what it means to kiln: that the terminal is gone, or that the third of a kind is the end.

use std::{
    fs::OpenOptions,
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::error::RuntimeError;

/// The file.
const FILE: &str = "signals";

/// A signal, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(u8);

impl Signal {
    /// The one that cannot be caught.
    pub const KILL: Self = Self(9);
    /// The one that asks to end.
    pub const TERM: Self = Self(15);

    /// The signal of this number, if there is one: from 1 to 64, without the two of the C library.
    pub fn new(number: i32) -> Option<Self> {
        let number = u8::try_from(number).ok()?;
        matches!(number, 1..=31 | 34..=64).then_some(Self(number))
    }
}

/// Writes a signal down for the kiln that runs the container of this folder. It says whether there still is one.
pub(crate) fn leave(folder: &Path, signal: Signal) -> Result<bool, RuntimeError> {
    let path = folder.join(FILE);
    let write = || {
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
        file.lock()?;
        file.write_all(&[signal.0])
    };
    match write() {
        Ok(()) => Ok(true),
        // Its folder is on its way out.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(RuntimeError::io("write", &path)(error)),
    }
}

/// Takes the signals that were written down. What cannot be read is none.
pub(crate) fn take(folder: &Path) -> Vec<i32> {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = OpenOptions::new().read(true).write(true).open(folder.join(FILE))?;
        file.lock()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        file.set_len(0)?;
        Ok(bytes)
    };
    read().unwrap_or_default().into_iter().map(i32::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_taken_once_and_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(take(folder.path()), [0; 0]);
        for number in [28, 37] {
            let signal = Signal::new(number).expect("a signal");
            assert!(leave(folder.path(), signal).expect("written"));
        }
        assert_eq!(take(folder.path()), [28, 37]);
        assert_eq!(take(folder.path()), [0; 0]);
        assert!(!leave(&folder.path().join("gone"), Signal::TERM).expect("it is no error"));
        assert_eq!([-1, 0, 32, 33, 65, 300].map(Signal::new), [None; 6]);
    }
}
