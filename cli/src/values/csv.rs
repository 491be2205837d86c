//! One record of comma-separated values, as Go's `encoding/csv` reads it.

/// Splits `text` at commas; a field in double quotes may hold commas, and `""` for a quote.
///
/// # Errors
///
/// Returns a message where a quote is not closed or stands inside a bare field.
///
/// # Examples
///
/// ```
/// use cli::values::csv::fields;
///
/// assert_eq!(fields(r#"type=oci,"dest=a,b""#)?, ["type=oci", "dest=a,b"]);
/// # Ok::<(), String>(())
/// ```
pub fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    let mut rest = text;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted, text)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let (field, after) = rest.split_at(end);
                if field.contains('"') {
                    return Err(format!(
                        "`{text}` has a quote inside a field; put the quotes around all of `key=value`"
                    ));
                }
                (field.to_owned(), after)
            }
        };
        out.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Ok(out),
        }
    }
}

fn quoted_field<'a>(quoted: &'a str, whole: &str) -> Result<(String, &'a str), String> {
    let mut field = String::new();
    let mut rest = quoted;
    loop {
        let Some(end) = rest.find('"') else {
            return Err(format!("`{whole}` has a quote that is not closed"));
        };
        field.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(next) => {
                field.push('"');
                rest = next;
            }
            None if rest.is_empty() || rest.starts_with(',') => return Ok((field, rest)),
            None => return Err(format!("`{whole}` has text after a closing quote")),
        }
    }
}

/// Splits a field at its first `=`; the key comes back in lowercase and without blanks.
///
/// # Errors
///
/// Returns a message where there is no `=`.
pub fn key_value(field: &str) -> Result<(String, &str), String> {
    match field.split_once('=') {
        Some((key, value)) => Ok((key.trim().to_ascii_lowercase(), value)),
        None => Err(format!("`{field}` is not of the form `key=value`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_protect_commas_and_must_close() {
        assert_eq!(fields("a,b=c"), Ok(vec!["a".to_owned(), "b=c".to_owned()]));
        assert_eq!(fields(r#""a ""q"",b",c"#), Ok(vec![r#"a "q",b"#.to_owned(), "c".to_owned()]));
        assert_eq!(fields("").map(|it| it.len()), Ok(1));
        for bad in [r#""a"#, r#"a"b""#, r#""a"b"#] {
            assert!(fields(bad).is_err(), "{bad}");
        }
    }
}
