//! What the lint says of a file that is being built: after the build in a few lines, with `error=true` instead of it.
//!
//! `--check` is another matter, see [`call`](super::call): it looks at all stages and shows the lines.

use std::fmt::Write;

use anyhow::anyhow;
use planner::{
    facts::Facts,
    lint::{self, CheckOptions, Images, Subject, Warning},
    request::Request,
};

use crate::failure::{Failure, Result};

/// Searches what the requests build, and returns each finding once.
///
/// Base images that are not in `facts` count as empty; or, where the build `is_over` already, as not to be had: then the
/// search ends where the build did, and nothing is reported for want of their variables.
pub fn of_build(
    subject: &Subject<'_>,
    requests: &[Request],
    facts: &Facts,
    is_over: bool,
) -> Vec<Warning> {
    let known = facts.images.iter().map(|(query, fact)| (query.clone(), Ok(fact.config.clone())));
    let mut images: Images = known.collect();
    let mut found = Vec::new();
    for request in requests {
        let warnings = loop {
            let subject = Subject { request, images: &images, ..*subject };
            let report = lint::check_build(&subject, "");
            if report.missing.is_empty() || !is_over {
                break report.warnings;
            }
            images.extend(report.missing.into_iter().map(|it| (it, Err("not found".to_owned()))));
        };
        for warning in warnings {
            if !found.contains(&warning) {
                found.push(warning);
            }
        }
    }
    found
}

/// Fails if the file or the request says that findings are errors.
///
/// # Errors
///
/// They do and there are findings, or what they say cannot be understood.
pub fn refuse(subject: &Subject<'_>, warnings: &[Warning]) -> Result<()> {
    let options = CheckOptions::of(subject.dockerfile, subject.request).map_err(|error| {
        Failure::input(anyhow!("failed to parse check options: {error}")).hint(
            "known are `skip=RULE,…`, `experimental=RULE,…` and `error=true`, with `;` between",
        )
    })?;
    if !options.error || warnings.is_empty() {
        return Ok(());
    }
    let mut rules: Vec<&str> = warnings.iter().map(|it| it.rule_name).collect();
    rules.sort_unstable();
    rules.dedup();
    let rules = rules.join(", ");
    Err(Failure::input(anyhow!("lint violation found for rules: {rules}"))
        .hint("`--check` shows where; `# check=error=true` makes these findings errors"))
}

/// One finding in one line.
pub fn line(warning: &Warning) -> String {
    let Warning { rule_name, detail, location, .. } = warning;
    match location.line() {
        0 => format!("{rule_name}: {detail}"),
        line => format!("{rule_name}: {detail} (line {line})"),
    }
}

/// What is said after a build; nothing if nothing was found.
pub fn summary(warnings: &[Warning], colour: bool) -> String {
    let title = match warnings.len() {
        0 => return String::new(),
        1 => "1 warning found".to_owned(),
        n_warnings => format!("{n_warnings} warnings found"),
    };
    let (yellow, plain) = if colour { ("\x1b[33m", "\x1b[0m") } else { ("", "") };
    let mut out = format!("\n {yellow}{title} (use --check to expand):{plain}\n");
    for warning in warnings {
        // Writing to a String cannot fail.
        let _ = writeln!(out, " - {}", line(warning));
    }
    out
}
