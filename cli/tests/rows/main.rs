//! The language, row by row: what the reference's tables say, through parser, planner and linter.
//!
//! `testdata/rows/rows.txt` lists the rows; the tests of a row begin with its id (`p5_…`, `lint_undefined_var_…`). Rows that
//! only a build can show are in `rows_privileged.rs`, with their tests in `rows/builds`. `coverage` counts.

mod ask;
mod contexts;
mod copy;
mod coverage;
mod expansion;
mod instructions;
mod lexing;
mod linting;
mod run;
mod stages;
