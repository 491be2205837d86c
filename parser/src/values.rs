//! Values as Go reads them: durations, sizes, numbers and booleans.

use nom::{
    IResult, Parser,
    branch::alt,
    bytes::complete::tag,
    character::complete::{char, digit0, one_of},
    combinator::{map, opt, value},
    sequence::preceded,
};

/// Reads a duration such as `1h30m`, `1.5s` or `-2ms`, in nanoseconds.
///
/// # Source
///
/// Go's `time.ParseDuration`.
pub(crate) fn duration(text: &str) -> Option<i64> {
    let (rest, sign) = opt(one_of::<_, _, nom::error::Error<&str>>("+-")).parse(text).ok()?;
    if rest == "0" {
        return Some(0);
    }
    let mut rest = rest;
    let mut total: u64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let part;
        (rest, part) = duration_part(rest).ok()?;
        // The smallest value, -2^63, has no positive counterpart.
        total = total.checked_add(part?).filter(|it| *it <= 1 << 63)?;
    }
    match (sign == Some('-'), i64::try_from(total)) {
        (true, Ok(it)) => Some(-it),
        (true, Err(_)) => Some(i64::MIN),
        (false, it) => it.ok(),
    }
}

/// One number with its unit. The inner `None` is an overflow.
fn duration_part(text: &str) -> IResult<&str, Option<u64>> {
    let (rest, whole) = digit0(text)?;
    let (rest, fraction) = opt(preceded(char('.'), digit0)).parse(rest)?;
    if whole.is_empty() && fraction.is_none_or(str::is_empty) {
        return Err(nom::Err::Error(nom::error::make_error(text, nom::error::ErrorKind::Digit)));
    }
    let (rest, unit) = alt((
        value(1_u64, tag("ns")),
        value(1_000, tag("us")),
        value(1_000, tag("µs")),
        value(1_000, tag("μs")),
        value(1_000_000, tag("ms")),
        value(1_000_000_000, char('s')),
        value(60_000_000_000, char('m')),
        value(3_600_000_000_000, char('h')),
    ))
    .parse(rest)?;
    Ok((rest, scale(whole, fraction.unwrap_or(""), unit)))
}

/// Whole and fraction of a unit. The fraction goes through a float as in Go, so that results are the same.
fn scale(whole: &str, fraction: &str, unit: u64) -> Option<u64> {
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut numerator: u64 = 0;
    let mut denominator = 1.0;
    for digit in fraction.bytes() {
        if numerator > (i64::MAX as u64) / 10 {
            break;
        }
        numerator = numerator * 10 + u64::from(digit - b'0');
        denominator *= 10.0;
    }
    let nanos = (numerator as f64 * (unit as f64 / denominator)) as u64;
    whole.checked_mul(unit)?.checked_add(nanos)
}

/// Reads a size such as `64m`, `1.5 GiB` or `1024`, in bytes.
///
/// # Source
///
/// `github.com/docker/go-units`, `RAMInBytes`: units are powers of 1024 whatever they are called.
pub(crate) fn size(text: &str) -> Option<u64> {
    let last = text.rfind(|it: char| it.is_ascii_digit() || it == '.' || it == ' ')?;
    let number = if text[last..].starts_with(' ') { &text[..last] } else { &text[..=last] };
    let suffix = &text[last + 1..];
    if !number
        .bytes()
        .all(|it| it.is_ascii_digit() || matches!(it, b'.' | b'e' | b'E' | b'+' | b'-'))
    {
        return None;
    }
    let number: f64 = number.parse().ok()?;
    if number < 0.0 {
        return None;
    }
    let multiplier = suffix_multiplier(suffix)?;
    let bytes = number * multiplier;
    // More than any machine has is a mistake, and what the kernel is given must fit in 63 bits.
    (bytes < i64::MAX as f64).then_some(bytes as u64)
}

fn suffix_multiplier(suffix: &str) -> Option<f64> {
    if suffix.is_empty() {
        return Some(1.0);
    }
    let lower = suffix.to_ascii_lowercase();
    if lower == "b" {
        return Some(1.0);
    }
    let unit = |letter, shift: u32| map(char::<_, nom::error::Error<_>>(letter), move |_| shift);
    let (rest, shift) =
        alt((unit('k', 10), unit('m', 20), unit('g', 30), unit('t', 40), unit('p', 50)))
            .parse(lower.as_str())
            .ok()?;
    matches!(rest, "" | "b" | "ib").then(|| (1_u64 << shift) as f64)
}

/// Reads a boolean.
///
/// # Source
///
/// Go's `strconv.ParseBool`.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Reads an unsigned number of at most 32 bits: digits only, no sign.
pub(crate) fn number(text: &str, radix: u32) -> Option<u32> {
    if text.starts_with('+') {
        return None;
    }
    u32::from_str_radix(text, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("1h30m"), Some(5_400_000_000_000));
        assert_eq!(duration("1.5s"), Some(1_500_000_000));
        assert_eq!(duration(".5s"), Some(500_000_000));
        assert_eq!(duration("1.s"), Some(1_000_000_000));
        assert_eq!(duration("-2ms"), Some(-2_000_000));
        assert_eq!(duration("0"), Some(0));
        assert_eq!(duration("+0"), Some(0));
        assert_eq!(duration("3µs"), Some(3_000));
        assert_eq!(duration("0.3333333333333333333h"), Some(1_200_000_000_000));
        assert_eq!(duration("9223372036854775807ns"), Some(i64::MAX));
        assert_eq!(duration("-9223372036854775808ns"), Some(i64::MIN));
        for bad in ["", "-", "1", "s", ".s", "1x", "1 s", "99999999h", "9223372036854775808ns"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(size("128m"), Some(128 << 20));
        assert_eq!(size("1.5 GiB"), Some(3 << 29));
        assert_eq!(size("10b"), Some(10));
        assert_eq!(size("7"), Some(7));
        assert_eq!(size("1KB"), Some(1024));
        for bad in ["", "foo", "m", "1x", "-1", "1bb", "1kbb", "1mii", "1 2 3"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn numbers() {
        assert_eq!(number("0755", 8), Some(0o755));
        assert_eq!(number("9", 8), None);
        assert_eq!(number("-1", 10), None);
        assert_eq!(number("+1", 10), None);
        assert_eq!(number("", 10), None);
        assert_eq!(number("4294967296", 10), None);
    }
}
