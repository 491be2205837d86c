//! What is wrong or doubtful in a Dockerfile, without building it: `--check` and `--call=check`.
//!
//! Rules, names, texts and places are those of BuildKit's linter, and so is what ends the search: the first mistake
//! that a build would stop at.
//!
//! Read the modules in this order: `rule` for what there is, `config` for what runs, `survey` with `text`, `stage`,
//! `graph`, `base` and `dispatch` for how a file is searched, `wording` for the parser's mistakes in the reference's
//! words, `render` for what a person sees.

mod base;
mod config;
mod dispatch;
mod findings;
mod graph;
mod render;
mod rule;
mod stage;
mod survey;
mod text;
mod wording;

use alloc::{borrow::ToOwned, collections::BTreeSet, string::String, vec::Vec};

use serde::Serialize;

pub use config::{CheckOptions, CheckOptionsError};
pub use findings::Warning;
pub use rule::Rule;
pub use survey::{Images, Subject};
pub use text::is_secret;

pub(crate) use findings::Failure;
pub(crate) use stage::{Stage, description};
pub(crate) use survey::{Survey, survey};

use crate::{facts::ImageQuery, location::Location};

/// What the linter has to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LintReport {
    /// What the rules found.
    pub warnings: Vec<Warning>,
    /// The files that places refer to: the one Dockerfile.
    pub sources: Vec<Source>,
    /// Why a build would fail before its first step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_error: Option<BuildError>,
    /// Base images that were needed and not at hand. With them there may be more to say.
    #[serde(skip)]
    pub missing: BTreeSet<ImageQuery>,
}

/// A file that places refer to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Source {
    /// Its name.
    #[serde(rename = "filename")]
    pub file_name: String,
    /// `Dockerfile`.
    pub language: &'static str,
    /// Its text.
    #[serde(serialize_with = "crate::location::base64")]
    pub data: Vec<u8>,
}

/// Why a build would fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BuildError {
    /// What is wrong, in the reference's words.
    pub message: String,
    /// Where, if it has a place.
    pub location: Location,
}

/// Searches a Dockerfile.
///
/// All stages are looked at, or with [`target`](crate::request::Request::target) those that it needs.
///
/// # Examples
///
/// ```
/// use planner::lint::{Images, Subject, check};
///
/// let text = "FROM scratch as base\n";
/// let (dockerfile, diagnostics) = parser::parse(text);
/// let report = check(
///     &Subject {
///         dockerfile: &dockerfile,
///         diagnostics: &diagnostics,
///         text,
///         request: &Default::default(),
///         ignored: &[],
///         images: &Images::new(),
///     },
///     "Dockerfile",
/// );
/// assert_eq!(report.warnings[0].rule_name, "FromAsCasing");
/// ```
pub fn check(subject: &Subject<'_>, file_name: &str) -> LintReport {
    report(subject, file_name, subject.request.target.is_none())
}

/// Searches what a build of the request reads: the target, which is the last stage unless one is named, and the stages
/// that it needs.
pub fn check_build(subject: &Subject<'_>, file_name: &str) -> LintReport {
    report(subject, file_name, false)
}

fn report(subject: &Subject<'_>, file_name: &str, all: bool) -> LintReport {
    let Survey { warnings, failure, missing, .. } = survey(subject, all);
    LintReport {
        warnings,
        sources: alloc::vec![Source {
            file_name: file_name.to_owned(),
            language: "Dockerfile",
            data: subject.text.as_bytes().to_vec(),
        }],
        build_error: failure.map(|Failure { message, lines }| BuildError {
            message,
            location: lines.map(Into::into).unwrap_or_default(),
        }),
        missing,
    }
}

/// Fails if the reference could not read the file to its end.
pub(crate) fn check_readable(subject: &Subject<'_>) -> Result<(), Failure> {
    let Subject { dockerfile, diagnostics, text, .. } = *subject;
    text::file(diagnostics)?;
    text::instructions(dockerfile, diagnostics, text, &mut findings::Findings::default())
}

impl LintReport {
    /// Returns the exit status of the command: 1 if there is anything to say.
    pub fn status(&self) -> u8 {
        u8::from(!self.warnings.is_empty() || self.build_error.is_some())
    }
}
