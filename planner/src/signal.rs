//! Names and numbers of signals, as `STOPSIGNAL` and `--signal` take them.

use alloc::{borrow::ToOwned, string::String};

/// The first real-time signal that programs may use (the C library keeps 32 and 33).
const RTMIN: i32 = 34;
/// The last real-time signal.
const RTMAX: i32 = 64;

/// Names without `SIG`, and their numbers on Linux.
const SIGNALS: &[(&str, i32)] = &[
    ("ABRT", 6),
    ("ALRM", 14),
    ("BUS", 7),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("FPE", 8),
    ("HUP", 1),
    ("ILL", 4),
    ("INT", 2),
    ("IO", 29),
    ("IOT", 6),
    ("KILL", 9),
    ("PIPE", 13),
    ("POLL", 29),
    ("PROF", 27),
    ("PWR", 30),
    ("QUIT", 3),
    ("SEGV", 11),
    ("STKFLT", 16),
    ("STOP", 19),
    ("SYS", 31),
    ("TERM", 15),
    ("TRAP", 5),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("USR1", 10),
    ("USR2", 12),
    ("VTALRM", 26),
    ("WINCH", 28),
    ("XCPU", 24),
    ("XFSZ", 25),
];

/// No signal has that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid signal: {text}")]
pub struct SignalError {
    /// The signal as written.
    pub text: String,
}

/// Reads a signal: a number, or a name in any case with or without `SIG`, for example `SIGRTMIN+3`.
///
/// # Errors
///
/// There is no such signal. Any number but 0 is taken, as the reference takes it.
///
/// # Examples
///
/// ```
/// use planner::signal;
///
/// assert_eq!(signal::parse("SIGTERM"), Ok(15));
/// assert_eq!(signal::parse("rtmin+3"), Ok(37));
/// assert!(signal::parse("SIGSTOPPED").is_err());
/// ```
pub fn parse(text: &str) -> Result<i32, SignalError> {
    let error = || SignalError { text: text.to_owned() };
    if let Ok(number) = text.parse::<i32>() {
        return if number == 0 { Err(error()) } else { Ok(number) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    real_time(name)
        .or_else(|| SIGNALS.iter().find(|(it, _)| *it == name).map(|(_, number)| *number))
        .ok_or_else(error)
}

/// `RTMIN`, `RTMIN+1` to `RTMIN+15`, `RTMAX-14` to `RTMAX-1`, `RTMAX`.
fn real_time(name: &str) -> Option<i32> {
    let offset = |digits: &str, most: i32| -> Option<i32> {
        let is_plain = digits.starts_with(|it: char| it.is_ascii_digit() && it != '0');
        digits.parse::<i32>().ok().filter(|it| is_plain && *it <= most)
    };
    match name {
        "RTMIN" => Some(RTMIN),
        "RTMAX" => Some(RTMAX),
        _ => match (name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX-")) {
            (Some(digits), _) => offset(digits, 15).map(|it| RTMIN + it),
            (_, Some(digits)) => offset(digits, 14).map(|it| RTMAX - it),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in
            [("9", 9), ("sigkill", 9), ("Hup", 1), ("RTMAX-14", 50), ("SIGRTMIN", 34), ("65", 65)]
        {
            assert_eq!(parse(text), Ok(number), "{text}");
        }
        for text in ["", "0", "SIG", "SIGRTMIN+16", "RTMAX-0", "RTMIN+01", "SIGSIGTERM", "1x"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
