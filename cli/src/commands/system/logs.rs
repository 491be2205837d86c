//! `kiln logs`: what steps wrote, again.

use std::io::{self, IsTerminal, Read, Write};

use anyhow::{Context, anyhow};
use cache::{BuildLog, BuildStep};

use crate::{
    args::system::LogsArgs,
    commands::Globals,
    exit::Exit,
    failure::{Failure, OrFail, Result},
    print::{self, Table},
    progress::line::Lines,
    time,
};

/// Shows the logs of a build, or lists the builds.
///
/// # Errors
///
/// Fails where there is no such build.
pub fn run(args: &LogsArgs, globals: &Globals) -> Result<Exit> {
    let store = globals.store()?;
    let builds = store.build_logs().or_failed()?;
    if args.list {
        let mut table = Table::new(&["BUILD", "CREATED", "STEPS"]);
        for it in &builds {
            let age = time::now() - i64::try_from(it.modified).unwrap_or(0);
            let n_steps = it.steps.len().max(it.files.len());
            table.row(vec![it.build.clone(), time::ago(age), n_steps.to_string()]);
        }
        print::out(&table.to_string())?;
        return Ok(Exit::Done);
    }
    let chosen = match &args.build {
        None => builds.first(),
        Some(name) => builds.iter().find(|it| it.build == *name).or_else(|| only(&builds, name)),
    };
    let Some(chosen) = chosen else {
        let message = match &args.build {
            Some(name) => anyhow!("there are no logs of a build `{name}`"),
            None => anyhow!("there are no logs of any build"),
        };
        return Err(Failure::failed(message).hint(
            "`kiln logs --list` lists the builds; what a container writes goes to the standard output and error of `kiln run`",
        ));
    };
    let wanted = |name: &str| args.step.as_ref().is_none_or(|it| name.contains(it.as_str()));
    for step in steps(chosen).into_iter().filter(|it| wanted(&it.name)) {
        let ending = match step.outcome.as_str() {
            "" | "done" => String::new(),
            other => format!(" ({other})"),
        };
        print::out(&format!("# {}{ending}\n", step.name))?;
        let Some(mut file) = store.open_log(&chosen.build, &step.log).or_failed()? else {
            continue;
        };
        let mut stdout = io::stdout().lock();
        let shown = match stdout.is_terminal() {
            true => show(file, &mut stdout),
            // Programs get the bytes as they are.
            false => io::copy(&mut file, &mut stdout).map(drop),
        };
        drop(stdout);
        match shown {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                return Err(error)
                    .with_context(|| format!("cannot show the log of step `{}`", step.name))
                    .or_failed();
            }
            _ => print::out("\n")?,
        }
    }
    Ok(Exit::Done)
}

/// What a build did. Of one that was killed only the files of output are known.
fn steps(build: &BuildLog) -> Vec<BuildStep> {
    if !build.steps.is_empty() {
        return build.steps.clone();
    }
    let of_file =
        |it: &String| BuildStep { name: it.clone(), outcome: String::new(), log: it.clone() };
    build.files.iter().map(of_file).collect()
}

/// Writes a log to a terminal, line by line.
fn show(mut log: impl Read, out: &mut impl Write) -> io::Result<()> {
    let mut lines = Lines::default();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n_read = log.read(&mut buffer)?;
        for line in lines.push(&buffer[..n_read]) {
            writeln!(out, "{line}")?;
        }
        if n_read == 0 {
            return match lines.rest() {
                Some(line) => writeln!(out, "{line}"),
                None => Ok(()),
            };
        }
    }
}

/// Returns the only build whose name begins so.
fn only<'a>(builds: &'a [BuildLog], start: &str) -> Option<&'a BuildLog> {
    let mut found = builds.iter().filter(|it| it.build.starts_with(start));
    found.next().filter(|_| found.next().is_none())
}
