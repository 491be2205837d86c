//! The report as a person reads it.

use alloc::{string::String, vec::Vec};
use core::fmt::Write as _;

use super::{LintReport, Warning};
use crate::location::Location;

impl LintReport {
    /// Writes the findings with the lines they are about, in the order of the file.
    pub fn to_text(&self) -> String {
        let mut warnings: Vec<&Warning> = self.warnings.iter().collect();
        warnings.sort_by_key(|it| it.location.line());
        let mut out = String::new();
        for warning in warnings {
            // Writing to a String cannot fail.
            let _ = write!(out, "\nWARNING: {}", warning.rule_name);
            if !warning.url.is_empty() {
                let _ = write!(out, " - {}", warning.url);
            }
            let _ = writeln!(out, "\n{}", warning.detail);
            self.frame(&mut out, &warning.location);
        }
        out
    }

    /// Writes the lines of a place, with those around it.
    fn frame(&self, out: &mut String, location: &Location) {
        let (Some(source), first, last) =
            (self.sources.first(), location.line(), location.last_line())
        else {
            return;
        };
        let Ok(text) = core::str::from_utf8(&source.data) else { return };
        let lines: Vec<&str> = text.split('\n').collect();
        let n_lines = u32::try_from(lines.len()).unwrap_or(u32::MAX);
        if first == 0 || last > n_lines {
            return;
        }
        // Lines are added on both sides in turn; as the reference counts, a turn costs one more than it adds.
        let (mut from, mut to) = (first, last);
        let (mut spent, budget) = (0, if first == last { 4 } else { 2 });
        while spent < budget {
            if from > 1 {
                from -= 1;
                spent += 1;
            }
            if to < n_lines {
                to += 1;
                spent += 1;
            }
            spent += 1;
        }
        let _ = writeln!(out, "{}:{first}\n--------------------", source.file_name);
        for (line, text) in (from..=to).zip(&lines[from as usize - 1..]) {
            let is_inside = location.lines.is_some_and(|it| (it.first..=it.last).contains(&line));
            let mark = if is_inside { ">>>" } else { "   " };
            let _ = writeln!(out, "{line:4} | {mark} {text}");
        }
        out.push_str("--------------------\n");
    }
}
