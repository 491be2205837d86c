//! What a build of a stage can be given: `--call=outline`.

use alloc::{
    collections::BTreeSet,
    string::{String, ToString},
    vec::Vec,
};
use core::fmt::Write as _;

use parser::span::Lines;
use serde::{Serialize, Serializer, ser::SerializeSeq as _};

use crate::{
    facts::ImageQuery,
    lint::{self, Failure, Stage, Subject},
    location::Location,
};

/// What a build of the target can be given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outline {
    /// The name of the target.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What the comment above its FROM says.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Its build arguments and those of the stages it needs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<OutlineArg>,
    /// Secrets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<OutlineMount>,
    /// SSH agents.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ssh: Vec<OutlineMount>,
    /// The text of the file.
    #[serde(serialize_with = "sources")]
    pub sources: Vec<String>,
    /// Base images that were needed and not at hand. With them there may be more to say.
    #[serde(skip)]
    pub missing: BTreeSet<ImageQuery>,
}

/// A build argument.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// What the comment above it says.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The value it would have.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// Where it is declared.
    pub location: Location,
}

/// A secret or an SSH agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutlineMount {
    /// Its id.
    pub name: String,
    /// The build fails without it.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub required: bool,
    /// Where it is used first.
    pub location: Location,
}

/// Why there is no outline, in the reference's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct OutlineError {
    /// What is wrong.
    pub message: String,
    /// Where, if it has a place.
    pub lines: Option<Lines>,
}

impl From<Failure> for OutlineError {
    fn from(Failure { message, lines }: Failure) -> Self {
        Self { message, lines }
    }
}

/// Says what a build of the request's target can be given.
///
/// # Errors
///
/// The build would fail before its first step.
pub fn outline(subject: &Subject<'_>) -> Result<Outline, OutlineError> {
    let mut survey = lint::survey(subject, false);
    if let Some(failure) = survey.failure {
        return Err(failure.into());
    }
    // The target, what it starts from, and what it takes files from.
    let mut order = alloc::vec![survey.target];
    let mut known = BTreeSet::from([survey.target]);
    let mut done = 0;
    while let Some(&stage_idx) = order.get(done) {
        done += 1;
        for next in survey.stages[stage_idx].neighbours() {
            if known.insert(next) {
                order.push(next);
            }
        }
    }
    let mut outline = Outline {
        name: String::new(),
        description: String::new(),
        args: Vec::new(),
        secrets: Vec::new(),
        ssh: Vec::new(),
        sources: alloc::vec![subject.text.into()],
        missing: survey.missing,
    };
    if let Some(Stage { name, description, .. }) = survey.stages.get(survey.target) {
        outline.name = name.clone().unwrap_or_default();
        outline.description = description.clone().unwrap_or_default();
    }
    let mut seen = BTreeSet::new();
    let [mut secrets, mut agents] = [BTreeSet::new(), BTreeSet::new()];
    for stage_idx in order {
        let capture = &mut survey.stages[stage_idx].capture;
        capture.close();
        for name in &capture.used_args {
            let Some(arg) = capture.args.get(name) else { continue };
            if seen.insert(name.clone()) {
                outline.args.push(OutlineArg {
                    name: name.clone(),
                    description: arg.description.clone().unwrap_or_default(),
                    value: arg.value.clone(),
                    location: arg.lines.into(),
                });
            }
        }
        for (mounts, seen, found) in [
            (&capture.secrets, &mut secrets, &mut outline.secrets),
            (&capture.ssh, &mut agents, &mut outline.ssh),
        ] {
            for (name, &(required, lines)) in mounts {
                if seen.insert(name.clone()) {
                    found.push(OutlineMount {
                        name: name.clone(),
                        required,
                        location: lines.into(),
                    });
                }
            }
        }
    }
    outline.args.sort_by_key(|it| it.location.line());
    outline.secrets.sort_by_key(|it| it.location.line());
    outline.ssh.sort_by_key(|it| it.location.line());
    Ok(outline)
}

impl Outline {
    /// Writes the outline as a person reads it.
    pub fn to_text(&self) -> String {
        let mut head = Vec::new();
        for (label, value) in [("TARGET:", &self.name), ("DESCRIPTION:", &self.description)] {
            if !value.is_empty() {
                head.push([label.to_string(), value.clone()]);
            }
        }
        let mut out = String::new();
        if !head.is_empty() {
            out = columns(&head, 1);
            out.push('\n');
        }
        if !self.args.is_empty() {
            let mut rows = alloc::vec![["BUILD ARG", "VALUE", "DESCRIPTION"].map(String::from)];
            rows.extend(
                self.args
                    .iter()
                    .map(|it| [it.name.clone(), it.value.clone(), it.description.clone()]),
            );
            out.push_str(&table(&rows));
            out.push('\n');
        }
        for (label, mounts) in [("SECRET", &self.secrets), ("SSH", &self.ssh)] {
            if !mounts.is_empty() {
                let mut rows = alloc::vec![[label.to_string(), "REQUIRED".to_string()]];
                rows.extend(mounts.iter().map(|it| {
                    [it.name.clone(), if it.required { "true".into() } else { String::new() }]
                }));
                out.push_str(&table(&rows));
                out.push('\n');
            }
        }
        out
    }
}

/// Writes rows in columns, three blanks apart.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    columns(rows, 3)
}

fn columns<const N: usize>(rows: &[[String; N]], gap: usize) -> String {
    let width = |column: usize| rows.iter().map(|it| it[column].chars().count()).max();
    let mut widths: [usize; N] =
        core::array::from_fn(|column| width(column).unwrap_or_default() + gap);
    widths[N - 1] = 0;
    let mut out = String::new();
    for row in rows {
        for (cell, width) in row.iter().zip(widths) {
            // Writing to a String cannot fail.
            let _ = write!(out, "{cell:width$}");
        }
        out.push('\n');
    }
    out
}

/// Writes texts as a list of base64.
pub(crate) fn sources<S: Serializer>(texts: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    struct Base64<'a>(&'a str);

    impl Serialize for Base64<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            crate::location::base64(self.0.as_bytes(), serializer)
        }
    }

    let mut list = serializer.serialize_seq(Some(texts.len()))?;
    for text in texts {
        list.serialize_element(&Base64(text))?;
    }
    list.end()
}
