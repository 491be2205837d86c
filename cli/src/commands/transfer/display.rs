//! What is shown while layers move: a line for each when it begins and ends, as docker writes them, or bars on a terminal.

use std::{
    collections::BTreeMap,
    io::IsTerminal,
    sync::{Arc, Mutex, PoisonError},
};

use executor::event::{Event, Listener};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::print;

/// What a layer that moves is called when it begins and when it ends.
#[derive(Debug, Clone, Copy)]
pub struct Words {
    /// `Pulling fs layer`.
    pub begins: &'static str,
    /// `Downloading`: on terminals, before the bar.
    pub moves: &'static str,
    /// `Pull complete`.
    pub ends: &'static str,
}

/// Images that come.
pub const PULL: Words =
    Words { begins: "Pulling fs layer", moves: "Downloading", ends: "Pull complete" };
/// Images that go.
pub const PUSH: Words = Words { begins: "Preparing", moves: "Pushing", ends: "Pushed" };

/// Returns a listener that shows layers on standard error.
pub fn layers(words: Words) -> Listener {
    if std::io::stderr().is_terminal() {
        return bars(words);
    }
    let shown = Mutex::new(BTreeMap::<String, bool>::new());
    Arc::new(move |event| match event {
        Event::Progress { part, done, .. } => {
            let Some(id) = short(&part) else { return };
            let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
            let was_done = shown.get(id).copied();
            if was_done.is_none() {
                print::err(&format!("{id}: {}\n", words.begins));
            }
            if done && was_done != Some(true) {
                print::err(&format!("{id}: {}\n", words.ends));
            }
            shown.insert(id.to_owned(), done || was_done == Some(true));
        }
        other => warn(&other),
    })
}

/// Returns a listener that shows warnings only.
pub fn quiet() -> Listener {
    Arc::new(|event| warn(&event))
}

fn warn(event: &Event) {
    if let Event::Warning { message, .. } = event {
        print::err(&format!("warning: {message}\n"));
    }
}

fn bars(words: Words) -> Listener {
    let all = MultiProgress::new();
    let bars = Mutex::new(BTreeMap::<String, ProgressBar>::new());
    // A template that does not parse leaves indicatif's own.
    let style = |template: &str| {
        ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ")
    };
    let moving = style("{prefix}: {msg} [{bar:40}] {bytes}/{total_bytes}");
    let ended = style("{prefix}: {msg}");
    Arc::new(move |event| match event {
        Event::Progress { part, current, total, done, .. } => {
            let Some(id) = short(&part) else { return };
            let mut bars = bars.lock().unwrap_or_else(PoisonError::into_inner);
            let bar = bars.entry(id.to_owned()).or_insert_with(|| {
                let bar = all.add(ProgressBar::new(total.unwrap_or(current)));
                bar.set_style(moving.clone());
                bar.set_prefix(id.to_owned());
                bar.set_message(words.moves);
                bar
            });
            bar.set_position(current);
            if done && !bar.is_finished() {
                bar.set_style(ended.clone());
                bar.finish_with_message(words.ends);
            }
        }
        Event::Warning { message, .. } => {
            let _ = all.println(format!("warning: {message}"));
        }
        _ => {}
    })
}

/// The first digits of a part that is a blob.
fn short(part: &str) -> Option<&str> {
    part.strip_prefix("sha256:").and_then(|it| it.get(..12))
}
