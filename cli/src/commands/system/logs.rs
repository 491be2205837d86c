//! `kiln logs`: what steps wrote, again.

use std::io::{self, IsTerminal, Read, Write};

use anyhow::{Context, anyhow};
use cache::logs::BuildLog;

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
            table.row(vec![it.build.clone(), time::ago(age), it.steps.len().to_string()]);
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
        let hint =
            "`kiln logs --list` lists the builds; a build whose steps are all cached has no logs";
        return Err(Failure::failed(message).hint(hint));
    };
    for step in chosen
        .steps
        .iter()
        .filter(|it| args.step.as_ref().is_none_or(|wanted| it.contains(wanted.as_str())))
    {
        let Some(mut file) = store.open_log(&chosen.build, step).or_failed()? else { continue };
        print::out(&format!("# {step}\n"))?;
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
                    .with_context(|| format!("cannot show the log of step `{step}`"))
                    .or_failed();
            }
            _ => print::out("\n")?,
        }
    }
    Ok(Exit::Done)
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
