//! Text to standard output and standard error. Whoever reads it may go away: that is no error.

use std::io::{self, IsTerminal, Write};

use crate::{
    failure::{Failure, Result},
    progress::line::harmless,
};

/// Writes a result to standard output.
///
/// # Errors
///
/// Fails where it cannot be written for another reason than that nobody reads it, for example a full disk.
pub fn out(text: &str) -> Result<()> {
    bytes(text.as_bytes())
}

/// Writes a result that may be no text, such as paths.
///
/// # Errors
///
/// As [`out`].
pub fn bytes(bytes: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    // Programs get the bytes as they are.
    let shown =
        stdout.is_terminal().then(|| harmless(&String::from_utf8_lossy(bytes)).into_owned());
    let bytes = shown.as_ref().map_or(bytes, |it| it.as_bytes());
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::failed(
            anyhow::Error::new(error).context("cannot write to standard output"),
        )),
        _ => Ok(()),
    }
}

/// Writes a message to standard error, as well as that can be done. Of escapes in it only colours are left.
pub fn err(text: &str) {
    let _ = io::stderr().lock().write_all(harmless(text).as_bytes());
}

/// Says whether messages on standard error may have colours.
pub fn colour() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|it| !it.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|it| it == "dumb");
    !set("NO_COLOR") && !dumb && io::stderr().is_terminal()
}

/// Columns of text, as wide as their widest cell, three blanks apart. The last one is not filled up.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with this first line.
    pub fn new(titles: &[&str]) -> Self {
        Self { rows: vec![titles.iter().map(|it| (*it).to_owned()).collect()] }
    }

    /// Adds a line.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let n_columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |n: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(n))
                .map(|it| it.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..n_columns).map(width).collect();
        for row in &self.rows {
            for (n, cell) in row.iter().enumerate() {
                match n + 1 == row.len() {
                    true => writeln!(f, "{cell}")?,
                    false => write!(f, "{cell:<width$}   ", width = widths[n])?,
                }
            }
        }
        Ok(())
    }
}
