//! Progress as lines, in the format of `docker buildx --progress=plain`.
//!
//! One task at a time has the floor. The lines of others wait until it is done, or until they have waited for long; then
//! the floor changes with a blank line and the name of the task that has it now.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Write},
    time::Duration,
};

use executor::event::{Event, Outcome, TaskId};

use super::line::{Lines, amount, harmless, printable, stamp};

/// How long lines wait for the floor.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How many bytes of them wait.
const MOST_WAITING: usize = 64 * 1024;
/// A part is reported again after this time,
const REPORT_AFTER: Duration = Duration::from_secs(5);
/// or when it grew by this share, but not more often than
const REPORT_SHARE: f64 = 0.05;
/// this.
const REPORT_PAUSE: Duration = Duration::from_millis(200);

/// The view.
#[derive(Debug, Default)]
pub struct Plain {
    tasks: BTreeMap<TaskId, Task>,
    floor: Option<TaskId>,
    n_tasks: usize,
    wrote: bool,
}

#[derive(Debug, Default)]
struct Task {
    number: usize,
    name: String,
    introduced: bool,
    started: Duration,
    logs: [Lines; 2],
    parts: HashMap<String, Part>,
    waiting: Vec<String>,
    n_waiting_bytes: usize,
    waiting_since: Duration,
}

#[derive(Debug)]
struct Part {
    started: Duration,
    shown: Duration,
    share: f64,
    /// Its end was told. A transfer that several do at once may end several times.
    has_ended: bool,
}

impl Plain {
    /// Shows an event that came at `now`.
    ///
    /// # Errors
    ///
    /// Returns the error of `out`.
    pub fn event(&mut self, now: Duration, event: Event, out: &mut impl Write) -> io::Result<()> {
        match event {
            Event::Started { task, name } => {
                self.n_tasks += 1;
                let name = printable(&name);
                let state = Task { number: self.n_tasks, name, started: now, ..Task::default() };
                self.tasks.insert(task, state);
                if self.floor.is_none() {
                    self.give_floor(task, out)?;
                }
            }
            Event::Log { task, stream, bytes } => {
                let Some(state) = self.tasks.get_mut(&task) else { return Ok(()) };
                let time = stamp(now.saturating_sub(state.started));
                let lines = state.logs[usize::from(stream == 2)].push(&bytes);
                let lines = lines.into_iter().map(|it| format!("{time} {it}")).collect();
                self.say(now, task, lines, out)?;
            }
            Event::Progress { task, part, current, total, done } => {
                let Some(state) = self.tasks.get_mut(&task) else { return Ok(()) };
                if let Some(line) = state.report(now, part, current, total, done) {
                    self.say(now, task, vec![line], out)?;
                }
            }
            Event::Warning { task, message } => {
                let message = harmless(&message);
                match task.filter(|it| self.tasks.contains_key(it)) {
                    Some(task) => self.say(now, task, vec![format!("WARN: {message}")], out)?,
                    None => {
                        self.leave_floor(out)?;
                        writeln!(out, "{}WARN: {message}", if self.wrote { "\n" } else { "" })?;
                        self.wrote = true;
                    }
                }
            }
            Event::Done { task, outcome, elapsed } => {
                self.done(now, task, &outcome, elapsed, out)?
            }
        }
        Ok(())
    }

    /// Gives the floor to those who have waited for long.
    ///
    /// # Errors
    ///
    /// Returns the error of `out`.
    pub fn tick(&mut self, now: Duration, out: &mut impl Write) -> io::Result<()> {
        let waited = |it: &Task| {
            !it.waiting.is_empty() && now.saturating_sub(it.waiting_since) > LONGEST_WAIT
        };
        match self.tasks.iter().find(|(_, it)| waited(it)).map(|(task, _)| *task) {
            Some(task) => self.give_floor(task, out),
            None => Ok(()),
        }
    }

    /// Writes all that waits.
    ///
    /// # Errors
    ///
    /// Returns the error of `out`.
    pub fn finish(&mut self, now: Duration, out: &mut impl Write) -> io::Result<()> {
        for task in self.tasks.keys().copied().collect::<Vec<_>>() {
            self.say_rests(now, task);
            if self.tasks.get(&task).is_some_and(|it| !it.waiting.is_empty()) {
                self.give_floor(task, out)?;
            }
        }
        if self.wrote {
            writeln!(out)?;
        }
        Ok(())
    }

    fn done(
        &mut self,
        now: Duration,
        task: TaskId,
        outcome: &Outcome,
        took: Duration,
        out: &mut impl Write,
    ) -> io::Result<()> {
        self.say_rests(now, task);
        if !self.tasks.contains_key(&task) {
            return Ok(());
        }
        self.give_floor(task, out)?;
        let Some(state) = self.tasks.remove(&task) else { return Ok(()) };
        let number = state.number;
        match outcome {
            Outcome::Done => writeln!(out, "#{number} DONE {:.1}s", took.as_secs_f64())?,
            Outcome::Cached => writeln!(out, "#{number} CACHED")?,
            Outcome::Canceled => writeln!(out, "#{number} CANCELED")?,
            Outcome::Failed { message } => writeln!(out, "#{number} ERROR: {}", harmless(message))?,
        }
        self.floor = None;
        let waiting = self.tasks.iter().filter(|(_, it)| !it.waiting.is_empty());
        let next = waiting.min_by_key(|(_, it)| it.waiting_since).map(|(task, _)| *task);
        match next
            .or_else(|| self.tasks.iter().find(|(_, it)| !it.introduced).map(|(task, _)| *task))
        {
            Some(next) => self.give_floor(next, out),
            None => Ok(()),
        }
    }

    /// Lets a task say lines: at once if it has the floor or nobody has.
    fn say(
        &mut self,
        now: Duration,
        task: TaskId,
        lines: Vec<String>,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let Some(state) = self.tasks.get_mut(&task).filter(|_| !lines.is_empty()) else {
            return Ok(());
        };
        if state.waiting.is_empty() {
            state.waiting_since = now;
        }
        state.n_waiting_bytes += lines.iter().map(String::len).sum::<usize>();
        state.waiting.extend(lines);
        let waited = now.saturating_sub(state.waiting_since) > LONGEST_WAIT
            || state.n_waiting_bytes > MOST_WAITING;
        match self.floor {
            Some(other) if other != task && !waited => Ok(()),
            _ => self.give_floor(task, out),
        }
    }

    /// Adds lines that no newline has ended to what a task says.
    fn say_rests(&mut self, now: Duration, task: TaskId) {
        let Some(state) = self.tasks.get_mut(&task) else { return };
        let time = stamp(now.saturating_sub(state.started));
        for n in 0..2 {
            let rest = state.logs[n].rest().map(|it| format!("{time} {it}"));
            state.waiting.extend(rest);
        }
    }

    fn give_floor(&mut self, task: TaskId, out: &mut impl Write) -> io::Result<()> {
        if self.floor != Some(task) {
            self.leave_floor(out)?;
            let Some(state) = self.tasks.get_mut(&task) else { return Ok(()) };
            if self.wrote {
                writeln!(out)?;
            }
            writeln!(out, "#{} {}", state.number, state.name)?;
            state.introduced = true;
            self.floor = Some(task);
            self.wrote = true;
        }
        let Some(state) = self.tasks.get_mut(&task) else { return Ok(()) };
        state.n_waiting_bytes = 0;
        for line in std::mem::take(&mut state.waiting) {
            writeln!(out, "#{} {line}", state.number)?;
        }
        Ok(())
    }

    fn leave_floor(&mut self, out: &mut impl Write) -> io::Result<()> {
        if let Some(state) = self.floor.take().and_then(|it| self.tasks.get(&it)) {
            writeln!(out, "#{} ...", state.number)?;
        }
        Ok(())
    }
}

impl Task {
    /// Returns the line for a part that moved, if it is time for one.
    fn report(
        &mut self,
        now: Duration,
        name: String,
        current: u64,
        total: Option<u64>,
        done: bool,
    ) -> Option<String> {
        let share = total.filter(|it| *it > 0).map_or(0.0, |it| current as f64 / it as f64);
        let known = self.parts.get(&name);
        if done && known.is_some_and(|it| it.has_ended) {
            return None;
        }
        let due = known.is_none_or(|part| {
            let pause = now.saturating_sub(part.shown);
            done || pause >= REPORT_AFTER
                || share - part.share >= REPORT_SHARE && pause >= REPORT_PAUSE
        });
        if !due {
            return None;
        }
        let started = known.map_or(now, |it| it.started);
        let seconds = now.saturating_sub(started).as_secs_f64();
        let time = if seconds > 0.01 { format!(" {seconds:.1}s") } else { String::new() };
        let line =
            format!("{name}{}{time}{}", amount(current, total), if done { " done" } else { "" });
        self.parts.insert(name, Part { started, shown: now, share, has_ended: done });
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::script, *};

    fn shown(text: &str) -> String {
        let (mut view, mut out) = (Plain::default(), Vec::new());
        let mut last = Duration::ZERO;
        for (now, event) in script(text) {
            view.tick(now, &mut out).expect("a Vec takes all");
            view.event(now, event, &mut out).expect("a Vec takes all");
            last = now;
        }
        view.finish(last, &mut out).expect("a Vec takes all");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn one_step_after_the_other() {
        let text = shown(
            "0 start 1 [internal] load build context\n0 part 1 transferring context: 104 - done\n20 done 1\n\
             20 start 2 [1/2] FROM busybox\n20 cached 2\n30 start 3 [2/2] RUN x\n40 log 3 a\\nb\n1264 log 3 c\\n\n1300 done 3\n",
        );
        let expected = "\
#1 [internal] load build context
#1 transferring context: 104B done
#1 DONE 0.0s

#2 [1/2] FROM busybox
#2 CACHED

#3 [2/2] RUN x
#3 0.010 a
#3 1.234 bc
#3 DONE 1.3s

";
        assert_eq!(text, expected);
    }

    #[test]
    fn parallel_steps_take_turns() {
        let text = shown(
            "0 start 1 one\n0 start 2 two\n10 log 1 a\\n\n20 log 2 x\\n\n30 log 1 b\\n\n6000 log 2 y\\n\n6010 log 1 c\n\
             6020 fail 2 exit code: 1\n6030 cancel 1\n",
        );
        let expected = "\
#1 one
#1 0.010 a
#1 0.030 b
#1 ...

#2 two
#2 0.020 x
#2 6.000 y
#2 ERROR: exit code: 1

#1 one
#1 6.030 c
#1 CANCELED

";
        assert_eq!(text, expected);
    }

    #[test]
    fn parts_are_reported_now_and_then() {
        let text = shown(
            "0 start 1 pull\n0 part 1 sha256:12 0 1000000\n100 part 1 sha256:12 300000 1000000\n\
             300 part 1 sha256:12 310000 1000000\n320 part 1 sha256:12 320000 1000000\n900 part 1 sha256:12 1000000 1000000 done\n\
             900 part 1 sha256:12 1000000 1000000 done\n\
             900 warn 1 slow\n900 done 1\n",
        );
        let expected = "\
#1 pull
#1 sha256:12 0B / 1.00MB
#1 sha256:12 310.00kB / 1.00MB 0.3s
#1 sha256:12 1.00MB / 1.00MB 0.9s done
#1 WARN: slow
#1 DONE 0.9s

";
        assert_eq!(text, expected);
    }
}
