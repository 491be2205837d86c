//! Threads that start sandboxes in a version 1 group, which they are in themselves.
//!
//! A process is born into the groups of the thread that makes it. So a thread joins once, which takes the kernel several
//! milliseconds, and every sandbox it starts costs nothing. It serves one sandbox at a time, so the group limits that one.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, mpsc};
use std::thread::JoinHandle;

use super::{Hierarchies, PREFIX, write};

/// The thread, and the process between kiln and the command, which count as well.
const OURS: u64 = 2;

type Job = Box<dyn FnOnce() + Send>;

/// A thread in a group of its own that limits the number of processes.
#[derive(Debug)]
pub(crate) struct Launcher {
    thread: Option<Thread>,
    /// How often the limit had been hit before.
    n_hits_before: u64,
}

#[derive(Debug)]
struct Thread {
    jobs: mpsc::Sender<Job>,
    handle: JoinHandle<()>,
    group: PathBuf,
    limit: u64,
}

/// Threads that no sandbox needs.
static IDLE: Mutex<Vec<Thread>> = Mutex::new(Vec::new());

fn idle() -> MutexGuard<'static, Vec<Thread>> {
    IDLE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Launcher {
    /// Takes an idle thread with this limit, or makes one; `None` if there is no such controller of version 1, or it is not ours
    /// to use.
    pub(crate) fn take(limit: u64) -> Option<Self> {
        let above = Hierarchies::get().v1("pids")?;
        let idle_one = {
            let mut idle = idle();
            let position = idle.iter().position(|it| it.limit == limit);
            position.map(|it| idle.swap_remove(it))
        };
        let thread = match idle_one {
            Some(thread) => thread,
            None => Thread::start(above.to_owned(), limit)?,
        };
        Some(Self { n_hits_before: thread.n_hits(), thread: Some(thread) })
    }

    /// Whether the limit was hit since this was taken.
    pub(super) fn was_hit(&self) -> bool {
        self.thread.as_ref().is_some_and(|it| it.n_hits() > self.n_hits_before)
    }

    /// Does something on the thread.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (done, result) = mpsc::sync_channel(1);
        let job = Box::new(move || drop(done.send(job())));
        self.thread.as_ref()?.jobs.send(job).ok()?;
        result.recv().ok()
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        idle().extend(self.thread.take());
    }
}

impl Thread {
    fn start(above: PathBuf, limit: u64) -> Option<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let group = above.join(format!("{PREFIX}{}-pids-{number}", std::process::id()));
        fs::create_dir(&group).ok()?;
        let (jobs, received) = mpsc::channel::<Job>();
        let (ready, is_ready) = mpsc::sync_channel(1);
        let tasks = group.join("tasks");
        let started = write(&group.join("pids.max"), &limit.saturating_add(OURS).to_string())
            .and_then(|()| {
                std::thread::Builder::new().spawn(move || {
                    // The thread that writes.
                    let _ = ready.send(write(&tasks, "0"));
                    received.into_iter().for_each(|job| job());
                })
            });
        match started {
            Ok(handle) if matches!(is_ready.recv(), Ok(Ok(()))) => {
                Some(Self { jobs, handle, group, limit })
            }
            Ok(handle) => {
                drop(jobs);
                let _ = handle.join();
                let _ = fs::remove_dir(&group);
                None
            }
            Err(_) => {
                let _ = fs::remove_dir(&group);
                None
            }
        }
    }

    fn n_hits(&self) -> u64 {
        super::count(&self.group.join("pids.events"), "max ")
    }

    fn end(self) {
        drop(self.jobs);
        let _ = self.handle.join();
        super::remove(&self.group);
    }
}

/// Ends all idle threads and removes their groups.
pub(super) fn release() {
    let all = std::mem::take(&mut *idle());
    all.into_iter().for_each(Thread::end);
}
