//! "Did you mean …?"

use alloc::{string::String, vec::Vec};

/// Typing errors up to this many letters apart are worth a suggestion.
const MAX_DISTANCE: usize = 2;

/// Returns the option nearest to `word`, if one is near enough and none is equal.
///
/// Of equally near options the first wins.
///
/// # Examples
///
/// ```
/// let names = ["ADD", "COPY", "FROM"];
/// assert_eq!(parser::suggest::suggest("FORM", names.into_iter(), false), Some("FROM"));
/// assert_eq!(parser::suggest::suggest("copy", names.into_iter(), false), None);
/// ```
pub fn suggest<'a>(
    word: &str,
    options: impl Iterator<Item = &'a str>,
    case_sensitive: bool,
) -> Option<&'a str> {
    let fold = |it: &str| -> Vec<char> {
        if case_sensitive { it.chars().collect() } else { it.to_lowercase().chars().collect() }
    };
    let word = fold(word);
    let mut best = None;
    let mut limit = MAX_DISTANCE;
    for option in options {
        let candidate = fold(option);
        match distance(&word, &candidate, limit) {
            Some(0) => return None,
            Some(found) => {
                // From now on only nearer ones count.
                limit = found - 1;
                best = Some(option);
            }
            None => {}
        }
    }
    best
}

/// Returns `suggestion` in the case that `word` is written in.
pub fn like(word: &str, suggestion: &str) -> String {
    if word.chars().any(char::is_uppercase) { suggestion.into() } else { suggestion.to_lowercase() }
}

/// Returns the edit distance if it is at most `limit`.
fn distance(a: &[char], b: &[char], limit: usize) -> Option<usize> {
    if a.len().abs_diff(b.len()) > limit {
        return None;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.iter().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().filter(|it| *it <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        let cases = [("", "", 0), ("app", "app", 0), ("ap", "app", 1), ("pap", "app", 2)];
        for (a, b, expected) in cases {
            let chars = |it: &str| -> Vec<char> { it.chars().collect() };
            assert_eq!(distance(&chars(a), &chars(b), 2), Some(expected), "{a} {b}");
            assert_eq!(distance(&chars(a), &chars("wxyz"), 2), None, "{a}");
        }
    }
}
