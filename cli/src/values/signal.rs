//! Signals by name or number.

use runtime::Signal;

/// Parses a signal as `STOPSIGNAL` has it: `INT`, `SIGINT`, `2`, `RTMIN+3`.
///
/// # Errors
///
/// Returns a message if there is no such signal.
pub fn signal(text: &str) -> Result<Signal, String> {
    let number = planner::signal::parse(text).ok();
    number
        .and_then(Signal::new)
        .ok_or_else(|| format!("there is no signal `{text}`; name one as `kill -l` does"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in
            [("TERM", 15), ("sigwinch", 28), ("IOT", 6), ("9", 9), ("RTMIN+3", 37)]
        {
            assert_eq!(signal(text).ok(), Signal::new(number), "{text}");
        }
        for text in ["", "NOPE", "0", "33", "65", "RTMAX+1"] {
            assert!(signal(text).is_err(), "{text}");
        }
    }
}
