//! The flags of an instruction, checked against those it has.

use alloc::{borrow::ToOwned, format, vec::Vec};

use crate::{ast::Text, error::Mistake, report::Report, suggest, words::Flag};

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// Nothing, `true` or `false`.
    Switch,
    /// One value, once.
    One,
    /// One value, any number of times.
    Many,
}

/// The flags that an instruction has.
pub(crate) type Known = &'static [(&'static str, Takes)];

/// Flags that were found good.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    values: Vec<(&'static str, Text)>,
}

impl Flags {
    /// Checks flags against the known ones. Bad ones are reported and left out.
    pub(crate) fn check(
        flags: Vec<Flag>,
        known: Known,
        keyword: &str,
        report: &mut Report,
    ) -> Self {
        let mut values: Vec<(&'static str, Text)> = Vec::new();
        let mut seen = Vec::new();
        for flag in flags {
            let name = flag.name.value;
            let Some((key, takes)) = known.iter().copied().find(|it| it.0 == name) else {
                let hint = suggest::suggest(&name, known.iter().map(|it| it.0), true)
                    .map(|it| format!("did you mean `--{it}`?"));
                let kind = Mistake::UnknownFlag { keyword: keyword.to_owned(), flag: name };
                report.hinted(kind, flag.name.span, hint);
                continue;
            };
            if takes != Takes::Many {
                if seen.contains(&key) {
                    report.add(Mistake::DuplicateFlag { flag: name }, flag.text.span);
                    continue;
                }
                seen.push(key);
            }
            let value = match (takes, flag.value) {
                (Takes::Switch, None) => Text { value: "true".into(), span: flag.text.span },
                (Takes::Switch, Some(value)) if value.value.is_empty() => {
                    report.add(Mistake::MissingFlagValue { flag: name }, flag.text.span);
                    continue;
                }
                (Takes::Switch, Some(value)) => match value.value.to_lowercase().as_str() {
                    "true" | "false" => Text { value: value.value.to_lowercase(), ..value },
                    _ => {
                        let kind = Mistake::InvalidSwitch { flag: name, value: value.value };
                        report.add(kind, value.span);
                        continue;
                    }
                },
                (_, Some(value)) => value,
                (_, None) => {
                    let hint = Some(format!("write it as `--{name}=VALUE`"));
                    report.hinted(Mistake::MissingFlagValue { flag: name }, flag.text.span, hint);
                    continue;
                }
            };
            values.push((key, value));
        }
        Self { values }
    }

    /// Returns the value of a flag, if it is given.
    pub(crate) fn get(&self, name: &str) -> Option<&Text> {
        self.values.iter().find(|it| it.0 == name).map(|it| &it.1)
    }

    /// Returns the value of a flag; an empty one is none.
    pub(crate) fn one(&self, name: &str) -> Option<Text> {
        self.get(name).filter(|it| !it.value.is_empty()).cloned()
    }

    /// Returns all values of a flag.
    pub(crate) fn many(&self, name: &str) -> Vec<Text> {
        self.values.iter().filter(|it| it.0 == name).map(|it| it.1.clone()).collect()
    }

    /// Returns what a switch says, if it is given.
    pub(crate) fn switch(&self, name: &str) -> Option<bool> {
        self.get(name).map(|it| it.value == "true")
    }
}
