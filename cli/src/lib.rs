//! The `kiln` command: arguments, configuration, progress, diagnostics, exit codes.
//!
//! This crate is an edge: it turns what a person wrote into values for the crates below, and what they return into what a
//! person reads. It decides nothing about builds or images. It is a library only so that tests can reach its parts.
//!
//! Read the modules in this order:
//!
//! 1. [`args`] and [`values`] — what may be written.
//! 2. [`config`] — files and environment.
//! 3. [`commands`] — one file per command.
//! 4. [`progress`] — what is shown while a build runs.
//! 5. [`render`] — mistakes, with the line and a caret.
//! 6. [`exit`] and [`failure`] — how it ends.
//!
//! # Invariants
//!
//! - **Nothing is read that is not needed.** `kiln version` opens no file and starts no thread.
//! - **Standard output is for results, standard error for everything else.** A broken pipe is no error.
//! - **One exit status per kind of end,** see [`exit`].
#![forbid(unsafe_code)]

pub mod args;
pub mod commands;
pub mod config;
pub mod exit;
pub mod failure;
pub mod print;
pub mod progress;
pub mod render;
pub mod signals;
pub mod template;
pub mod time;
pub mod values;

use std::{ffi::OsString, panic::AssertUnwindSafe, process::ExitCode};

use exit::Exit;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    exit::report_panics();
    // The allocator asks for huge pages, of which a short program fills a corner each: they double what it holds. Commands of
    // containers have them again, see `sandbox`.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let args: Vec<OsString> = std::env::args_os().collect();
    // A panic has been reported by the hook; here it only gets its status.
    std::panic::catch_unwind(AssertUnwindSafe(|| run(&args))).unwrap_or(Exit::Bug).into()
}

fn run(args: &[OsString]) -> Exit {
    let cli = match args::parse(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to standard output, mistakes to standard error; a closed one changes nothing.
            let _ = error.print();
            return match error.use_stderr() {
                true if args::is_run(args) => Exit::Process(commands::run::OUR_FAULT),
                true => Exit::Input,
                false => Exit::Done,
            };
        }
    };
    match commands::run(cli) {
        Ok(exit) => exit,
        Err(failure) => {
            failure.show();
            failure.exit
        }
    }
}
