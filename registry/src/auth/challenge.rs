//! Reads `WWW-Authenticate`, and knows the scopes of tokens.

use std::collections::{BTreeMap, BTreeSet};

/// How a registry wants to be told who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User name and password in each request.
    Basic,
    /// A token that a token server gives out.
    Bearer {
        /// The address of the token server.
        realm: String,
        /// The registry's name there.
        service: String,
        /// What the registry says is needed.
        scope: Scope,
    },
}

impl Challenge {
    /// Picks from the headers the challenge to answer: a token rather than a password.
    pub(crate) fn parse<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut basic = None;
        for header in headers {
            for (scheme, mut parameters) in challenges(header) {
                if scheme.eq_ignore_ascii_case("basic") {
                    basic = Some(Self::Basic);
                }
                if scheme.eq_ignore_ascii_case("bearer") {
                    let mut take = |key: &str| parameters.remove(key).unwrap_or_default();
                    let scope = Scope::parse(&take("scope"));
                    return Some(Self::Bearer {
                        realm: take("realm"),
                        service: take("service"),
                        scope,
                    });
                }
            }
        }
        basic
    }
}

/// Splits a header value into its challenges, each a scheme and parameters.
///
/// # Source
///
/// RFC 9110, 11.6.1: one header may carry several challenges, separated by the same commas as their parameters.
fn challenges(header: &str) -> Vec<(String, BTreeMap<String, String>)> {
    let mut found: Vec<(String, BTreeMap<String, String>)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            return found;
        }
        let Some(value) = after.trim_start().strip_prefix('=') else {
            found.push((word.to_owned(), BTreeMap::new()));
            rest = after;
            continue;
        };
        let (value, after) = parameter_value(value.trim_start());
        if let Some((_, parameters)) = found.last_mut() {
            parameters.insert(word.to_ascii_lowercase(), value);
        }
        rest = after;
    }
}

fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((position, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[position + 1..]),
            '\\' => value.extend(characters.next().map(|(_, it)| it)),
            other => value.push(other),
        }
    }
    (value, "")
}

/// What a token is good for: actions by resource, `repository:library/busybox` → `pull`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Scope(BTreeMap<String, BTreeSet<String>>);

impl Scope {
    pub(crate) fn pull(repository: &str) -> Self {
        Self::default().and(repository, &["pull"])
    }

    pub(crate) fn push(repository: &str) -> Self {
        Self::default().and(repository, &["pull", "push"])
    }

    /// Returns the scope with these actions on `repository` added.
    pub(crate) fn and(mut self, repository: &str, actions: &[&str]) -> Self {
        let entry = self.0.entry(format!("repository:{repository}")).or_default();
        entry.extend(actions.iter().map(|&it| it.to_owned()));
        self
    }

    pub(crate) fn parse(text: &str) -> Self {
        let mut out = Self::default();
        for item in text.split_whitespace() {
            if let Some((resource, actions)) = item.rsplit_once(':') {
                let actions = actions.split(',').filter(|it| !it.is_empty()).map(str::to_owned);
                out.0.entry(resource.to_owned()).or_default().extend(actions);
            }
        }
        out
    }

    pub(crate) fn union(&self, other: &Self) -> Self {
        let mut out = self.clone();
        for (resource, actions) in &other.0 {
            out.0.entry(resource.clone()).or_default().extend(actions.iter().cloned());
        }
        out
    }

    /// Returns each item as the token server wants it: `repository:a/b:pull,push`.
    pub(crate) fn items(&self) -> Vec<String> {
        let joined = |actions: &BTreeSet<String>| {
            actions.iter().map(String::as_str).collect::<Vec<_>>().join(",")
        };
        self.0.iter().map(|(resource, actions)| format!("{resource}:{}", joined(actions))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_split_and_bearer_is_preferred() {
        let bearer = Challenge::parse(
            [r#"Basic realm="a, b", Bearer realm="https://auth.example/token",service="reg\"x",scope="repository:a/b:pull,push""#]
                .into_iter(),
        );
        assert_eq!(
            bearer,
            Some(Challenge::Bearer {
                realm: "https://auth.example/token".to_owned(),
                service: "reg\"x".to_owned(),
                scope: Scope::push("a/b"),
            })
        );
        assert_eq!(Challenge::parse(["basic realm=x"].into_iter()), Some(Challenge::Basic));
        assert_eq!(Challenge::parse(["Negotiate", "="].into_iter()), None);
        assert_eq!(Challenge::parse([r#"Basic realm="open"#].into_iter()), Some(Challenge::Basic));
    }

    #[test]
    fn scopes_merge_by_resource() {
        let scope = Scope::push("b")
            .and("a", &["pull"])
            .union(&Scope::parse("repository:a:push registry:catalog:*"));
        assert_eq!(
            scope.items(),
            ["registry:catalog:*", "repository:a:pull,push", "repository:b:pull,push"]
        );
    }
}
