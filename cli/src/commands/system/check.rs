//! `kiln system check`.

use std::path::{Path, PathBuf};

use cache::{CheckOptions, CheckReport, Outcome, Problem, ProblemKind, Store, StoreError};
use serde_json::json;

use crate::{
    args::system::CheckArgs,
    commands::Globals,
    exit::Exit,
    failure::{Failure, OrFail, Result},
    print,
    values::{Format, size::show},
};

/// So many users of something damaged are named.
const N_SHOWN_USERS: usize = 5;

/// Looks through the store, and takes away what is damaged if that is wanted.
///
/// # Errors
///
/// Fails where something cannot be read for another reason than that it is damaged.
pub fn run(args: &CheckArgs, globals: &Globals) -> Result<Exit> {
    let report = match globals.store() {
        Ok(store) => store.check(CheckOptions { repair: args.repair }).or_failed()?,
        Err(failure) => without_format(args, globals, failure)?,
    };
    let text = match args.format {
        Format::Json => json(&report),
        Format::Text => text(&report, args.repair),
    };
    print::out(&text)?;
    Ok(if report.is_sound() { Exit::Done } else { Exit::Failed })
}

/// Goes on with a store whose format cannot be read, after putting that right if it is wanted.
fn without_format(args: &CheckArgs, globals: &Globals, failure: Failure) -> Result<CheckReport> {
    let root = globals.store_root(&globals.config()?)?;
    let unknown = match Store::open(&root) {
        Err(error @ (StoreError::UnknownFormat { .. } | StoreError::NotAStore { .. })) => error,
        _ => return Err(failure),
    };
    let mut problem = Problem {
        kind: ProblemKind::Format,
        path: "version".into(),
        reason: unknown.to_string(),
        used_by: vec!["the whole store".to_owned()],
        outcome: Outcome::Found,
    };
    let mut report = CheckReport::default();
    if !Store::is_damaged(&root) {
        return Err(failure);
    }
    if args.repair && Store::repair_format(&root).or_failed()? {
        problem.outcome = Outcome::Repaired;
        report = globals.store()?.check(CheckOptions { repair: true }).or_failed()?;
    }
    report.problems.insert(0, problem);
    Ok(report)
}

fn text(report: &CheckReport, repair: bool) -> String {
    let mut out = String::new();
    for it in &report.problems {
        out += &format!(
            "{}: {} `{}`: {}\n",
            word(it.outcome),
            it.kind.code(),
            it.path.display(),
            it.reason
        );
        if !it.used_by.is_empty() {
            let mut users: Vec<&str> =
                it.used_by.iter().map(String::as_str).take(N_SHOWN_USERS).collect();
            let more = format!("{} more", it.used_by.len().saturating_sub(N_SHOWN_USERS));
            if it.used_by.len() > N_SHOWN_USERS {
                users.push(&more);
            }
            out += &format!("  used by {}\n", users.join(", "));
        }
    }
    if !report.leftovers.is_empty() {
        // Blobs that came after the image was named make it older, too, without anybody having been killed.
        let is_index = |it: &&PathBuf| it.as_path() == Path::new("oci/index.json");
        let n_indexes = report.leftovers.iter().filter(is_index).count();
        let files = match report.leftovers.len() - n_indexes {
            0 => None,
            1 => Some("1 unfinished file is".to_owned()),
            n_files => Some(format!("{n_files} unfinished files are")),
        };
        if let Some(files) = files {
            out += &format!(
                "{files} left over from processes that were killed; `kiln system prune` removes them\n"
            );
        }
        if n_indexes > 0 {
            out += "oci/index.json is older than the images; the next change of an image writes it anew\n";
        }
    }
    out += &format!(
        "Looked at {} images, {} steps, {} layers, {} trees and {} blobs ({}): ",
        report.n_images,
        report.n_steps,
        report.n_layers,
        report.n_trees,
        report.n_blobs,
        show(report.n_bytes)
    );
    let n_problems = report.problems.len();
    out += &match (n_problems, report.is_sound(), repair) {
        (0, _, _) => "nothing is damaged\n".to_owned(),
        (n, true, _) => {
            format!("{n} damaged, all repaired; the next build makes again what is missing\n")
        }
        (n, false, false) => format!("{n} damaged; `kiln system check --repair` takes that away\n"),
        (n, false, true) => {
            format!(
                "{n} damaged; what running processes hold was left, check again when they have ended\n"
            )
        }
    };
    out
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Found => "damaged",
        Outcome::Repaired => "repaired",
        Outcome::InUse => "in use",
    }
}

fn json(report: &CheckReport) -> String {
    let problems: Vec<_> = report
        .problems
        .iter()
        .map(|it| {
            json!({
                "Kind": it.kind.code(),
                "Path": it.path.display().to_string(),
                "Reason": it.reason,
                "UsedBy": it.used_by,
                "Outcome": word(it.outcome),
            })
        })
        .collect();
    let leftovers: Vec<_> = report.leftovers.iter().map(|it| it.display().to_string()).collect();
    let report = json!({
        "Sound": report.is_sound(),
        "Problems": problems,
        "Leftovers": leftovers,
        "Images": report.n_images,
        "Steps": report.n_steps,
        "Layers": report.n_layers,
        "Trees": report.n_trees,
        "Blobs": report.n_blobs,
        "BlobBytes": report.n_bytes,
    });
    format!("{report}\n")
}
