//! `kiln build`.
//!
//! 1. [`input`] — where the Dockerfile and the context are; standard input. [`beneath`] reads what is in a context.
//! 2. [`job`] — everything a build needs, looked up and checked before anything runs.
//! 3. [`execute`] — the call into the executor.
//!    [`frontend`] says whether the file is a Dockerfile, [`outputs`] writes what was built.
//! 4. [`call`] — questions that are answered instead of building.
//!    `parameters` is what provenance says of the command line.
//! 5. [`lint`] — what the lint says of a build.
//! 6. [`report`] — what is written when it is done: id, files, results.

pub mod beneath;
pub mod call;
pub mod execute;
pub mod frontend;
pub mod ignore;
pub mod input;
pub mod job;
pub mod lint;
mod missing;
pub mod outputs;
mod parameters;
pub mod report;

use anyhow::Context;

use super::Globals;
use crate::{
    args::build::BuildArgs,
    exit::Exit,
    failure::{OrFail, Result},
    print,
    progress::{Mode, Progress},
    values::Question,
};

/// Builds an image.
///
/// # Errors
///
/// Fails where an argument or the Dockerfile is wrong, or a step failed.
pub fn run(args: BuildArgs, globals: &Globals) -> Result<Exit> {
    let mut job = job::prepare(args, |name| std::env::var(name).ok())?;
    if job.call.question != Question::Build {
        return call::run(&mut job, globals);
    }
    report::before(&job)?;
    let progress = Progress::start(job.progress).context("cannot start the display").or_failed()?;
    let mut warnings = Vec::new();
    let mut explanation = None;
    let listener = progress.listener();
    let built = execute::execute(&mut job, globals, listener, &mut warnings, &mut explanation);
    // The display ends before anything else is said, so that the two do not mix.
    let tails = progress.finish();
    let mode = job.progress.resolved();
    if !matches!(mode, Mode::Quiet | Mode::None | Mode::Rawjson) {
        print::err(&lint::summary(&warnings, print::colour()));
    }
    if let Some(explanation) = explanation {
        match mode {
            Mode::Rawjson => print::err(&explanation.record()),
            _ => print::err(&explanation.text()),
        }
    }
    match built {
        Ok(finished) => {
            report::after(&job, &finished, &warnings)?;
            Ok(Exit::Done)
        }
        Err(failure) => {
            if mode != Mode::Rawjson {
                print::err(&tails.frames());
            }
            Err(failure)
        }
    }
}
