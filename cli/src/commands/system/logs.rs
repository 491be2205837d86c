//! `kiln logs`: what steps wrote, again, and what containers in the background write.

use std::{
    fs::File,
    io::{self, IsTerminal, Read, Seek, SeekFrom, Write},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, anyhow};
use cache::{BuildLog, BuildStep, Store};
use runtime::State;

use crate::{
    args::system::LogsArgs,
    commands::{Globals, containers::find},
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
    if let Some(text) = &args.of
        && let Ok((state, _)) = find(&store, text)
    {
        return of_container(args, &store, text, &state);
    }
    if args.follow || args.tail.is_some() || args.is_container {
        return Err(match &args.of {
            None if args.is_container => {
                Failure::input(anyhow!("name the container")).hint("`kiln ps` lists them")
            }
            None => Failure::input(anyhow!("`--follow` and `--tail` need a container"))
                .hint("`kiln ps` lists them"),
            Some(text) => Failure::failed(anyhow!("there is no container `{text}`"))
                .hint("`kiln ps -a` lists what is there"),
        });
    }
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
    let chosen = match &args.of {
        None => builds.first(),
        Some(name) => builds.iter().find(|it| it.build == *name).or_else(|| only(&builds, name)),
    };
    let Some(chosen) = chosen else {
        let message = match &args.of {
            Some(name) => anyhow!("there are no logs of a build `{name}`"),
            None => anyhow!("there are no logs of any build"),
        };
        return Err(Failure::failed(message)
            .hint("`kiln logs --list` lists the builds, `kiln ps -a` the containers"));
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

/// How often it is looked whether a container has written more.
const PAUSE: Duration = Duration::from_millis(50);

/// Shows what a container has written, as it did.
fn of_container(args: &LogsArgs, store: &Store, text: &str, state: &State) -> Result<Exit> {
    let Some(mut log) = runtime::log(store, &state.id).or_failed()? else {
        let failure = Failure::failed(anyhow!("the output of container `{text}` is not kept"));
        return Err(failure.hint(
            "it runs in the foreground: what it writes goes to the standard output and error of its `kiln run`",
        ));
    };
    let tail = args.tail.as_deref().filter(|it| *it != "all");
    let n_lines = tail.map(str::parse::<usize>).transpose();
    let n_lines = n_lines
        .map_err(|_| Failure::input(anyhow!("`--tail` takes a number of lines, or `all`")))?;
    let failed = |error: io::Error| {
        Failure::failed(anyhow!(error).context(format!("cannot show what `{text}` wrote")))
    };
    if let Some(n_lines) = n_lines {
        let start = start_of_last(&mut log, n_lines).map_err(failed)?;
        log.seek(SeekFrom::Start(start)).map_err(failed)?;
    }
    let mut stdout = io::stdout();
    loop {
        let is_running = args.follow && runtime::is_running(store, &state.id).or_failed()?;
        let copied = io::copy(&mut log, &mut stdout).and_then(|_| stdout.flush());
        match copied {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Exit::Done),
            Err(error) => return Err(failed(error)),
            Ok(()) if !is_running => return Ok(Exit::Done),
            Ok(()) => sleep(PAUSE),
        }
    }
}

/// Where the last lines of a file begin.
fn start_of_last(file: &mut File, n_lines: usize) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let last = end;
    if n_lines == 0 {
        return Ok(last);
    }
    let (mut n_seen, mut buffer) = (0, vec![0; 1 << 16]);
    while end > 0 {
        let start = end.saturating_sub(buffer.len() as u64);
        let piece = &mut buffer[..usize::try_from(end - start).unwrap_or(0)];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(piece)?;
        for (nth, _) in piece.iter().enumerate().rev().filter(|it| *it.1 == b'\n') {
            let next = start + nth as u64 + 1;
            // The end of the last line begins none.
            n_seen += usize::from(next < last);
            if n_seen == n_lines {
                return Ok(next);
            }
        }
        end = start;
    }
    Ok(0)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_found_whatever_ends_them() {
        let many: String = (0..30_000).map(|it| format!("line {it}\n")).collect();
        for (text, n_lines, expected) in [
            ("", 1, ""),
            ("a", 1, "a"),
            ("a\n", 1, "a\n"),
            ("a\nb", 1, "b"),
            ("a\nb\n", 1, "b\n"),
            ("a\nb\n", 2, "a\nb\n"),
            ("a\nb\n", 3, "a\nb\n"),
            ("a\nb", 0, ""),
            ("\n\n\n", 2, "\n\n"),
            (&many, 2, "line 29998\nline 29999\n"),
            (&many, 30_000, &many),
        ] {
            let mut file = tempfile::tempfile().expect("a file");
            file.write_all(text.as_bytes()).expect("written");
            let start = start_of_last(&mut file, n_lines).expect("readable");
            let start = usize::try_from(start).expect("small");
            assert_eq!(&text[start..], expected, "{n_lines} of {:.20}", text);
        }
    }
}
