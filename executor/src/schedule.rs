//! Runs tasks that depend on each other, as many at once as there is work for.
//!
//! The calling thread works too, and further threads are only made while more than one task is ready: a chain of cached
//! steps never leaves the caller's thread.

use std::{
    collections::BTreeSet,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

struct State {
    ready: BTreeSet<usize>,
    n_missing: Vec<usize>,
    n_open: usize,
    n_threads: usize,
    n_idle: usize,
    has_failed: bool,
}

/// Runs `work` for each of `dependencies`, an entry being the tasks that must end before it.
///
/// Returns the first error; tasks that have not begun by then are never begun.
///
/// # Errors
///
/// Whatever `work` returned first.
pub(crate) fn run<E: Send>(
    dependencies: &[Vec<usize>],
    n_jobs: usize,
    work: impl Fn(usize) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let n_tasks = dependencies.len();
    let mut dependents = vec![Vec::new(); n_tasks];
    let mut n_missing = vec![0; n_tasks];
    for (task, needed) in dependencies.iter().enumerate() {
        let needed: BTreeSet<usize> = needed.iter().copied().filter(|it| *it != task).collect();
        n_missing[task] = needed.len();
        for other in needed {
            dependents[other].push(task);
        }
    }
    let ready = (0..n_tasks).filter(|it| n_missing[*it] == 0).collect();
    let state =
        State { ready, n_missing, n_open: n_tasks, n_threads: 1, n_idle: 0, has_failed: false };
    let state = Mutex::new(state);
    let changed = Condvar::new();
    let first_error = Mutex::new(None);
    std::thread::scope(|scope| {
        worker(
            scope,
            &Shared {
                state: &state,
                changed: &changed,
                first_error: &first_error,
                dependents: &dependents,
                n_jobs: n_jobs.max(1),
                work: &work,
            },
        )
    });
    match first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

struct Shared<'a, E, W> {
    state: &'a Mutex<State>,
    changed: &'a Condvar,
    first_error: &'a Mutex<Option<E>>,
    dependents: &'a [Vec<usize>],
    n_jobs: usize,
    work: &'a W,
}

impl<E, W> Clone for Shared<'_, E, W> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E, W> Copy for Shared<'_, E, W> {}

fn lock<'a>(state: &'a Mutex<State>) -> MutexGuard<'a, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn worker<'scope, 'env, E, W>(
    scope: &'scope std::thread::Scope<'scope, 'env>,
    shared: &Shared<'env, E, W>,
) where
    E: Send,
    W: Fn(usize) -> Result<(), E> + Sync,
{
    let shared = *shared;
    let mut state = lock(shared.state);
    loop {
        if state.has_failed || state.n_open == 0 {
            shared.changed.notify_all();
            return;
        }
        let Some(task) = state.ready.pop_first() else {
            state.n_idle += 1;
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.n_idle -= 1;
            continue;
        };
        if !state.ready.is_empty() {
            if state.n_idle > 0 {
                shared.changed.notify_one();
            } else if state.n_threads < shared.n_jobs {
                state.n_threads += 1;
                scope.spawn(move || worker(scope, &shared));
            }
        }
        drop(state);
        let result = (shared.work)(task);
        state = lock(shared.state);
        state.n_open -= 1;
        match result {
            Ok(()) => {
                for &next in &shared.dependents[task] {
                    state.n_missing[next] -= 1;
                    if state.n_missing[next] == 0 {
                        state.ready.insert(next);
                    }
                }
                if state.n_open == 0 || (!state.ready.is_empty() && state.n_idle > 0) {
                    shared.changed.notify_all();
                }
            }
            Err(error) => {
                state.has_failed = true;
                let mut first = shared.first_error.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert(error);
                drop(first);
                shared.changed.notify_all();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use super::*;

    #[test]
    fn tasks_run_after_what_they_need_and_side_by_side() {
        let order = Mutex::new(Vec::new());
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let dependencies = [vec![], vec![], vec![], vec![0, 1, 2], vec![3]];
        let result: Result<(), ()> = run(&dependencies, 8, |task| {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(50));
            running.fetch_sub(1, Ordering::SeqCst);
            order.lock().unwrap().push(task);
            Ok(())
        });
        assert_eq!(result, Ok(()));
        assert_eq!(order.lock().unwrap()[3..], [3, 4]);
        assert_eq!(most.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn the_first_error_ends_it() {
        let n_run = AtomicUsize::new(0);
        let chain: Vec<Vec<usize>> =
            (0..100).map(|it: usize| it.checked_sub(1).into_iter().collect()).collect();
        let result = run(&chain, 4, |task| {
            n_run.fetch_add(1, Ordering::SeqCst);
            if task == 10 { Err(task) } else { Ok(()) }
        });
        assert_eq!((result, n_run.load(Ordering::SeqCst)), (Err(10), 11));
    }
}
