//! Durations as Go writes them: `24h`, `1h30m`, `10s`; and days, `7d`.

use std::time::Duration;

/// Parses one.
///
/// # Errors
///
/// Returns a message that names the text.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a time such as `24h` or `1h30m`");
    let (mut seconds, mut rest) = (0_u64, text);
    while !rest.is_empty() {
        let (number, after) =
            rest.split_at(rest.find(|it: char| !it.is_ascii_digit()).ok_or_else(wrong)?);
        let unit = after.chars().next().ok_or_else(wrong)?;
        let factor = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(wrong()),
        };
        let part = number.parse::<u64>().ok().and_then(|it| it.checked_mul(factor));
        seconds = part.and_then(|it| seconds.checked_add(it)).ok_or_else(wrong)?;
        rest = &after[unit.len_utf8()..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(Duration::from_secs(seconds)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for bad in ["", "h", "5", "5x", "1h-", "99999999999999999999h", "5é"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
