//! The last lines of each step that runs, and of those that failed.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write,
    time::Duration,
};

use executor::event::{Event, Outcome, TaskId};

use super::line::{Lines, stamp};

/// How many lines of a failed step are shown.
const N_LINES: usize = 20;

/// The ends of the logs.
#[derive(Debug, Default)]
pub struct Tails {
    running: BTreeMap<TaskId, Tail>,
    failed: Vec<(Tail, String)>,
}

#[derive(Debug, Default)]
struct Tail {
    name: String,
    started: Duration,
    logs: [Lines; 2],
    last: VecDeque<String>,
    n_dropped: usize,
}

impl Tail {
    fn keep(&mut self, now: Duration, line: &str) {
        if self.last.len() == N_LINES {
            self.last.pop_front();
            self.n_dropped += 1;
        }
        self.last.push_back(format!("{} {line}", stamp(now.saturating_sub(self.started))));
    }
}

impl Tails {
    /// Takes note of an event that came at `now`.
    pub fn event(&mut self, now: Duration, event: &Event) {
        match event {
            Event::Started { task, name } => {
                let tail = Tail { name: name.clone(), started: now, ..Tail::default() };
                self.running.insert(*task, tail);
            }
            Event::Log { task, stream, bytes } => {
                let Some(tail) = self.running.get_mut(task) else { return };
                let lines = tail.logs[usize::from(*stream == 2)].push(bytes);
                // Of a flood only the end can matter.
                let skipped = lines.len().saturating_sub(N_LINES);
                tail.n_dropped += skipped;
                lines[skipped..].iter().for_each(|line| tail.keep(now, line));
            }
            Event::Done { task, outcome, .. } => {
                let Some(mut tail) = self.running.remove(task) else { return };
                if let Outcome::Failed { message } = outcome {
                    for n in 0..2 {
                        if let Some(line) = tail.logs[n].rest() {
                            tail.keep(now, &line);
                        }
                    }
                    self.failed.push((tail, message.clone()));
                }
            }
            Event::Progress { .. } | Event::Warning { .. } => {}
        }
    }

    /// Returns the frames of the steps that failed, as docker shows them.
    pub fn frames(&self) -> String {
        let mut out = String::new();
        for (tail, _) in &self.failed {
            let _ = writeln!(out, "------\n > {}:", tail.name);
            if tail.n_dropped > 0 {
                let _ = writeln!(out, "({} earlier lines: `kiln logs` shows them)", tail.n_dropped);
            }
            for line in &tail.last {
                let _ = writeln!(out, "{line}");
            }
            out.push_str("------\n");
        }
        out
    }

    /// Returns the messages of the steps that failed.
    pub fn messages(&self) -> impl Iterator<Item = &str> {
        self.failed.iter().map(|(_, message)| message.as_str())
    }
}
