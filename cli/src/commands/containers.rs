//! `kiln ps`, `rm`, `stop`, `kill` and `container prune`.
//!
//! A container belongs to the `kiln run` that started it, in some terminal or in the background of a shell: that process is
//! asked to end it, so that the container's status is known and its terminal is given back.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use cache::Store;
use runtime::{Signal, State};
use serde_json::{Value, json};

use super::{Globals, images, system::reset::confirmed};
use crate::{
    args::containers::{ContainerPruneArgs, KillArgs, PsArgs, RmArgs, StopArgs},
    exit::Exit,
    failure::{Failure, OrFail, Result},
    print::{self, Table},
    progress::line::fit,
    template::Template,
    time,
    values::{signal::signal, size::show},
};

/// How long a container may take to go when it is asked to, or killed.
const PATIENCE: Duration = Duration::from_secs(10);
/// One that is killed is gone by then.
const SOON: Duration = Duration::from_secs(1);
/// How often it is looked whether one has ended.
const PAUSE: Duration = Duration::from_millis(20);

/// Lists containers, the youngest first.
///
/// # Errors
///
/// Fails where a filter or format is not understood, or the store cannot be read.
pub fn list(args: &PsArgs, globals: &Globals) -> Result<Exit> {
    let filters = args.filters.iter().map(|it| Filter::parse(it)).collect::<Result<Vec<_>>>()?;
    let store = globals.store()?;
    let all = args.all || filters.iter().any(|it| matches!(it, Filter::IsRunning(_)));
    let mut rows = Vec::new();
    for (state, is_running) in runtime::containers(&store).or_failed()? {
        if !(all || is_running) {
            continue;
        }
        let mut is_wanted = true;
        for filter in &filters {
            is_wanted &= filter.accepts(&store, &state, is_running)?;
        }
        if is_wanted {
            rows.push(row(&state, is_running, args.no_trunc));
        }
    }
    print::out(&text(args, &rows)?)?;
    Ok(Exit::Done)
}

/// The columns of the table: the field, and its title.
const COLUMNS: [(&str, &str); 7] = [
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("RunningFor", "CREATED"),
    ("Status", "STATUS"),
    ("Ports", "PORTS"),
    ("Names", "NAMES"),
];

fn row(state: &State, is_running: bool, is_whole: bool) -> Value {
    let ago = |seconds: u64| time::now() - i64::try_from(seconds).unwrap_or(0);
    let status = match (is_running, state.status) {
        (true, _) => format!("Up {}", time::ago(ago(state.created)).trim_end_matches(" ago")),
        (false, Some(status)) => {
            let since = time::ago(ago(state.finished.unwrap_or(state.created)));
            format!("Exited ({status}) {since}")
        }
        (false, None) => "Dead".to_owned(),
    };
    let command = state.command.join(" ");
    let labels: Vec<String> = state.labels.iter().map(|(key, it)| format!("{key}={it}")).collect();
    json!({
        "ID": if is_whole { state.id.to_string() } else { state.id.short().to_owned() },
        "Image": state.image,
        "Command": format!("\"{}\"", if is_whole { command } else { fit(&command, 20).0 }),
        "CreatedAt": time::shown(i64::try_from(state.created).unwrap_or(0)),
        "RunningFor": time::ago(ago(state.created)),
        "State": if is_running { "running" } else { "exited" },
        "Status": status,
        "Labels": labels.join(","),
        "Ports": if is_running { state.ports.join(", ") } else { String::new() },
        "Names": state.name.clone().unwrap_or_default(),
    })
}

fn text(args: &PsArgs, rows: &[Value]) -> Result<String> {
    let cell = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    if args.quiet {
        return Ok(rows.iter().map(|it| cell(it, "ID") + "\n").collect());
    }
    match args.format.as_deref() {
        None | Some("table") => {
            let mut table = Table::new(&COLUMNS.map(|it| it.1));
            rows.iter().for_each(|row| table.row(COLUMNS.map(|it| cell(row, it.0)).to_vec()));
            Ok(table.to_string())
        }
        Some("json") => Ok(rows.iter().map(|it| format!("{it}\n")).collect()),
        Some(format) => {
            let wrong = |message| Failure::input(anyhow!("--format: {message}"));
            let columns = format.strip_prefix("table ");
            let template = Template::parse(columns.unwrap_or(format)).map_err(wrong)?;
            let fill = |it: &Value| template.fill(it, &Value::Null).map_err(wrong);
            if columns.is_none() {
                return rows.iter().map(|it| Ok(fill(it)? + "\n")).collect();
            }
            let others = [("CreatedAt", "CREATED AT"), ("State", "STATE"), ("Labels", "LABELS")];
            let titles: serde_json::Map<String, Value> = COLUMNS
                .iter()
                .chain(&others)
                .map(|(key, it)| ((*key).to_owned(), json!(it)))
                .collect();
            let mut table = Table::new(&fill(&titles.into())?.split('\t').collect::<Vec<_>>());
            for row in rows {
                table.row(fill(row)?.split('\t').map(str::to_owned).collect());
            }
            Ok(table.to_string())
        }
    }
}

/// One `--filter`.
enum Filter {
    Name(String),
    Id(String),
    Label(String, Option<String>),
    Ancestor(String),
    IsRunning(bool),
}

impl Filter {
    fn parse(text: &str) -> Result<Self> {
        let wrong = |message: String| Failure::input(anyhow!("--filter: {message}"));
        Ok(match text.split_once('=') {
            Some(("name", name)) => Self::Name(name.to_owned()),
            Some(("id", start)) => Self::Id(start.to_owned()),
            Some(("label", label)) => match label.split_once('=') {
                Some((name, value)) => Self::Label(name.to_owned(), Some(value.to_owned())),
                None => Self::Label(label.to_owned(), None),
            },
            Some(("ancestor", image)) => Self::Ancestor(image.to_owned()),
            Some(("status", "running")) => Self::IsRunning(true),
            Some(("status", "exited" | "dead")) => Self::IsRunning(false),
            _ => {
                let known = "known are name, id, label, ancestor and status=running|exited";
                return Err(wrong(format!("`{text}` is not known")).hint(known));
            }
        })
    }

    fn accepts(&self, store: &Store, state: &State, is_running: bool) -> Result<bool> {
        Ok(match self {
            Self::Name(text) => state.name.as_deref().is_some_and(|it| it.contains(text.as_str())),
            Self::Id(start) => state.id.to_string().starts_with(start.as_str()),
            Self::Label(name, None) => state.labels.contains_key(name),
            Self::Label(name, Some(value)) => state.labels.get(name) == Some(value),
            Self::IsRunning(wanted) => is_running == *wanted,
            Self::Ancestor(name) => {
                let image = images::find(store, name)?;
                image.record.platforms.iter().any(|it| it.config == state.image_id)
            }
        })
    }
}

/// Finds a container by its name, or by the beginning of its id.
pub(crate) fn find(store: &Store, text: &str) -> Result<(State, bool)> {
    look_up(store, text)?.ok_or_else(|| missing(text))
}

fn missing(text: &str) -> Failure {
    let failure = Failure::failed(anyhow!("there is no container `{text}`"));
    failure.hint("`kiln ps -a` lists what is there")
}

fn look_up(store: &Store, text: &str) -> Result<Option<(State, bool)>> {
    let all = runtime::containers(store).or_failed()?;
    if let Some(found) = all.iter().find(|it| it.0.name.as_deref() == Some(text)) {
        return Ok(Some(found.clone()));
    }
    let begins = |it: &&(State, bool)| !text.is_empty() && it.0.id.to_string().starts_with(text);
    let mut found = all.iter().filter(begins);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(Some(one.clone())),
        (Some(_), Some(_)) => Err(Failure::failed(anyhow!(
            "`{text}` is the beginning of the ids of several containers"
        ))
        .hint("`kiln ps -a --no-trunc` shows them in full")),
        (None, _) => Ok(None),
    }
}

/// Does something to each container, and says its name; what fails is said, and the others are done.
fn each(
    texts: &[String],
    globals: &Globals,
    work: impl FnMut(&Store, &str, &State, bool) -> Result<()>,
) -> Result<Exit> {
    each_of(texts, globals, false, work)
}

fn each_of(
    texts: &[String],
    globals: &Globals,
    may_be_missing: bool,
    mut work: impl FnMut(&Store, &str, &State, bool) -> Result<()>,
) -> Result<Exit> {
    let store = globals.store()?;
    let mut failed = None;
    for text in texts {
        let done = match look_up(&store, text) {
            Ok(Some((state, is_running))) => work(&store, text, &state, is_running),
            Ok(None) if may_be_missing => {
                missing(text).show();
                continue;
            }
            Ok(None) => Err(missing(text)),
            Err(failure) => Err(failure),
        };
        match done {
            Ok(()) => print::out(&format!("{text}\n"))?,
            Err(failure) => {
                failure.show();
                failed = Some(failure.exit);
            }
        }
    }
    failed.map_or(Ok(Exit::Done), |exit| Err(Failure::shown(exit)))
}

/// Removes containers.
///
/// # Errors
///
/// Fails where one of them is not there, or runs; the others have been removed.
pub fn remove(args: &RmArgs, globals: &Globals) -> Result<Exit> {
    // As in docker, --force is told what is not there, and does not fail.
    each_of(&args.containers, globals, args.force, |store, text, state, is_running| {
        if is_running && !args.force {
            let failure = Failure::failed(anyhow!("container `{text}` runs"));
            return Err(failure.hint(format!("`kiln stop {text}` ends it, or use --force")));
        }
        if is_running {
            end(store, text, state)?;
        }
        runtime::remove(store, &state.id).or_failed().map(drop)
    })
}

/// Asks containers to end, and ends them.
///
/// # Errors
///
/// Fails where one of them is not there, or does not end.
pub fn stop(args: &StopArgs, globals: &Globals) -> Result<Exit> {
    let asked = args.signal.as_deref().map(parse_signal).transpose()?;
    each(&args.containers, globals, |store, text, state, is_running| {
        if !is_running {
            return Ok(());
        }
        let of_image = state.stop_signal.as_deref().and_then(|it| signal(it).ok());
        let signal = asked.or(of_image).unwrap_or(Signal::TERM);
        if signal == Signal::KILL {
            return end(store, text, state);
        }
        send(store, text, state, signal)?;
        let patience = args.timeout.or(state.stop_timeout).map_or(PATIENCE, |seconds| {
            u64::try_from(seconds).map_or(Duration::MAX, Duration::from_secs)
        });
        match has_ended(store, state, patience, || Ok(()))? {
            true => Ok(()),
            false => end(store, text, state),
        }
    })
}

/// Sends a signal to containers.
///
/// # Errors
///
/// Fails where one of them is not there or does not run, or there is no such signal.
pub fn kill(args: &KillArgs, globals: &Globals) -> Result<Exit> {
    let signal = parse_signal(&args.signal)?;
    each(&args.containers, globals, |store, text, state, is_running| {
        if !is_running {
            return Err(Failure::failed(anyhow!("container `{text}` does not run")));
        }
        match signal {
            Signal::KILL => end(store, text, state),
            signal => send(store, text, state, signal),
        }
    })
}

fn parse_signal(text: &str) -> Result<Signal> {
    signal(text).map_err(|message| Failure::input(anyhow!(message)))
}

/// Kills a container.
fn end(store: &Store, text: &str, state: &State) -> Result<()> {
    let begun = Instant::now();
    let kill = || {
        // Where no file can be written, or nobody looks at it.
        if send(store, text, state, Signal::KILL).is_err() || begun.elapsed() > SOON {
            runtime::ask_to_end(store, state).or_failed()?;
        }
        Ok(())
    };
    match has_ended(store, state, PATIENCE, kill)? {
        true => Ok(()),
        false => Err(Failure::failed(anyhow!("container `{text}` does not end"))),
    }
}

/// Waits for the end of a container, doing something before each look.
fn has_ended(
    store: &Store,
    state: &State,
    patience: Duration,
    mut before: impl FnMut() -> Result<()>,
) -> Result<bool> {
    let start = Instant::now();
    while runtime::is_running(store, &state.id).or_failed()? {
        if start.elapsed() > patience {
            return Ok(false);
        }
        before()?;
        sleep(PAUSE);
    }
    Ok(true)
}

fn send(store: &Store, text: &str, state: &State, signal: Signal) -> Result<()> {
    runtime::send(store, state, signal)
        .with_context(|| format!("cannot send a signal to container `{text}`"))
        .or_failed()
}

/// Removes all containers that have ended.
///
/// # Errors
///
/// Fails where nobody can be asked, or one cannot be removed.
pub fn prune(args: &ContainerPruneArgs, globals: &Globals) -> Result<Exit> {
    if !args.force && !confirmed("This removes all containers that have ended.")? {
        return Ok(Exit::Failed);
    }
    let removed = runtime::remove_ended(&globals.store()?).or_failed()?;
    let mut text = String::new();
    if !removed.ids.is_empty() {
        text.push_str("Deleted Containers:\n");
        removed.ids.iter().for_each(|it| text.push_str(&format!("{it}\n")));
        text.push('\n');
    }
    print::out(&format!("{text}Total reclaimed space: {}\n", show(removed.n_bytes)))?;
    Ok(Exit::Done)
}
