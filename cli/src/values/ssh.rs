//! `--ssh`: which agent or keys RUN lines may use.

use std::path::PathBuf;

/// One `--ssh`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ssh {
    /// What RUN lines call it.
    pub id: String,
    /// The agent's socket or key files; none means the agent of `SSH_AUTH_SOCK`.
    pub paths: Vec<PathBuf>,
}

/// Parses `default`, `ID`, or `ID=PATH[,PATH]`.
///
/// # Errors
///
/// Returns a message where the id is missing.
pub fn ssh(text: &str) -> Result<Ssh, String> {
    let (id, paths) = match text.split_once('=') {
        Some((id, paths)) => {
            (id, paths.split(',').filter(|it| !it.is_empty()).map(PathBuf::from).collect())
        }
        None => (text, Vec::new()),
    };
    if id.is_empty() {
        return Err(format!("`{text}` has no id; say `default` or `id=path`"));
    }
    Ok(Ssh { id: id.to_owned(), paths })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        assert_eq!(ssh("default"), Ok(Ssh { id: "default".to_owned(), paths: vec![] }));
        assert_eq!(
            ssh("git=a,b"),
            Ok(Ssh { id: "git".to_owned(), paths: vec!["a".into(), "b".into()] })
        );
        assert!(ssh("=a").is_err() && ssh("").is_err());
    }
}
