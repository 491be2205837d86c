//! The process of a RUN and what it prints.

use std::{
    collections::VecDeque,
    io::{Read, Write},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use sandbox::Spec;

use super::write_behind::WriteBehind;
use crate::{error::ExecutorError, execute::Execution, session::Task};

/// How many of the last lines of output an error repeats.
const N_TAIL_LINES: usize = 20;

impl Execution<'_> {
    pub(super) fn run_sandbox(&self, spec: &Spec, task: &Task<'_>) -> Result<Ended, ExecutorError> {
        let log = self.session.store.new_log(&self.session.build_id, &task.log_name())?;
        let mut behind = WriteBehind::new(&self.session.store);
        let child = Arc::new(sandbox::spawn(spec)?);
        let root = child.take_root();
        for note in child.notes() {
            task.warn(note);
        }
        let guard = {
            let child = child.clone();
            self.session.cancel.on_cancel(move || child.kill())
        };
        let output = Mutex::new(Output {
            log,
            room: self.session.log_limit,
            limit: self.session.log_limit,
            tail: VecDeque::new(),
        });
        std::thread::scope(|scope| {
            let stderr = child.take_stderr();
            let reader = scope.spawn(|| forward(stderr, 2, &output, task, None));
            forward(child.take_stdout(), 1, &output, task, Some(&mut behind));
            drop(reader.join());
        });
        let exit = child.wait()?;
        behind.end();
        drop(guard);
        if exit.too_many_processes {
            task.warn("a process could not be started because the limit of processes was reached (`--pids-limit`)".to_owned());
        }
        self.session.cancel.check()?;
        let output = output.into_inner().unwrap_or_else(PoisonError::into_inner);
        let link_owners = child.take_link_owners();
        let link_owners =
            link_owners.into_iter().map(|(it, owner)| ((it.number, it.made.0, it.made.1), owner));
        let link_owners = link_owners.collect();
        Ok(Ended { exit, root, link_owners, tail: output.tail.into_iter().collect() })
    }
}

/// How a command ended, and the last lines of its output.
pub(super) struct Ended {
    pub(super) exit: sandbox::Exit,
    /// The handle that keeps its root mounted.
    pub(super) root: Option<OwnedFd>,
    pub(super) tail: Vec<String>,
    /// Owners of links and pipes, where the file system does not have them.
    pub(super) link_owners: cache::owners::LinkOwners,
}

struct Output {
    log: std::fs::File,
    /// How many bytes are still logged and shown.
    room: u64,
    limit: u64,
    tail: VecDeque<String>,
}

impl Output {
    /// The part of `bytes` that there is room for; where room ends, a line that says so.
    fn clip(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        if self.room == 0 || bytes.is_empty() {
            return Vec::new();
        }
        match usize::try_from(self.room) {
            Ok(room) if bytes.len() >= room => {
                self.room = 0;
                bytes.truncate(room);
                let limit = self.limit;
                let line = format!("\n[output clipped, log limit of {limit} bytes reached]\n");
                bytes.extend(line.as_bytes());
            }
            _ => self.room -= bytes.len() as u64,
        }
        bytes
    }
}

/// Waits until there is something to read, and looks after what is written meanwhile.
fn wait_for(stream: &std::fs::File, behind: &mut WriteBehind<'_>) {
    let every = i64::try_from(WriteBehind::EVERY.as_nanos()).unwrap_or(0);
    let every = Timespec { tv_sec: 0, tv_nsec: every };
    loop {
        let mut polled = [PollFd::new(stream, PollFlags::IN)];
        let found = poll(&mut polled, Some(&every));
        behind.look();
        match found {
            Ok(0) | Err(Errno::INTR) => {}
            _ => return,
        }
    }
}

/// Passes the output of a command on, in whole lines where they come soon enough.
fn forward(
    stream: Option<OwnedFd>,
    number: u8,
    output: &Mutex<Output>,
    task: &Task<'_>,
    mut behind: Option<&mut WriteBehind<'_>>,
) {
    let Some(stream) = stream else { return };
    let mut stream = std::fs::File::from(stream);
    let mut buffer = vec![0_u8; 16 * 1024];
    let mut pending: Vec<u8> = Vec::new();
    loop {
        if let Some(behind) = &mut behind {
            wait_for(&stream, behind);
        }
        let n_read = match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n_read) => n_read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        pending.extend_from_slice(&buffer[..n_read]);
        let n_whole = match pending.iter().rposition(|it| *it == b'\n') {
            Some(end) => end + 1,
            // A line without an end is passed on in parts rather than kept.
            None if pending.len() > 64 * 1024 => pending.len(),
            None => continue,
        };
        let rest = pending.split_off(n_whole);
        emit(std::mem::replace(&mut pending, rest), number, output, task);
    }
    if !pending.is_empty() {
        emit(pending, number, output, task);
    }
}

fn emit(bytes: Vec<u8>, number: u8, output: &Mutex<Output>, task: &Task<'_>) {
    let bytes = {
        let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
        for line in String::from_utf8_lossy(&bytes).lines() {
            if output.tail.len() == N_TAIL_LINES {
                output.tail.pop_front();
            }
            output.tail.push_back(line.chars().take(2000).collect());
        }
        let bytes = output.clip(bytes);
        // A full disk must not stop the command; what is shown is shown all the same.
        let _ = output.log.write_all(&bytes);
        bytes
    };
    if !bytes.is_empty() {
        task.log(number, bytes);
    }
}
