//! What the lint says of a file that is being built: after the build in a few lines, with `error=true` instead of it.
//!
//! `--check` is another matter, see [`call`](super::call): it looks at all stages and shows the lines.

use std::{collections::HashSet, fmt::Write};

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
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
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
            if seen.insert((warning.rule_name, warning.detail.clone(), warning.location)) {
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

/// Says which `--build-arg` nothing can use: no ARG has its name, and no trigger of a base image may bring one.
pub fn unused_args(request: &Request, declared: &[String], facts: &Facts) -> Vec<String> {
    if facts.images.values().any(|it| !it.config.config.on_build.is_empty()) {
        return Vec::new();
    }
    let is_for_all = |name: &str| {
        let upper = name.to_ascii_uppercase();
        upper.ends_with("_PROXY") || upper.starts_with("BUILDKIT_") || name == "SOURCE_DATE_EPOCH"
    };
    let unused = request.build_args.keys().filter(|it| !declared.contains(it) && !is_for_all(it));
    let say = |name: &String| {
        let near = parser::suggest::suggest(name, declared.iter().map(String::as_str), true);
        let near = near.map(|it| format!(": did you mean `{it}`?")).unwrap_or_default();
        format!("build argument `{name}` is in no ARG of the Dockerfile{near}")
    };
    unused.map(say).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, args: &[(&str, &str)], is_over: bool) -> (Vec<String>, bool) {
        let (dockerfile, diagnostics) = parser::parse(text);
        let pair = |it: &(&str, &str)| (it.0.to_owned(), it.1.to_owned());
        let request = Request { build_args: args.iter().map(pair).collect(), ..Request::default() };
        let subject = Subject {
            dockerfile: &dockerfile,
            diagnostics: &diagnostics,
            text,
            request: &request,
            ignored: &[],
            images: &Images::new(),
        };
        let requests = [request.clone(), request.clone()];
        let warnings = of_build(&subject, &requests, &Facts::default(), is_over);
        let is_refused = refuse(&subject, &warnings).is_err();
        (warnings.iter().map(line).collect(), is_refused)
    }

    #[test]
    fn each_finding_is_named_once() {
        let text = "FROM scratch AS unused\nWORKDIR a\nFROM scratch AS Used\n";
        let used = "StageNameCasing: Stage name 'Used' should be lowercase (line 3)".to_owned();
        assert_eq!(found(text, &[], false), (vec![used.clone()], false));
        let check = |value| found(text, &[("BUILDKIT_DOCKERFILE_CHECK", value)], false);
        assert_eq!(check("error=true"), (vec![used.clone()], true));
        assert_eq!(check("error=true;skip=all"), (vec![], false));
        assert_eq!(check("frob"), (vec![], true));
        let text = format!("# check=error=true\n{text}");
        assert!(found(&text, &[], false).1);
        assert!(!found(&text, &[("BUILDKIT_DOCKERFILE_CHECK", "error=false")], false).1);
    }

    #[test]
    fn what_an_image_would_say_is_not_missed_where_there_is_none() {
        let text = "FROM base\nWORKDIR a\n";
        assert_eq!(found(text, &[], true).0.len(), 0);
        assert_eq!(found(text, &[], false).0.len(), 1);
    }

    #[test]
    fn summaries() {
        let (dockerfile, diagnostics) = parser::parse("FROM scratch as A\n");
        let subject = Subject {
            dockerfile: &dockerfile,
            diagnostics: &diagnostics,
            text: "",
            request: &Request::default(),
            ignored: &[],
            images: &Images::new(),
        };
        let warnings = of_build(&subject, &[Request::default()], &Facts::default(), false);
        assert!(
            summary(&warnings, false)
                .starts_with("\n 2 warnings found (use --check to expand):\n - ")
        );
        assert!(summary(&warnings[..1], true).starts_with("\n \u{1b}[33m1 warning found ("));
        assert_eq!(summary(&[], true), "");
    }
}
