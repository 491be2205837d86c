//! Git sources of ADD: the flags against the query of the URL.

use alloc::{borrow::ToOwned, string::ToString};

use parser::{ast, span::Span};

use crate::{
    error::{PlanError, PlanErrorKind},
    git_url::GitRef,
    plan::GitSource,
};

/// Joins what the URL says and what the flags say; they must not contradict each other.
pub(super) fn source(
    url: GitRef,
    add: &ast::Add,
    checksum: Option<&str>,
    written: &str,
    span: Span,
) -> Result<GitSource, PlanError> {
    let conflict =
        |flag| PlanError::new(PlanErrorKind::GitConflict { flag, url: written.to_owned() }, span);
    let keep_git_dir = match (add.keep_git_dir, url.keep_git_dir) {
        (Some(flag), Some(query)) if flag != query => return Err(conflict("--keep-git-dir")),
        (flag, query) => flag.or(query).unwrap_or(false),
    };
    let checksum = match (checksum, Some(url.checksum.as_str()).filter(|it| !it.is_empty())) {
        (Some(flag), Some(query)) if flag != query => return Err(conflict("--checksum")),
        (flag, query) => flag.or(query).map(ToString::to_string),
    };
    if let Some(checksum) = &checksum
        && !(checksum.len() >= 7
            && checksum.len() <= 64
            && checksum.bytes().all(|it| it.is_ascii_hexdigit()))
    {
        let message = "a commit is 7 to 64 hexadecimal digits".to_owned();
        let kind = PlanErrorKind::InvalidChecksum { text: checksum.clone(), message };
        return Err(PlanError::new(kind, span));
    }
    Ok(GitSource { url, keep_git_dir, checksum })
}
