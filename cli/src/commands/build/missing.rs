//! Why the source of a COPY is not there, as far as that can be guessed: a variable without a value, a letter that is wrong.

use executor::{ExecutorError, Session, StepError};

use crate::render::Diagnostic;

/// Says in the hint what may be behind a source that was not found.
pub(super) fn with_reason(
    mistake: Diagnostic,
    error: &StepError,
    text: &str,
    session: &Session,
) -> Diagnostic {
    let ExecutorError::NotFound { path } = &*error.source else { return mistake };
    let written = error.span.and_then(|it| text.get(it.start()..it.end())).unwrap_or_default();
    let leads_out = written.split('/').any(|it| it == "..").then(|| {
        "nothing above the build context can be copied: name a larger folder as context, and the Dockerfile with -f"
            .to_owned()
    });
    let hint = without_value(written, path).or(leads_out).or_else(|| {
        let near = session.contexts.get("context")?.near(path)?;
        Some(format!("did you mean `{near}`?"))
    });
    Diagnostic { hint: hint.or(mistake.hint), ..mistake }
}

/// Names the variables of a word if it became what it became because they have no value.
fn without_value(written: &str, path: &str) -> Option<String> {
    let (mut rest, mut plain, mut names) = (written, String::new(), Vec::new());
    while let Some((before, after)) = rest.split_once('$') {
        plain.push_str(before);
        let (name, behind) = match after.strip_prefix('{') {
            Some(inside) => inside.split_once('}')?,
            None => {
                let end = after.find(|it: char| !it.is_ascii_alphanumeric() && it != '_');
                after.split_at(end.unwrap_or(after.len()))
            }
        };
        names.push(format!("`${name}`"));
        rest = behind;
    }
    plain.push_str(rest);
    let parts = |path: &str| -> Vec<String> {
        path.split('/').filter(|it| !matches!(*it, "" | ".")).map(str::to_owned).collect()
    };
    if names.is_empty() || parts(&plain) != parts(path) {
        return None;
    }
    let have = if names.len() == 1 { "has" } else { "have" };
    Some(format!("{} {have} no value here, so that `{written}` is `{path}`", names.join(" and ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_without_a_value_are_named() {
        for (written, path, hint) in [
            ("${SRC}/main.c", "/main.c", Some("`$SRC` has no value here")),
            ("a/$A$B/c", "/a/c", Some("`$A` and `$B` have no value here")),
            ("${SRC}/main.c", "/src/main.c", None),
            ("main.c", "/main.c", None),
            ("${A", "/", None),
        ] {
            let found = without_value(written, path);
            assert_eq!(found.is_some(), hint.is_some(), "{written}");
            assert!(found.unwrap_or_default().starts_with(hint.unwrap_or_default()), "{written}");
        }
    }
}
