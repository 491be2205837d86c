//! `KEY=VALUE` and `KEY`: build arguments, labels, variables, named contexts; and files of them.

/// A name, and a value if one was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The part before `=`.
    pub key: String,
    /// The part behind it.
    pub value: Option<String>,
}

impl Pair {
    /// Returns key and value; a missing value is taken from `lookup`, and no pair comes back where that has none.
    pub fn resolve(self, lookup: impl Fn(&str) -> Option<String>) -> Option<(String, String)> {
        let value = self.value.or_else(|| lookup(&self.key))?;
        Some((self.key, value))
    }
}

/// Parses `KEY[=VALUE]`.
///
/// # Errors
///
/// Returns a message where the key is empty.
pub fn pair(text: &str) -> Result<Pair, String> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (text, None),
    };
    if key.is_empty() {
        return Err(format!("`{text}` has no name before the `=`"));
    }
    Ok(Pair { key: key.to_owned(), value })
}

/// Parses `NAME=VALUE` where both are needed.
///
/// # Errors
///
/// Returns a message where one of them is empty.
pub fn named(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err(format!("`{text}` is not of the form `name=value`")),
    }
}

/// Reads a file of pairs: one per line, blank lines and lines that begin with `#` left out, values taken as they stand.
///
/// # Errors
///
/// Returns the number of the first line that is no pair, and why.
pub fn lines(text: &str) -> Result<Vec<Pair>, (usize, String)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut out = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let parsed = pair(line).map_err(|message| (n + 1, message))?;
        if parsed.key.contains(char::is_whitespace) {
            return Err((n + 1, format!("the name `{}` has blanks in it", parsed.key)));
        }
        out.push(parsed);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_from_the_text_or_the_environment() {
        let lookup = |key: &str| (key == "SET").then(|| "env".to_owned());
        let resolve = |text| pair(text).ok().and_then(|it| it.resolve(lookup));
        assert_eq!(resolve("A=b=c"), Some(("A".to_owned(), "b=c".to_owned())));
        assert_eq!(resolve("A="), Some(("A".to_owned(), String::new())));
        assert_eq!(resolve("SET"), Some(("SET".to_owned(), "env".to_owned())));
        assert_eq!(resolve("UNSET"), None);
        assert!(pair("=x").is_err());
    }

    #[test]
    fn files_of_pairs() {
        let parsed = lines("# c\n\nA=1\n  B\nC=x y #z\n")
            .map(|it| it.into_iter().map(|it| it.key).collect::<Vec<_>>());
        assert_eq!(parsed, Ok(vec!["A".to_owned(), "B".to_owned(), "C".to_owned()]));
        assert_eq!(lines("A=1\nB C=2\n").map_err(|it| it.0), Err(2));
    }
}
