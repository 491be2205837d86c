//! `kiln build`.
//!
//! 1. [`input`] — where the Dockerfile and the context are; standard input.
//! 2. [`job`] — everything a build needs, looked up and checked before anything runs.
//! 3. [`execute`] — the call into the executor.
//! 4. [`report`] — what is written when it is done: id, files, results.

pub mod execute;
pub mod input;
pub mod job;
pub mod report;

use anyhow::Context;

use super::Globals;
use crate::{
    args::build::BuildArgs,
    exit::Exit,
    failure::{OrFail, Result},
    print,
    progress::{Mode, Progress},
};

/// Builds an image.
///
/// # Errors
///
/// Fails where an argument or the Dockerfile is wrong, or a step failed.
pub fn run(args: BuildArgs, globals: &Globals) -> Result<Exit> {
    let mut job = job::prepare(args, |name| std::env::var(name).ok())?;
    report::before(&job)?;
    let progress = Progress::start(job.progress).context("cannot start the display").or_failed()?;
    let built = execute::execute(&mut job, globals, progress.listener());
    // The display ends before anything else is said, so that the two do not mix.
    let tails = progress.finish();
    match built {
        Ok(finished) => {
            report::after(&job, &finished)?;
            Ok(Exit::Done)
        }
        Err(failure) => {
            if job.progress.resolved() != Mode::Rawjson {
                print::err(&tails.frames());
            }
            Err(failure)
        }
    }
}
