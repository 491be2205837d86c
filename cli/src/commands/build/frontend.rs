//! `# syntax=`: which language a file is in. One is built in.

use image::ImageRef;
use planner::request::Request;

use super::execute::shown;
use crate::{
    exit::Exit,
    failure::Result,
    render::{Diagnostic, Severity, Source},
};

/// Images of the language that is built in, whatever their version.
const BUILT_IN: [&str; 2] = ["docker.io/docker/dockerfile", "docker.io/docker/dockerfile-upstream"];

/// Refuses a file that asks for another language than the one that is built in. The build argument `BUILDKIT_SYNTAX`
/// is stronger than the file.
///
/// # Errors
///
/// Fails with the line that asks for it.
pub fn check(source: Source<'_>, request: &Request) -> Result<()> {
    let asked = parser::syntax::detect(source.text);
    let given = request.build_args.get("BUILDKIT_SYNTAX").filter(|it| !it.is_empty());
    let (name, span) = match (given, &asked) {
        (Some(given), _) => (given.split(' ').next().unwrap_or_default(), None),
        (None, Some(asked)) => (asked.reference.as_str(), Some(asked.span)),
        (None, None) => return Ok(()),
    };
    let is_built_in = |it: ImageRef| BUILT_IN.contains(&&*it.repository());
    if name == "dockerfile.v0" || name.parse().is_ok_and(is_built_in) {
        return Ok(());
    }
    let diagnostic = Diagnostic {
        severity: Severity::Error,
        code: "unknown-frontend".to_owned(),
        message: format!(
            "`{name}` is not the language of `docker/dockerfile`, the only one that is known"
        ),
        span,
        hint: Some(
            "if it is a Dockerfile like others, add `--build-arg BUILDKIT_SYNTAX=dockerfile.v0`"
                .to_owned(),
        ),
    };
    Err(shown(source, &[diagnostic], Exit::Input))
}
