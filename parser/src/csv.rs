//! One line of comma-separated fields, as `--mount` and `--device` hold them.

use alloc::{string::String, vec::Vec};

/// Splits a value at its commas. A field in double quotes may hold commas, and quotes written twice.
///
/// # Source
///
/// Go's `encoding/csv` without lazy quotes; an empty value is its `EOF`.
pub(crate) fn fields(value: &str) -> Result<Vec<String>, &'static str> {
    if value.is_empty() {
        return Err("it is empty");
    }
    let mut fields = Vec::new();
    let mut rest = value;
    loop {
        let field;
        (field, rest) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                if rest[..end].contains('"') {
                    return Err("a quote stands inside an unquoted field");
                }
                (rest[..end].into(), &rest[end..])
            }
        };
        fields.push(field);
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Ok(fields),
        }
    }
}

fn quoted_field(mut rest: &str) -> Result<(String, &str), &'static str> {
    let mut field = String::new();
    loop {
        let Some((before, after)) = rest.split_once('"') else {
            return Err("a quote is not closed");
        };
        field.push_str(before);
        match after.strip_prefix('"') {
            Some(next) => {
                field.push('"');
                rest = next;
            }
            None if after.is_empty() || after.starts_with(',') => return Ok((field, after)),
            None => return Err("text follows a closing quote"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_commas() {
        assert_eq!(fields(r#"a,"b,""c",d"#).unwrap(), ["a", "b,\"c", "d"]);
        assert_eq!(fields(",").unwrap(), ["", ""]);
        assert_eq!(fields("a,").unwrap(), ["a", ""]);
        assert!(fields("").is_err());
        assert!(fields(r#"a"b"#).is_err());
        assert!(fields(r#""a"b"#).is_err());
        assert!(fields(r#""a"#).is_err());
    }
}
