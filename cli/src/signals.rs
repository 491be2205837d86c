//! Ctrl-C and its like: the first one asks a build to stop and tidy up, the second one ends kiln at once.

use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::exit::Exit;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Calls `stop` when the user or the machine asks kiln to end.
pub fn on_interrupt(stop: impl Fn() + Send + 'static) {
    // Without signals to be had, the default applies: kiln is killed, and the next one tidies up.
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else { return };
    let wait = move || {
        for _ in signals.forever() {
            if INTERRUPTED.swap(true, Ordering::SeqCst) {
                std::process::exit(i32::from(Exit::Interrupted.status()));
            }
            stop();
        }
    };
    drop(std::thread::Builder::new().name("signals".to_owned()).spawn(wait));
}

/// Whether such a signal came.
pub fn was_interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}
