//! Logs cut into lines, and numbers as text.

use std::{borrow::Cow, time::Duration};

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
        Some(harmless(&String::from_utf8_lossy(bytes)).into_owned())
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
    let mut out = String::with_capacity(text.len());
    clean(last_state(text), false, &mut out);
    out.replace('\t', "    ")
}

/// Takes out of text what would do more to a terminal than to write lines in colours: commands built, files and images are
/// named by people who may want to move the cursor, set the title or turn the reading direction.
pub fn harmless(text: &str) -> Cow<'_, str> {
    if !text.contains(|it: char| it != '\n' && it != '\t' && (it.is_control() || turns(it))) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        clean(last_state(line), true, &mut out);
        out.push_str(end);
    }
    out.into()
}

/// A line that redraws itself shows its last state.
fn last_state(line: &str) -> &str {
    line.rsplit('\r').find(|it| !it.is_empty()).unwrap_or_default()
}

/// Whether a character changes the direction of those behind it, so that text reads as something else than it is.
fn turns(it: char) -> bool {
    matches!(it, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn clean(text: &str, keeps_colours: bool, out: &mut String) {
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\u{1b}' | '\u{9b}' => {
                let (sequence, after) = escape(c, rest);
                let is_colour = sequence.strip_suffix('m').is_some_and(|it| {
                    it.bytes().all(|it| it.is_ascii_digit() || matches!(it, b';' | b':'))
                });
                if keeps_colours && is_colour {
                    out.push_str("\u{1b}[");
                    out.push_str(sequence);
                }
                rest = after;
            }
            '\t' => out.push(c),
            c if turns(c) => out.push('\u{fffd}'),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
}

/// Splits an escape sequence off: its text if it is one that begins with `[`, and what follows it.
fn escape(first: char, rest: &str) -> (&str, &str) {
    let body = match first {
        '\u{9b}' => rest,
        _ => match rest.strip_prefix('[') {
            Some(body) => body,
            None => return ("", after_string(rest)),
        },
    };
    match body.find(|it: char| !(' '..='?').contains(&it)) {
        Some(end) if ('@'..='~').contains(&body[end..].chars().next().unwrap_or_default()) => {
            body.split_at(end + 1)
        }
        // Not ended as it should be.
        Some(end) => ("", &body[end..]),
        None => ("", ""),
    }
}

/// What follows a sequence that is no colour: a title or other text up to its end, or one more character.
fn after_string(rest: &str) -> &str {
    match rest.chars().next() {
        Some(']' | 'P' | 'X' | '^' | '_') => {
            let end = rest.find(['\u{7}', '\u{1b}', '\u{9c}']).unwrap_or(rest.len());
            let after = &rest[end..];
            let after = after.strip_prefix(['\u{7}', '\u{9c}']).unwrap_or(after);
            after.strip_prefix("\u{1b}\\").unwrap_or(after)
        }
        Some(it) if !it.is_control() => &rest[it.len_utf8()..],
        _ => rest,
    }
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

/// Breaks text at blanks into lines of so many columns; a word that is longer is cut.
pub fn wrap(text: &str, columns: usize) -> String {
    use unicode_width::UnicodeWidthStr;
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.width() + 1 + word.width() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(fit(word, columns).0),
        }
    }
    lines.join("\n")
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
    fn only_colours_are_left_of_escapes() {
        for (text, shown) in [
            ("plain\n\ttext\n", "plain\n\ttext\n"),
            ("\u{1b}[1;31mred\u{1b}[0m\n", "\u{1b}[1;31mred\u{1b}[0m\n"),
            ("\u{9b}32mgreen", "\u{1b}[32mgreen"),
            ("up\u{1b}[1A\u{1b}[2Kgone\n", "upgone\n"),
            ("\u{1b}]0;title\u{7}x \u{1b}]52;c;ZXZpbA==\u{1b}\\y", "x y"),
            ("\u{1b}P+q\u{1b}\\z \u{1b}cw \u{1b}(0v", "z w 0v"),
            ("10%\r50%\r\n100%\r\n", "50%\n100%\n"),
            ("\u{1b}[\u{1b}[31mx\u{1b}", "\u{1b}[31mx"),
            ("a\u{0}\u{8}\u{85}b\u{2066}c", "ab\u{fffd}c"),
            ("\u{1b}[999999", ""),
        ] {
            assert_eq!(harmless(text), shown, "{text:?}");
        }
        assert_eq!(Lines::default().push(b"\x1b[2Jx\n"), ["x"]);
    }

    #[test]
    fn long_text_is_broken_at_blanks() {
        assert_eq!(wrap(" => WARN: a long story", 12), " => WARN: a\nlong story");
        assert_eq!(wrap("a verylongword b", 5), "a\nvery…\nb");
        assert_eq!(wrap("", 5), "");
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
        assert_eq!(printable("a\u{202e}b"), "a\u{fffd}b");
    }
}
