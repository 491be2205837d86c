//! The stages that can be built: `--call=targets`.

use alloc::{string::String, vec::Vec};
use core::fmt::Write as _;

use parser::ast::Kind;
use serde::Serialize;

use crate::{
    lint::{self, Subject},
    location::Location,
    outline::OutlineError,
};

/// The stages of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Targets {
    /// The stages, in order.
    pub targets: Vec<Target>,
    /// The text of the file.
    #[serde(serialize_with = "crate::outline::sources")]
    pub sources: Vec<String>,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Target {
    /// Its name in lower case; empty for none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// It is what is built without `--target`.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub default: bool,
    /// What the comment above its FROM says.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Its base as written.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub base: String,
    /// `--platform` as written.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub platform: String,
    /// Where its FROM stands.
    pub location: Location,
}

/// Lists the stages of a Dockerfile.
///
/// # Errors
///
/// The file cannot be read to its end.
pub fn targets(subject: &Subject<'_>) -> Result<Targets, OutlineError> {
    lint::check_readable(subject)?;
    let mut targets: Vec<Target> = Vec::new();
    for instruction in &subject.dockerfile.instructions {
        let Kind::From(from) = &instruction.kind else { continue };
        let name = from.name.as_ref().map_or(String::new(), |it| it.value.to_lowercase());
        targets.push(Target {
            description: lint::description(&instruction.comments, &name).unwrap_or_default(),
            name,
            default: false,
            base: from.base.value.clone(),
            platform: from.platform.as_ref().map_or(String::new(), |it| it.value.clone()),
            location: instruction.lines.into(),
        });
    }
    if let Some(last) = targets.last_mut() {
        last.default = true;
    }
    Ok(Targets { targets, sources: alloc::vec![subject.text.into()] })
}

impl Targets {
    /// Writes the list as a person reads it.
    pub fn to_text(&self) -> String {
        let mut rows = alloc::vec![["TARGET".into(), "DESCRIPTION".into()]];
        for target in &self.targets {
            let mut name = if target.name.is_empty() && target.default {
                "(default)".into()
            } else {
                target.name.clone()
            };
            if target.default && !target.name.is_empty() {
                let _ = write!(name, " (default)");
            }
            if !name.is_empty() {
                rows.push([name, target.description.clone()]);
            }
        }
        crate::outline::table(&rows)
    }
}
