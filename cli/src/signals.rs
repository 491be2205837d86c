//! Ctrl-C and its like: the first one asks a build to stop and tidy up, the second one ends kiln at once. So does the first one if
//! that takes long: no process outlives kiln, and files that it leaves are removed by the next command, as after a crash.

use std::{
    io::Write,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::exit::Exit;

/// How long stopping may take: to remove a tree of many files, or to unpack the layer that is being unpacked, would take longer.
const PATIENCE: Duration = Duration::from_millis(1200);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Calls `stop` when the user or the machine asks kiln to end.
pub fn on_interrupt(stop: impl Fn() + Send + 'static) {
    // Without signals to be had, the default applies: kiln is killed, and the next one tidies up.
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else { return };
    let wait = move || {
        for _ in signals.forever() {
            if INTERRUPTED.swap(true, Ordering::SeqCst) {
                end();
            }
            let late = || {
                std::thread::sleep(PATIENCE);
                let text = "canceled; what is left of it is removed by the next kiln command";
                let _ = writeln!(std::io::stderr(), "{text}");
                end();
            };
            drop(std::thread::Builder::new().name("patience".to_owned()).spawn(late));
            stop();
        }
    };
    drop(std::thread::Builder::new().name("signals".to_owned()).spawn(wait));
}

fn end() {
    std::process::exit(i32::from(Exit::Interrupted.status()));
}

/// Whether such a signal came.
pub fn was_interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}
