//! Progress as a live picture on a terminal: what is done scrolls away above, what runs is drawn below.
//!
//! The picture is computed as lines by [`Picture::lines`], a function of events, time and the size of the terminal; indicatif
//! puts it on the screen and takes care of the cursor.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use executor::event::{Event, Outcome, TaskId};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::line::{Lines, amount, fit, printable, wrap};

/// How many lines of log are shown below a running step.
const N_LOG_LINES: usize = 6;

/// The view.
pub struct Tty {
    bar: ProgressBar,
    picture: Picture,
}

impl Tty {
    /// A view on standard error.
    pub fn new(colour: bool) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(20));
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        Self { bar, picture: Picture { colour, ..Picture::default() } }
    }

    /// Shows an event that came at `now`.
    pub fn event(&mut self, now: Duration, event: Event) {
        let (_, columns) = size();
        if let Some(line) = self.picture.event(now, event, columns) {
            self.bar.println(line);
            self.draw(now);
        }
    }

    /// Draws the picture as it is at `now`.
    pub fn draw(&self, now: Duration) {
        let (rows, columns) = size();
        self.bar.set_message(self.picture.lines(now, rows, columns).join("\n"));
    }

    /// Leaves the last state on the terminal.
    pub fn finish(&self, now: Duration) {
        let (_, columns) = size();
        self.bar.println(self.picture.header(now, true, columns));
        self.bar.finish_and_clear();
    }
}

/// Returns rows and columns of the terminal.
fn size() -> (usize, usize) {
    let known = |n: u16, usual: usize| if n > 0 { usize::from(n) } else { usual };
    match rustix::termios::tcgetwinsize(rustix::stdio::stderr()) {
        Ok(size) => (known(size.ws_row, 24), known(size.ws_col, 80)),
        Err(_) => (24, 80),
    }
}

/// What is drawn.
#[derive(Debug, Default)]
pub struct Picture {
    colour: bool,
    running: BTreeMap<TaskId, Task>,
    n_started: usize,
    n_done: usize,
}

#[derive(Debug, Default)]
struct Task {
    name: String,
    started: Duration,
    parts: Vec<Part>,
    logs: [Lines; 2],
    last: VecDeque<String>,
}

#[derive(Debug)]
struct Part {
    name: String,
    started: Duration,
    ended: Option<Duration>,
    current: u64,
    total: Option<u64>,
}

const BLUE: &str = "\u{1b}[34m";
const RED: &str = "\u{1b}[31m";
const YELLOW: &str = "\u{1b}[33m";
const FAINT: &str = "\u{1b}[2m";
const PLAIN: &str = "\u{1b}[0m";

impl Picture {
    /// Takes note of an event; returns a line that is final, to be put above the picture.
    pub fn event(&mut self, now: Duration, event: Event, columns: usize) -> Option<String> {
        match event {
            Event::Started { task, name } => {
                self.n_started += 1;
                self.running
                    .insert(task, Task { name: printable(&name), started: now, ..Task::default() });
                None
            }
            Event::Log { task, stream, bytes } => {
                let state = self.running.get_mut(&task)?;
                let lines = state.logs[usize::from(stream == 2)].push(&bytes);
                let skipped = lines.len().saturating_sub(N_LOG_LINES);
                for line in &lines[skipped..] {
                    if state.last.len() == N_LOG_LINES {
                        state.last.pop_front();
                    }
                    state.last.push_back(printable(line));
                }
                None
            }
            Event::Progress { task, part, current, total, done } => {
                let state = self.running.get_mut(&task)?;
                let n = state.parts.iter().position(|it| it.name == part).unwrap_or_else(|| {
                    state.parts.push(Part {
                        name: part,
                        started: now,
                        ended: None,
                        current,
                        total,
                    });
                    state.parts.len() - 1
                });
                let part = &mut state.parts[n];
                (part.current, part.total, part.ended) = (current, total, done.then_some(now));
                None
            }
            Event::Warning { message, .. } => Some(
                self.painted(YELLOW, &wrap(&format!(" => WARN: {}", printable(&message)), columns)),
            ),
            Event::Done { task, outcome, elapsed } => {
                let state = self.running.remove(&task)?;
                self.n_done += 1;
                let (word, colour) = match outcome {
                    Outcome::Done => ("", BLUE),
                    Outcome::Cached => ("CACHED ", BLUE),
                    Outcome::Canceled => ("CANCELED ", YELLOW),
                    Outcome::Failed { .. } => ("ERROR ", RED),
                };
                let line = timed(&format!(" => {word}{}", state.name), elapsed, columns);
                Some(self.painted(colour, &line))
            }
        }
    }

    /// Returns the picture: the state of the whole, then each running step with its parts and the end of its log. It is
    /// not higher than `rows` and no line is wider than `columns`.
    pub fn lines(&self, now: Duration, rows: usize, columns: usize) -> Vec<String> {
        let mut lines = vec![self.header(now, false, columns)];
        // The last row belongs to the cursor.
        let room = rows.saturating_sub(2);
        let shown = self.running.len().min(room);
        // What remains after a line for each step is shared out to their details.
        let mut details = room - shown;
        for state in self.running.values().take(shown) {
            lines.push(timed(
                &format!(" => {}", state.name),
                now.saturating_sub(state.started),
                columns,
            ));
            let n_first = state.parts.len().saturating_sub(details);
            for part in &state.parts[n_first..] {
                let took = part.ended.unwrap_or(now).saturating_sub(part.started);
                let text =
                    format!(" => => {}{}", printable(&part.name), amount(part.current, part.total));
                lines.push(timed(&text, took, columns));
            }
            details -= state.parts.len() - n_first;
            let n_first = state.last.len().saturating_sub(details);
            for line in state.last.iter().skip(n_first) {
                lines.push(self.painted(FAINT, &fit(&format!(" => => # {line}"), columns).0));
            }
            details -= state.last.len() - n_first;
        }
        lines
    }

    fn header(&self, now: Duration, finished: bool, columns: usize) -> String {
        let end = if finished { " FINISHED" } else { "" };
        let text = format!(
            "[+] Building {:.1}s ({}/{}){end}",
            now.as_secs_f64(),
            self.n_done,
            self.n_started
        );
        fit(&text, columns).0
    }

    fn painted(&self, colour: &str, text: &str) -> String {
        if self.colour { format!("{colour}{text}{PLAIN}") } else { text.to_owned() }
    }
}

/// A line with a time at its right end, cut where the terminal is too narrow for both.
fn timed(text: &str, time: Duration, columns: usize) -> String {
    let time = format!(" {:.1}s", time.as_secs_f64());
    let (text, width) = fit(text, columns.saturating_sub(time.len()));
    let gap = columns.saturating_sub(width + time.len());
    fit(&format!("{text}{}{time}", " ".repeat(gap)), columns).0
}

#[cfg(test)]
mod tests {
    use super::{super::tests::script, *};

    fn picture(text: &str, columns: usize) -> (Picture, Vec<String>) {
        let mut picture = Picture::default();
        let above = script(text)
            .into_iter()
            .filter_map(|(now, event)| picture.event(now, event, columns))
            .collect();
        (picture, above)
    }

    const SCRIPT: &str = "0 start 1 [internal] load build context\n0 part 1 transferring context: 104 - done\n20 done 1\n\
        20 start 2 [1/3] FROM busybox\n20 cached 2\n30 start 3 [2/3] RUN make\n40 log 3 one\\ntwo\\n\n\
        50 start 4 [base 1/1] FROM debian\n60 part 4 sha256:12ab 1200000 3800000\n";

    #[test]
    fn what_runs_is_drawn_and_what_is_done_goes_up() {
        let (picture, above) = picture(SCRIPT, 50);
        let expected = [
            " => [internal] load build context             0.0s",
            " => CACHED [1/3] FROM busybox                 0.0s",
        ];
        assert_eq!(above, expected);
        let expected = [
            "[+] Building 1.0s (2/4)",
            " => [2/3] RUN make                            1.0s",
            " => => # one",
            " => => # two",
            " => [base 1/1] FROM debian                    0.9s",
            " => => sha256:12ab 1.20MB / 3.80MB            0.9s",
        ];
        assert_eq!(picture.lines(Duration::from_millis(1000), 24, 50), expected);
    }

    #[test]
    fn small_terminals_lose_details_first() {
        let (picture, _) = picture(SCRIPT, 20);
        let now = Duration::from_millis(1000);
        let expected = [
            "[+] Building 1.0s (…",
            " => [2/3] RUN … 1.0s",
            " => => # two",
            " => [base 1/1]… 1.0s",
        ];
        let lines = picture.lines(now, 5, 20);
        assert_eq!(lines[..3], expected[..3]);
        for (rows, columns) in [(0, 0), (1, 1), (2, 3), (3, 5), (4, 80)] {
            let lines = picture.lines(now, rows, columns);
            assert!(
                lines.len() <= rows.max(2) && lines.iter().all(|it| it.chars().count() <= columns),
                "{lines:?}"
            );
        }
    }
}
