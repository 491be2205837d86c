//! `--call` and `--check`: a question is answered, nothing is built.
//!
//! JSON is what `docker buildx build --call=…,format=json` prints, so that programs that read the one can read the other.
//! For people there are lists, and the lines that findings are about. The answer goes to standard output.
//!
//! | question | answer | status |
//! |---|---|---|
//! | `check` | what the lint finds, and why a build would fail | 1 if there is anything |
//! | `outline` | arguments, secrets and SSH agents of the target | |
//! | `targets` | the stages | |
//! | `context` | the paths that COPY can see | |

use std::collections::{BTreeSet, HashSet};

use anyhow::Context as _;
use executor::{ExecutorError, Session};
use parser::span::{Lines, Span};
use planner::{
    facts::{Facts, ImageOrigin, ImageQuery, Need},
    lint::{self, Images, LintReport, Subject},
    outline::{self, OutlineError},
    targets,
};
use serde::Serialize;
use serde_json::json;

use super::{
    execute::{self, Opened},
    job::Job,
};
use crate::{
    commands::Globals,
    exit::Exit,
    failure::{Failure, OrFail, Result},
    print,
    progress::Progress,
    render::{Diagnostic, Severity, Source},
    values::{Format, Question},
};

/// What is said.
struct Answer {
    /// For standard output.
    text: Vec<u8>,
    /// For standard error, and how it ends.
    end: Result<Exit>,
}

/// Answers the question of `--call`.
///
/// # Errors
///
/// Fails where the Dockerfile is so wrong that there is no answer, or the context cannot be read.
pub fn run(job: &mut Job, globals: &Globals) -> Result<Exit> {
    let progress = Progress::start(job.progress).context("cannot start the display").or_failed()?;
    let answer = execute::with_session(job, globals, progress.listener(), answer);
    progress.finish();
    let Answer { text, end } = answer?;
    print::bytes(&text)?;
    end
}

fn answer(job: &mut Job, session: &mut Session) -> Result<Answer> {
    let Opened { name, text, ignore } = execute::contexts(job, session)?;
    if job.call.question == Question::Context {
        let paths = paths(session, job.call.format)?;
        return Ok(Answer { text: paths, end: Ok(Exit::Done) });
    }
    let source = Source { name: &name, text: &text };
    let (dockerfile, diagnostics) = parser::parse(&text);
    let (none, ignored) = (Images::new(), ignore.texts());
    let refused = |error: OutlineError| refused(source, &diagnostics, &error.message, error.lines);
    let is_json = job.call.format == Format::Json;
    let mut report: Option<LintReport> = None;
    let mut answers: Vec<(String, String)> = Vec::new();
    for request in &job.requests {
        let subject = Subject {
            dockerfile: &dockerfile,
            diagnostics: &diagnostics,
            text: &text,
            request,
            ignored: &ignored,
            images: &none,
        };
        let answer = match job.call.question {
            Question::Check => {
                let of_platform = with_images(session, |images| {
                    let report = lint::check(&Subject { images, ..subject }, file_name(&name));
                    let missing = report.missing.clone();
                    (report, missing)
                })?;
                match &mut report {
                    Some(report) => add(report, of_platform),
                    none => *none = Some(of_platform),
                }
                continue;
            }
            Question::Outline => {
                let outline = with_images(session, |images| {
                    let outline = outline::outline(&Subject { images, ..subject });
                    let missing = outline.as_ref().map(|it| it.missing.clone()).unwrap_or_default();
                    (outline, missing)
                })?
                .map_err(refused)?;
                if is_json { pretty(&outline) } else { outline.to_text() }
            }
            Question::Targets | Question::Build | Question::Context => {
                let targets = targets::targets(&subject).map_err(refused)?;
                if is_json { pretty(&targets) } else { targets.to_text() }
            }
        };
        answers.push((request.platform.to_string(), answer));
    }
    if let Some(report) = report {
        return Ok(check(&report, is_json, |message, lines| {
            refused_check(source, &diagnostics, message, lines)
        }));
    }
    Ok(Answer { text: joined(answers, is_json).into_bytes(), end: Ok(Exit::Done) })
}

/// Adds to the findings for one platform those for another.
fn add(report: &mut LintReport, other: LintReport) {
    let mut seen: HashSet<_> =
        report.warnings.iter().map(|it| (it.rule_name, it.detail.clone(), it.location)).collect();
    for warning in other.warnings {
        if seen.insert((warning.rule_name, warning.detail.clone(), warning.location)) {
            report.warnings.push(warning);
        }
    }
    report.build_error = report.build_error.take().or(other.build_error);
}

/// The answers for all platforms: one where they are equal, else each under the name of its platform.
fn joined(mut answers: Vec<(String, String)>, is_json: bool) -> String {
    let Some(((_, first), others)) = answers.split_first() else { return String::new() };
    if others.iter().all(|(_, it)| it == first) {
        return answers.swap_remove(0).1;
    }
    if is_json {
        let of_platform: Vec<String> = answers
            .iter()
            .map(|(platform, json)| {
                format!("  \"{platform}\": {}", json.trim_end().replace('\n', "\n  "))
            })
            .collect();
        return format!("{{\n{}\n}}\n", of_platform.join(",\n"));
    }
    let texts: Vec<String> = answers
        .iter()
        .map(|(platform, text)| format!("PLATFORM:              {platform}\n\n{}\n", text.trim()))
        .collect();
    texts.join("\n")
}

/// The name of the Dockerfile as answers give it: without its folder.
fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn check(
    report: &LintReport,
    is_json: bool,
    refused: impl FnOnce(&str, Option<Lines>) -> Failure,
) -> Answer {
    let findings = match report.warnings.len() {
        0 if report.build_error.is_some() => String::new(),
        0 => "Check complete, no warnings found.\n".to_owned(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        n_warnings => format!("Check complete, {n_warnings} warnings have been found!\n"),
    };
    let text = if is_json { pretty(report) } else { findings + &report.to_text() };
    let end = match &report.build_error {
        Some(error) => {
            let (first, last) = (error.location.line(), error.location.last_line());
            Err(refused(&error.message, (first > 0).then_some(Lines { first, last })))
        }
        None if report.warnings.is_empty() => Ok(Exit::Done),
        None => Ok(Exit::Failed),
    };
    Answer { text: text.into_bytes(), end }
}

/// Asks again and again, with the base images that were missing, until none is.
///
/// # Errors
///
/// The user stops it. That an image cannot be had is no error here but a part of the answer.
fn with_images<T>(
    session: &Session,
    mut ask: impl FnMut(&Images) -> (T, BTreeSet<ImageQuery>),
) -> Result<T> {
    let mut images = Images::new();
    loop {
        let (answer, missing) = ask(&images);
        if missing.is_empty() {
            return Ok(answer);
        }
        for query in missing {
            let config = image(session, &query)?;
            images.insert(query, config);
        }
    }
}

fn image(
    session: &Session,
    query: &ImageQuery,
) -> Result<std::result::Result<image::document::ImageConfig, String>> {
    let mut facts = Facts::default();
    let message = match session.look_up(&[Need::Image(query.clone())], &mut facts) {
        Ok(()) => match facts.images.remove(query) {
            Some(fact) => return Ok(Ok(fact.config)),
            None => "not found".to_owned(),
        },
        Err((_, error @ ExecutorError::Canceled)) => return Err(execute::failed(error)),
        Err((_, error)) => executor::message(&error),
    };
    let name = match &query.origin {
        ImageOrigin::Reference(reference) => reference.to_string(),
        ImageOrigin::OciLayout(layout) => format!("oci-layout://{layout}"),
    };
    Ok(Err(format!("failed to resolve source metadata for {name}: {message}")))
}

/// Says why there is no answer: with our own words where the text is wrong, else with those of the search.
fn refused(
    source: Source<'_>,
    mistakes: &[parser::Diagnostic],
    message: &str,
    lines: Option<Lines>,
) -> Failure {
    if !mistakes.is_empty() {
        let diagnostics: Vec<Diagnostic> = mistakes.iter().map(Diagnostic::from).collect();
        return execute::shown(source, &diagnostics, Exit::Input);
    }
    let diagnostic = Diagnostic {
        severity: Severity::Error,
        code: "build-error".to_owned(),
        message: message.to_owned(),
        span: lines.map(|it| span(source.text, it)),
        hint: None,
    };
    execute::shown(source, &[diagnostic], Exit::Input)
}

/// The same for `check`, which has an answer all the same: what a program sees is that there are findings.
fn refused_check(
    source: Source<'_>,
    mistakes: &[parser::Diagnostic],
    message: &str,
    lines: Option<Lines>,
) -> Failure {
    refused(source, mistakes, message, lines).exit(Exit::Failed)
}

/// The bytes of some lines.
fn span(text: &str, lines: Lines) -> Span {
    let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1));
    let starts: Vec<usize> = starts.chain([text.len()]).collect();
    let start_of = |line: u32| starts[(line as usize).min(starts.len() - 1)];
    Span::new(start_of(lines.first.saturating_sub(1)), start_of(lines.last))
}

fn paths(session: &Session, format: Format) -> Result<Vec<u8>> {
    let paths = match session.contexts.get("context") {
        Some(context) => context.paths().map_err(execute::failed)?,
        None => Vec::new(),
    };
    Ok(match format {
        Format::Json => {
            let paths: Vec<_> = paths.iter().map(|it| String::from_utf8_lossy(it)).collect();
            pretty(&json!({ "paths": paths })).into_bytes()
        }
        Format::Text => paths.into_iter().flat_map(|it| it.into_iter().chain(*b"\n")).collect(),
    })
}

fn pretty(value: &impl Serialize) -> String {
    // Maps with string keys only: this cannot fail.
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}
