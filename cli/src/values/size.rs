//! Numbers of bytes: `64m`, `1.5gb`, `65536`.

/// Parses a size as docker does: units are powers of 1024, with or without `b` or `ib` behind them.
///
/// # Errors
///
/// Returns a message that names the text.
pub fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size such as `65536`, `64m` or `1.5g`");
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let shift = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = number * (1u64 << shift) as f64;
    if !bytes.is_finite() || bytes >= u64::MAX as f64 {
        return Err(wrong());
    }
    Ok(bytes as u64)
}

/// Parses a size, or -1 for none that is too large.
///
/// # Errors
///
/// Returns a message that names the text.
pub fn size_or_unlimited(text: &str) -> Result<u64, String> {
    if text.trim() == "-1" { Ok(u64::MAX) } else { size(text) }
}

/// Writes a number of bytes with decimal units, as docker's listings do: three digits that count.
pub fn show(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64, 0);
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = match value {
        _ if unit == 0 => 0,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    let number = format!("{value:.decimals$}");
    let number =
        if decimals > 0 { number.trim_end_matches('0').trim_end_matches('.') } else { &number };
    format!("{number}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size("65536"), Ok(65536));
        assert_eq!(size("64M"), Ok(64 << 20));
        assert_eq!(size("1.5 GiB"), Ok(3 << 29));
        assert_eq!(size("2kb"), Ok(2048));
        for bad in ["", "m", "-1", "1x", "1.2.3", "99999999999999t"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shown_as_docker_does() {
        for (bytes, shown) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (4_260_000, "4.26MB"),
            (77_800_000, "77.8MB"),
            (999_900, "1MB"),
            (187_000_000, "187MB"),
        ] {
            assert_eq!(show(bytes), shown);
        }
    }
}
