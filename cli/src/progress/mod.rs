//! What is shown while a build runs: a listener of [`executor::event::Event`].
//!
//! Events come from many threads. [`Progress`] puts the time of arrival on each and hands it to one thread, which owns the
//! view; the queue between them is bounded, so that a slow terminal slows the build down instead of filling memory.
//!
//! 1. [`line`] — logs cut into lines, sizes and times as text.
//! 2. [`tail`] — the last lines of each step, for the report of what failed.
//! 3. [`plain`], [`tty`], [`raw`] — the views. Each is a function of events and time, and writes to an `impl Write`.

pub mod line;
pub mod plain;
pub mod raw;
pub mod tail;
pub mod tty;

use std::{
    io::{self, IsTerminal, Write},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use executor::event::{Event, Listener};

use tail::Tails;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Mode {
    /// `tty` on a terminal, else `plain`.
    #[default]
    Auto,
    /// Lines, as docker writes them.
    Plain,
    /// A live picture; lines where standard error is no terminal.
    Tty,
    /// Nothing but what failed, and the id of the image in the end.
    Quiet,
    /// Nothing but what failed.
    None,
    /// BuildKit's status records, one JSON object per line.
    Rawjson,
}

impl Mode {
    /// Returns the mode that `name` names, in an environment variable.
    pub fn parse(name: &str) -> Option<Self> {
        use clap::ValueEnum;
        Self::from_str(name, false).ok()
    }

    /// Decides what `auto` is: standard error is where progress goes.
    #[must_use]
    pub fn resolved(self) -> Self {
        match self {
            Self::Auto
                if io::stderr().is_terminal()
                    && std::env::var_os("TERM").is_none_or(|it| it != "dumb") =>
            {
                Self::Tty
            }
            Self::Auto => Self::Plain,
            Self::Tty if !io::stderr().is_terminal() => Self::Plain,
            other => other,
        }
    }
}

/// How many events may wait to be shown.
const QUEUE: usize = 256;
/// How often a live view is drawn.
const TICK: Duration = Duration::from_millis(100);

enum Message {
    Event(Duration, Event),
    End,
}

enum View {
    Plain(plain::Plain),
    Tty(Box<tty::Tty>),
    Raw(raw::Raw),
    Quiet,
}

/// A running display.
pub struct Progress {
    sender: SyncSender<Message>,
    start: Instant,
    thread: Option<JoinHandle<Tails>>,
}

impl Progress {
    /// Starts to show on standard error.
    ///
    /// # Errors
    ///
    /// Fails where no thread can be started.
    pub fn start(mode: Mode) -> io::Result<Self> {
        let colour = crate::print::colour();
        let view = match mode.resolved() {
            Mode::Auto | Mode::Plain => View::Plain(plain::Plain::default()),
            Mode::Tty => View::Tty(Box::new(tty::Tty::new(colour))),
            Mode::Quiet | Mode::None => View::Quiet,
            Mode::Rawjson => View::Raw(raw::Raw::new(SystemTime::now())),
        };
        let (sender, receiver) = sync_channel(QUEUE);
        let start = Instant::now();
        let thread = std::thread::Builder::new()
            .name("progress".to_owned())
            .spawn(move || show(view, &receiver, start))?;
        Ok(Self { sender, start, thread: Some(thread) })
    }

    /// Returns what the executor tells its events.
    pub fn listener(&self) -> Listener {
        let (sender, start) = (self.sender.clone(), self.start);
        Arc::new(move |event| {
            // The display may have ended; events of stragglers are of no interest then.
            let _ = sender.send(Message::Event(start.elapsed(), event));
        })
    }

    /// Ends the display and returns what is to be said of steps that failed.
    pub fn finish(mut self) -> Tails {
        self.end()
    }

    fn end(&mut self) -> Tails {
        let _ = self.sender.send(Message::End);
        self.thread.take().and_then(|it| it.join().ok()).unwrap_or_default()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

fn show(mut view: View, receiver: &Receiver<Message>, start: Instant) -> Tails {
    let mut tails = Tails::default();
    let mut stderr = io::BufWriter::with_capacity(1 << 14, io::stderr());
    let mut last_tick = Duration::ZERO;
    loop {
        // Written text is held back only while more is on its way.
        let message = match receiver.try_recv() {
            Ok(message) => Ok(message),
            Err(_) => {
                let _ = stderr.flush();
                receiver.recv_timeout(TICK)
            }
        };
        match message {
            Ok(Message::Event(now, event)) => {
                tails.event(now, &event);
                view.event(now, event, &mut stderr);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => break,
        }
        let now = start.elapsed();
        if now.saturating_sub(last_tick) >= TICK {
            last_tick = now;
            view.tick(now, &mut stderr);
        }
    }
    view.finish(start.elapsed(), &mut stderr);
    let _ = stderr.flush();
    tails
}

/// What goes wrong with writing is passed over here: nobody may read what is shown, and the build goes on.
impl View {
    fn event(&mut self, now: Duration, event: Event, out: &mut impl Write) {
        let _ = match self {
            Self::Plain(plain) => plain.event(now, event, out),
            Self::Raw(raw) => raw.event(now, &event, out),
            Self::Tty(tty) => {
                tty.event(now, event);
                Ok(())
            }
            Self::Quiet => Ok(()),
        };
    }

    fn tick(&mut self, now: Duration, out: &mut impl Write) {
        match self {
            Self::Plain(plain) => {
                let _ = plain.tick(now, out);
            }
            Self::Tty(tty) => tty.draw(now),
            Self::Raw(_) | Self::Quiet => {}
        }
    }

    fn finish(&mut self, now: Duration, out: &mut impl Write) {
        match self {
            Self::Plain(plain) => {
                let _ = plain.finish(now, out);
            }
            Self::Tty(tty) => tty.finish(now),
            Self::Raw(_) | Self::Quiet => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use executor::event::{Outcome, TaskId};

    /// Reads events from lines: `MILLISECONDS VERB TASK REST`; `\n` in a log is a newline.
    pub(super) fn script(text: &str) -> Vec<(Duration, Event)> {
        let mut started = std::collections::BTreeMap::new();
        let mut event = |line: &str| {
            let mut words = line.splitn(4, ' ');
            let now = Duration::from_millis(words.next()?.parse().ok()?);
            let verb = words.next()?;
            let task = TaskId(words.next()?.parse().ok()?);
            let rest = words.next().unwrap_or_default();
            let done = |outcome, started: Option<&Duration>| Event::Done {
                task,
                outcome,
                elapsed: now.saturating_sub(started.copied().unwrap_or_default()),
            };
            let event = match verb {
                "start" => {
                    started.insert(task, now);
                    Event::Started { task, name: rest.to_owned() }
                }
                "log" => {
                    Event::Log { task, stream: 1, bytes: rest.replace("\\n", "\n").into_bytes() }
                }
                "part" => {
                    let (rest, finished) = match rest.strip_suffix(" done") {
                        Some(rest) => (rest, true),
                        None => (rest, false),
                    };
                    let (rest, total) = rest.rsplit_once(' ')?;
                    let (part, current) = rest.rsplit_once(' ')?;
                    let current = current.parse().ok()?;
                    Event::Progress {
                        task,
                        part: part.to_owned(),
                        current,
                        total: total.parse().ok(),
                        done: finished,
                    }
                }
                "warn" => Event::Warning { task: Some(task), message: rest.to_owned() },
                "done" => done(Outcome::Done, started.get(&task)),
                "cached" => done(Outcome::Cached, started.get(&task)),
                "cancel" => done(Outcome::Canceled, started.get(&task)),
                "fail" => done(Outcome::Failed { message: rest.to_owned() }, started.get(&task)),
                _ => return None,
            };
            Some((now, event))
        };
        text.lines().map(|line| event(line).unwrap_or_else(|| panic!("no event: {line}"))).collect()
    }

    #[test]
    fn failed_steps_are_framed_with_their_last_lines() {
        let mut text = "0 start 1 [2/2] RUN make\n0 start 2 other\n5 log 2 no\\n\n".to_owned();
        for n in 0..30 {
            text.push_str(&format!("10 log 1 line {n}\\n\n"));
        }
        text.push_str("20 log 1 end\n20 fail 1 exit code: 2\n20 cancel 2\n");
        let mut tails = Tails::default();
        script(&text).iter().for_each(|(now, event)| tails.event(*now, event));
        let frames = tails.frames();
        assert!(frames.starts_with("------\n > [2/2] RUN make:\n(11 earlier lines: `kiln logs` shows them)\n0.010 line 11\n"));
        assert!(
            frames.ends_with("0.010 line 29\n0.020 end\n------\n") && !frames.contains("no"),
            "{frames}"
        );
        assert_eq!(tails.messages().collect::<Vec<_>>(), ["exit code: 2"]);
    }

    #[test]
    fn a_display_ends_though_listeners_live_on() {
        let progress = Progress::start(Mode::Quiet).expect("a thread");
        let listener = progress.listener();
        for (_, event) in script("0 start 1 a\n0 fail 1 broken\n") {
            listener(event);
        }
        assert_eq!(progress.finish().messages().collect::<Vec<_>>(), ["broken"]);
        listener(Event::Warning { task: None, message: "late".to_owned() });
    }
}
