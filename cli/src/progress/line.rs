//! Logs cut into lines, and numbers as text.

use std::time::Duration;

/// The longest piece of a line that is held back until its end comes.
const LONGEST: usize = 16 * 1024;

/// Cuts a stream of bytes into lines.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Takes bytes and returns the lines that are complete with them. A line that never ends is cut into pieces.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|it| *it == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.partial.len() > LONGEST {
                lines.extend(self.rest());
            }
        }
        lines
    }

    /// Returns what has not been ended by a newline.
    pub fn rest(&mut self) -> Option<String> {
        if self.partial.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.partial);
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        Some(String::from_utf8_lossy(bytes).into_owned())
    }
}

/// Writes a number of bytes as docker's progress does: `104B`, `2.41kB`, `3.80MB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes}B"),
        _ => format!("{value:.2}{}", UNITS[unit]),
    }
}

/// Writes the amount of a part: ` 1.20MB / 3.80MB`, ` 104B`, or nothing.
pub fn amount(current: u64, total: Option<u64>) -> String {
    match total {
        Some(total) if total > 0 => format!(" {} / {}", bytes(current), bytes(total)),
        _ if current > 0 => format!(" {}", bytes(current)),
        _ => String::new(),
    }
}

/// Writes the time of a line of log: three digits behind the point, fewer as it grows.
pub fn stamp(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let decimals = match seconds {
        it if it < 10.0 => 3,
        it if it < 100.0 => 2,
        _ => 1,
    };
    format!("{seconds:.decimals$}")
}

/// Takes escape sequences and other control characters out of text that is drawn in a place of its own.
pub fn printable(text: &str) -> String {
    // A line that redraws itself shows its last state.
    let text = text.rsplit('\r').find(|it| !it.is_empty()).unwrap_or_default();
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                Some('[') => while chars.next().is_some_and(|it| !('@'..='~').contains(&it)) {},
                Some(']') => {
                    while chars.next().is_some_and(|it| it != '\u{7}' && it != '\u{1b}') {}
                }
                _ => {}
            },
            '\t' => out.push_str("    "),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

/// Cuts text to a number of columns, with `…` where something is left out, and returns its width.
pub fn fit(text: &str, columns: usize) -> (String, usize) {
    use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};
    let width = text.width();
    if width <= columns {
        return (text.to_owned(), width);
    }
    let (mut out, mut used) = (String::new(), 0);
    for c in text.chars() {
        let wide = c.width().unwrap_or(0);
        if used + wide + 1 > columns {
            break;
        }
        out.push(c);
        used += wide;
    }
    if used < columns {
        out.push('…');
        used += 1;
    }
    (out, used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(b"a\nb"), ["a"]);
        assert_eq!(lines.push(b"c\r\n\nd"), ["bc", ""]);
        assert_eq!(lines.rest().as_deref(), Some("d"));
        assert_eq!(lines.rest(), None);
        assert_eq!(lines.push(&vec![b'x'; 3 * LONGEST]).len(), 1);
    }

    #[test]
    fn numbers() {
        assert_eq!(bytes(104), "104B");
        assert_eq!(bytes(2412), "2.41kB");
        assert_eq!(amount(1_200_000, Some(3_800_000)), " 1.20MB / 3.80MB");
        assert_eq!(amount(0, None), "");
        assert_eq!(stamp(Duration::from_millis(1234)), "1.234");
        assert_eq!(stamp(Duration::from_millis(12_345)), "12.35");
        assert_eq!(stamp(Duration::from_millis(123_456)), "123.5");
    }

    #[test]
    fn text_is_cut_at_columns_and_freed_of_escapes() {
        assert_eq!(fit("abcdef", 4), ("abc…".to_owned(), 4));
        assert_eq!(fit("日本語", 5), ("日本…".to_owned(), 5));
        assert_eq!(fit("日本語", 4), ("日…".to_owned(), 3));
        assert_eq!(fit("abc", 0), (String::new(), 0));
        assert_eq!(printable("\u{1b}[31mred\u{1b}[0m\tx\u{7}"), "red    x");
        assert_eq!(printable("10%\r50%\r"), "50%");
        assert_eq!(printable("\u{1b}]0;title\u{7}x\u{1b}"), "x");
    }
}
