//! Causes in words.

use executor::explain::VariableChange;
use executor::explain::{Cause, Difference, Explained, FileChange, State};

use crate::progress::line::{fit, printable};

/// Steps, one line each, with the causes below those that ran.
pub fn steps(steps: &[Explained]) -> String {
    let mut text = String::new();
    let mut is_said = false;
    for step in steps {
        let state = match &step.state {
            State::Hit => "hit",
            State::Done | State::Miss => "miss",
            State::Failed { .. } => "failed",
            State::Unknown { waits_for: Some(_) } => "unknown",
            State::Unknown { waits_for: None } => "-",
        };
        text.push_str(&format!("{state:<7}  {}\n", line(&step.name)));
        if let State::Unknown { waits_for: Some(below) } = step.state
            && let Some(below) = steps.get(below)
        {
            text.push_str(&format!("         runs if {} has another result\n", short(&below.name)));
        }
        for cause in &step.causes {
            // That there is nothing to compare with holds for all steps.
            if *cause == Cause::FirstBuild && std::mem::replace(&mut is_said, true) {
                continue;
            }
            for line in of_cause(cause, &step.causes) {
                text.push_str(&format!("         {line}\n"));
            }
        }
    }
    text
}

/// A text on one line, and without what a terminal would take for a command.
pub fn line(text: &str) -> String {
    printable(text.lines().next().unwrap_or_default())
}

/// The name of a step that is told of below another one, cut where the number and the beginning tell which one it is.
fn short(name: &str) -> String {
    fit(&line(name), 60).0
}

fn quoted(text: &str) -> String {
    format!("`{}`", line(text))
}

fn change(was: &str, now: &str) -> String {
    match (was, now) {
        ("", now) => quoted(now),
        (was, "") => format!("{} → nothing", quoted(was)),
        (was, now) => format!("{} → {}", quoted(was), quoted(now)),
    }
}

/// A cause in one line, or several where it names files. What is one of `others` is not said twice.
fn of_cause(cause: &Cause, others: &[Cause]) -> Vec<String> {
    let one = |it: String| vec![it];
    match cause {
        Cause::FirstBuild => one("first build of this Dockerfile with this context".to_owned()),
        Cause::NewStep => one("new: no earlier build had this step".to_owned()),
        Cause::NoCache { all: true } => one("asked for: --no-cache".to_owned()),
        Cause::NoCache { all: false } => one("asked for: --no-cache-filter".to_owned()),
        Cause::Pruned => {
            one("nothing changed, but its result was removed from the store".to_owned())
        }
        Cause::Unfinished => one("nothing changed, but it did not end the last time".to_owned()),
        Cause::Version => one("another version of kiln made the last result".to_owned()),
        Cause::Instruction { was, now } => {
            vec![
                "the instruction changed:".to_owned(),
                format!("- {}", line(was)),
                format!("+ {}", line(now)),
            ]
        }
        Cause::Command { was, now } => one(format!("the command changed: {}", change(was, now))),
        Cause::Files { source, files, count, because } => {
            let because = because.as_deref().filter(|it| !others.contains(it));
            of_files(source, files, *count, because)
        }
        Cause::Ignore { added, removed } => {
            let added = added.iter().map(|it| format!("+ {}", line(it)));
            let removed = removed.iter().map(|it| format!("- {}", line(it)));
            std::iter::once("the ignore file changed:".to_owned())
                .chain(removed)
                .chain(added)
                .collect()
        }
        Cause::Variable { name, is_arg, was, now, change: how } => {
            let what = if *is_arg { "build argument" } else { "variable" };
            let values = match (was, now) {
                (Some(was), Some(now)) => format!(": `{}` → `{}`", line(was), line(now)),
                (None, Some(now)) => format!(": `{}`", line(now)),
                (Some(was), None) => format!(": it was `{}`", line(was)),
                (None, None) => " (the value is not shown)".to_owned(),
            };
            let how = match how {
                VariableChange::Added => "is new",
                VariableChange::Removed => "is gone",
                VariableChange::Value => "changed",
            };
            one(format!("{what} {} {how}{values}", line(name)))
        }
        Cause::VariableOrder => one("the variables are set in another order".to_owned()),
        Cause::Image { image, was, now } => one(format!(
            "the image {} moved: {} → {}",
            line(image),
            short_digest(was),
            short_digest(now)
        )),
        Cause::ImageName { was, now } => one(format!("another image: {}", change(was, now))),
        Cause::Step { step, causes, .. } => {
            let mut text = vec![format!("{} has another result", short(step))];
            text.extend(causes.iter().flat_map(|it| of_cause(it, &[])).map(|it| format!("  {it}")));
            text
        }
        Cause::RemovedStep { text } => one(format!("no longer there: {}", quoted(text))),
        Cause::Setting { name, was, now } => one(format!("{name} changed: {}", change(was, now))),
        Cause::Parent => one("what it builds on changed".to_owned()),
    }
}

fn of_files(
    source: &str,
    files: &[FileChange],
    count: u64,
    because: Option<&Cause>,
) -> Vec<String> {
    let source = line(source);
    let mut text: Vec<String> = files.iter().map(|it| of_file(&source, it)).collect();
    let n_more = count.saturating_sub(files.len() as u64);
    if n_more > 0 {
        text.push(format!("… and {n_more} more in {source}"));
    }
    if files.is_empty() {
        text.push(format!("files of {source} changed"));
    }
    if let Some(because) = because {
        text.extend(of_cause(because, &[]).into_iter().map(|it| format!("  {it}")));
    }
    text
}

fn of_file(source: &str, file: &FileChange) -> String {
    let path = line(&file.path);
    let place = match source {
        "context" => format!("`{path}`"),
        source if source.starts_with("context ") => format!("`{path}` of {source}"),
        source => format!("`/{path}` of {source}"),
    };
    match &file.change {
        Difference::Added => format!("{place} is new"),
        Difference::Removed => format!("{place} is gone"),
        Difference::Content => format!("{place}: its content changed"),
        Difference::Kind => format!("{place} is another kind of file"),
        Difference::Mode { was, now } => format!("{place}: its mode changed: {was} → {now}"),
        Difference::Owner { was, now } => format!("{place}: its owner changed: {was} → {now}"),
        Difference::Attributes => format!("{place}: its attributes changed"),
    }
}

/// A digest cut to what tells it from others.
fn short_digest(text: &str) -> &str {
    text.get(.."sha256:".len() + 12).unwrap_or(text)
}
