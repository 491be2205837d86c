//! Progress as BuildKit's `SolveStatus` records, one JSON object per line.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Write},
    time::{Duration, SystemTime},
};

use executor::event::{Event, Outcome, TaskId};
use image::Digest;
use serde::Serialize;

use crate::time::rfc3339;

/// The view.
#[derive(Debug)]
pub struct Raw {
    epoch: SystemTime,
    vertexes: BTreeMap<TaskId, Vertex>,
    parts: HashMap<(TaskId, String), Duration>,
}

#[derive(Debug, Clone, Serialize)]
struct Vertex {
    digest: Digest,
    name: String,
    started: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
    #[serde(skip_serializing_if = "is_false")]
    cached: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Status<'a> {
    id: &'a str,
    vertex: Digest,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    current: u64,
    timestamp: String,
    started: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
}

#[derive(Debug, Serialize)]
struct Log {
    vertex: Digest,
    stream: u8,
    data: String,
    timestamp: String,
}

#[derive(Debug, Serialize)]
struct Warning {
    #[serde(skip_serializing_if = "Option::is_none")]
    vertex: Option<Digest>,
    level: u8,
    short: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Record<'a> {
    Vertexes([&'a Vertex; 1]),
    Statuses([Status<'a>; 1]),
    Logs([Log; 1]),
    Warnings([Warning; 1]),
}

impl Raw {
    /// A view whose times count from `epoch`.
    pub fn new(epoch: SystemTime) -> Self {
        Self { epoch, vertexes: BTreeMap::new(), parts: HashMap::new() }
    }

    /// Shows an event that came at `now`.
    ///
    /// # Errors
    ///
    /// Returns the error of `out`.
    pub fn event(&mut self, now: Duration, event: &Event, out: &mut impl Write) -> io::Result<()> {
        let time = rfc3339(self.epoch + now);
        let digest = |task: &TaskId, vertexes: &BTreeMap<TaskId, Vertex>| {
            vertexes.get(task).map(|it| it.digest)
        };
        match event {
            Event::Started { task, name } => {
                let digest = Digest::of(format!("task {} {name}", task.0).as_bytes());
                let vertex = Vertex {
                    digest,
                    name: name.clone(),
                    started: time,
                    completed: None,
                    cached: false,
                    error: None,
                };
                write(&Record::Vertexes([&vertex]), out)?;
                self.vertexes.insert(*task, vertex);
            }
            Event::Log { task, stream, bytes } => {
                let Some(vertex) = digest(task, &self.vertexes) else { return Ok(()) };
                let log = Log { vertex, stream: *stream, data: base64(bytes), timestamp: time };
                write(&Record::Logs([log]), out)?;
            }
            Event::Progress { task, part, current, total, done } => {
                let Some(vertex) = digest(task, &self.vertexes) else { return Ok(()) };
                let key = (*task, part.clone());
                let started = rfc3339(self.epoch + *self.parts.entry(key.clone()).or_insert(now));
                let completed = done.then(|| time.clone());
                let (total, current) = (*total, *current);
                let status = Status {
                    id: part,
                    vertex,
                    name: part,
                    total,
                    current,
                    timestamp: time,
                    started,
                    completed,
                };
                write(&Record::Statuses([status]), out)?;
                if *done {
                    self.parts.remove(&key);
                }
            }
            Event::Warning { task, message } => {
                let vertex = task.as_ref().and_then(|it| digest(it, &self.vertexes));
                write(
                    &Record::Warnings([Warning {
                        vertex,
                        level: 1,
                        short: base64(message.as_bytes()),
                    }]),
                    out,
                )?;
            }
            Event::Done { task, outcome, .. } => {
                let Some(mut vertex) = self.vertexes.remove(task) else { return Ok(()) };
                vertex.completed = Some(time);
                vertex.cached = *outcome == Outcome::Cached;
                vertex.error = match outcome {
                    Outcome::Failed { message } => Some(message.clone()),
                    Outcome::Canceled => Some("context canceled".to_owned()),
                    Outcome::Done | Outcome::Cached => None,
                };
                write(&Record::Vertexes([&vertex]), out)?;
            }
        }
        Ok(())
    }
}

fn write(record: &Record<'_>, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, record)?;
    out.write_all(b"\n")
}

fn is_false(value: &bool) -> bool {
    !*value
}

/// Encodes bytes as Go's JSON does: base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |n: usize| u32::from(chunk.get(n).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for n in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * n) & 63) as usize];
            out.push(if n <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{super::tests::script, *};

    #[test]
    fn records() {
        let mut raw = Raw::new(SystemTime::UNIX_EPOCH);
        let mut out = Vec::new();
        for (now, event) in script(
            "0 start 1 [1/1] RUN x\n500 log 1 hi\\n\n1000 part 1 p 1 2 done\n1500 warn 1 w\n2000 fail 1 no\n",
        ) {
            raw.event(now, &event, &mut out).expect("a Vec takes all");
        }
        let text = String::from_utf8(out).expect("text");
        let digest = Digest::of(b"task 1 [1/1] RUN x").to_string();
        let expected = [
            r#"{"vertexes":[{"digest":"D","name":"[1/1] RUN x","started":"1970-01-01T00:00:00.000000000Z"}]}"#,
            r#"{"logs":[{"vertex":"D","stream":1,"data":"aGkK","timestamp":"1970-01-01T00:00:00.500000000Z"}]}"#,
            r#"{"statuses":[{"id":"p","vertex":"D","name":"p","total":2,"current":1,"timestamp":"1970-01-01T00:00:01.000000000Z","started":"1970-01-01T00:00:01.000000000Z","completed":"1970-01-01T00:00:01.000000000Z"}]}"#,
            r#"{"warnings":[{"vertex":"D","level":1,"short":"dw=="}]}"#,
            r#"{"vertexes":[{"digest":"D","name":"[1/1] RUN x","started":"1970-01-01T00:00:00.000000000Z","completed":"1970-01-01T00:00:02.000000000Z","error":"no"}]}"#,
        ];
        assert_eq!(text.replace(&digest, "D").lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn base64_pads() {
        assert_eq!(
            ["", "f", "fo", "foo"].map(|it| base64(it.as_bytes())),
            ["", "Zg==", "Zm8=", "Zm9v"]
        );
    }
}
