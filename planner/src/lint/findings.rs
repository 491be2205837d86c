//! Collects findings.

use alloc::{collections::BTreeSet, string::String, vec::Vec};

use parser::{ast::Comment, span::Lines};
use serde::Serialize;

use super::{config::CheckOptions, rule::Rule};
use crate::location::Location;

/// Something a rule found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Warning {
    /// The rule.
    pub rule_name: &'static str,
    /// What the rule is about.
    pub description: &'static str,
    /// Where to read more; may be empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub url: String,
    /// What was found.
    pub detail: String,
    /// Where.
    pub location: Location,
}

/// Why a build would fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) lines: Option<Lines>,
}

/// The findings so far, and which are wanted.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) options: CheckOptions,
    pub(super) warnings: Vec<Warning>,
    pub(super) rules: BTreeSet<&'static str>,
}

impl Findings {
    /// Adds what a rule found, unless the options or the comments above the instruction turn the rule off.
    pub(super) fn add(&mut self, rule: Rule, comments: &[Comment], lines: Lines, detail: String) {
        if !self.options.runs(rule) || CheckOptions::is_skipped(comments, rule) {
            return;
        }
        self.rules.insert(rule.name());
        self.warnings.push(Warning {
            rule_name: rule.name(),
            description: rule.description(),
            url: rule.url(),
            detail,
            location: lines.into(),
        });
    }
}
