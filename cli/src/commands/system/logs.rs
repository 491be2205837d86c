//! `kiln logs`: what steps wrote, again.
//!
//! The store keeps one file per step, `logs/BUILD/STEP.log`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context, anyhow};

use crate::{
    args::system::LogsArgs,
    commands::Globals,
    exit::Exit,
    failure::{Failure, OrFail, Result},
    print::{self, Table},
    time,
};

/// Shows the logs of a build, or lists the builds.
///
/// # Errors
///
/// Fails where there is no such build.
pub fn run(args: &LogsArgs, globals: &Globals) -> Result<Exit> {
    let folder = globals.store_root(&globals.config()?)?.join("logs");
    let builds = builds(&folder)
        .with_context(|| format!("cannot read `{}`", folder.display()))
        .or_failed()?;
    if args.list {
        let mut table = Table::new(&["BUILD", "CREATED", "STEPS"]);
        for (name, path, modified) in &builds {
            let created =
                modified.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |it| it.as_secs() as i64);
            let n_steps = steps(path).or_failed()?.len();
            table.row(vec![name.clone(), time::ago(time::now() - created), n_steps.to_string()]);
        }
        print::out(&table.to_string())?;
        return Ok(Exit::Done);
    }
    let chosen = match &args.build {
        None => builds.first(),
        Some(name) => builds.iter().find(|it| it.0 == *name).or_else(|| only(&builds, name)),
    };
    let Some((_, path, _)) = chosen else {
        let message = match &args.build {
            Some(name) => anyhow!("there are no logs of a build `{name}`"),
            None => anyhow!("there are no logs of any build"),
        };
        return Err(Failure::failed(message).hint(
            "`kiln logs --list` lists the builds; a build whose steps are all cached has none",
        ));
    };
    for (name, file) in steps(path).or_failed()? {
        if args.step.as_ref().is_none_or(|it| name.contains(it.as_str())) {
            show(&name, &file)?;
        }
    }
    Ok(Exit::Done)
}

type Build = (String, PathBuf, SystemTime);

/// Returns the builds, the last one first.
fn builds(folder: &Path) -> io::Result<Vec<Build>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut out = Vec::new();
    for entry in entries {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            out.push((
                entry.file_name().to_string_lossy().into_owned(),
                entry.path(),
                metadata.modified()?,
            ));
        }
    }
    out.sort_by(|a, b| (b.2, &b.0).cmp(&(a.2, &a.0)));
    Ok(out)
}

/// Returns the only build whose name begins so.
fn only<'a>(builds: &'a [Build], start: &str) -> Option<&'a Build> {
    let mut found = builds.iter().filter(|it| it.0.starts_with(start));
    found.next().filter(|_| found.next().is_none())
}

/// Returns the steps of a build in order.
fn steps(folder: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut out = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == "log") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            out.push((name, path));
        }
    }
    // Numbers in front count as numbers.
    let number = |name: &str| {
        name.split(|c: char| !c.is_ascii_digit()).next().and_then(|it| it.parse::<u64>().ok())
    };
    out.sort_by(|a, b| (number(&a.0), &a.0).cmp(&(number(&b.0), &b.0)));
    Ok(out)
}

fn show(name: &str, path: &Path) -> Result<()> {
    print::out(&format!("# {name}\n"))?;
    let copied =
        fs::File::open(path).and_then(|mut file| io::copy(&mut file, &mut io::stdout().lock()));
    match copied {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).with_context(|| format!("cannot show `{}`", path.display())).or_failed()
        }
        _ => print::out("\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_come_in_order_and_builds_by_the_start_of_their_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let build = folder.path().join("abc");
        fs::create_dir(&build).expect("made");
        fs::create_dir(folder.path().join("abd")).expect("made");
        for name in ["10.log", "9.log", "notes.txt"] {
            fs::write(build.join(name), "x").expect("written");
        }
        let names: Vec<String> = steps(&build).expect("read").into_iter().map(|it| it.0).collect();
        assert_eq!(names, ["9", "10"]);
        let builds = builds(folder.path()).expect("read");
        assert_eq!(only(&builds, "abc").map(|it| it.0.as_str()), Some("abc"));
        assert!(only(&builds, "ab").is_none() && only(&builds, "x").is_none());
        assert!(super::builds(&folder.path().join("none")).expect("read").is_empty());
    }
}
