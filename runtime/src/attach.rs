//! The streams, the terminal and the signals of this process, connected with those of a container.
//!
//! Streams go through pipes, or a terminal of the container's own, and never are the ones of this process: a container cannot read from
//! the user's terminal through its output, and may open `/dev/stdout` whoever it runs as.

use std::{
    fs::File,
    io::IsTerminal,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::Errno,
    stdio,
    termios::{self, OptionalActions, Termios, Winsize},
};
use sandbox::{Child, Exit, SandboxError, Stdio};
use signal_hook::{consts, iterator::Signals};

use crate::{error::RuntimeError, request::RunRequest, signal};

/// Signals that are for the command. What is left out stops, is for kiln itself, or says that kiln is broken.
const FORWARDED: [i32; 11] = [
    consts::SIGHUP,
    consts::SIGINT,
    consts::SIGQUIT,
    consts::SIGTERM,
    consts::SIGUSR1,
    consts::SIGUSR2,
    consts::SIGALRM,
    consts::SIGCONT,
    consts::SIGIO,
    consts::SIGWINCH,
    // That there are others.
    consts::SIGURG,
];

/// How many bytes are moved at once: what a pipe holds.
const BUFFER: usize = 64 << 10;

/// The size of a terminal of which nothing is known.
const UNKNOWN_SIZE: Winsize = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };

/// Our side of a container. From when it is made, signals wait for the command.
pub(crate) struct Attachment {
    signals: Signals,
    has_input: bool,
    has_terminal: bool,
}

impl Attachment {
    pub(crate) fn new(request: &RunRequest) -> Result<Self, RuntimeError> {
        let has_input = request.interactive && !request.detached;
        if request.tty && has_input && !std::io::stdin().is_terminal() {
            return Err(RuntimeError::NotATerminal);
        }
        let signals = Signals::new(FORWARDED).map_err(|source| RuntimeError::Signals { source })?;
        Ok(Self { signals, has_input, has_terminal: request.tty })
    }

    /// What the sandbox has to provide.
    pub(crate) fn stdio(&self) -> Stdio {
        match (self.has_terminal, self.has_input) {
            (true, _) => {
                let size = window_size();
                Stdio::Pty { rows: size.ws_row, cols: size.ws_col }
            }
            (false, true) => Stdio::Piped,
            (false, false) => Stdio::Capture,
        }
    }

    /// Moves bytes and signals until the command has ended and its output is written, to `log` if there is one.
    pub(crate) fn run(
        mut self,
        child: &Child,
        folder: &Path,
        log: Option<&File>,
    ) -> Result<Exit, RuntimeError> {
        // Given back when this function is left, and not before all output is written.
        let _raw = match self.has_terminal && self.has_input {
            true => Some(RawTerminal::enter()?),
            false => None,
        };
        let terminal = child.take_terminal();
        let (input, output, errors) =
            (child.take_stdin(), child.take_stdout(), child.take_stderr());
        let (our_output, our_errors) = match log {
            Some(log) => (log.as_fd(), log.as_fd()),
            None => (stdio::stdout(), stdio::stderr()),
        };
        let signals_end = self.signals.handle();
        let exit = std::thread::scope(|scope| {
            let (terminal, signals) = (terminal.as_ref(), &mut self.signals);
            scope.spawn(move || forward_signals(signals, child, folder, terminal));
            match terminal {
                Some(terminal) => {
                    scope.spawn(move || {
                        if pass_on(terminal.as_fd(), our_output).is_err() {
                            hang_up(child);
                        }
                    });
                    if self.has_input {
                        scope.spawn(move || pass_input(terminal.as_fd(), child));
                    }
                }
                None => {
                    if let Some(input) = input {
                        scope.spawn(move || pass_input(input.as_fd(), child));
                    }
                    for (from, to) in [(output, our_output), (errors, our_errors)] {
                        // When our side cannot be written to, the pipe is closed: the command hears of it as if it wrote itself.
                        scope.spawn(move || from.map(|from: OwnedFd| pass_on(from.as_fd(), to)));
                    }
                }
            }
            let exit = child.wait();
            signals_end.close();
            exit
        });
        exit.map_err(|error: SandboxError| error.into())
    }
}

/// So many requests to end make an end, as in docker: the command is process 1, and may not hear of any.
const LAST_REQUEST: usize = 3;

/// Sends what arrives to the command. The window's size goes to its terminal, if it has one.
fn forward_signals(
    signals: &mut Signals,
    child: &Child,
    folder: &Path,
    terminal: Option<&OwnedFd>,
) {
    let mut n_requests = 0;
    for signal in signals.forever() {
        if matches!(signal, consts::SIGINT | consts::SIGTERM) {
            n_requests += 1;
            if n_requests >= LAST_REQUEST {
                child.kill();
            }
        }
        match terminal {
            Some(terminal) if signal == consts::SIGWINCH => {
                let _ = termios::tcsetwinsize(terminal, window_size());
            }
            Some(_) if signal == consts::SIGHUP => hang_up(child),
            _ if signal == consts::SIGURG => {
                for it in signal::take(folder) {
                    match it {
                        consts::SIGKILL => child.kill(),
                        it => drop(child.signal(it)),
                    }
                }
            }
            // One that has ended needs no signal.
            _ => drop(child.signal(signal)),
        }
    }
}

/// Nobody looks at the terminal any more: the command hears what a shell hears of it, and if that does not end it, it is
/// killed, since nothing else could reach it.
fn hang_up(child: &Child) {
    const GRACE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
    let _ = child.signal(consts::SIGHUP);
    let pidfd = child.pidfd();
    let ended = rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&GRACE));
    if ended != Ok(1) {
        child.kill();
    }
}

/// The size of the window that we are in.
fn window_size() -> Winsize {
    let is_known = |it: &Winsize| it.ws_row > 0 && it.ws_col > 0;
    let of = |fd: BorrowedFd<'_>| termios::tcgetwinsize(fd).ok().filter(is_known);
    of(stdio::stdout()).or_else(|| of(stdio::stdin())).unwrap_or(UNKNOWN_SIZE)
}

/// Moves all of our input to the command, until that has ended. What it has not read by then is lost, as in docker.
fn pass_input(to: BorrowedFd<'_>, child: &Child) {
    let mut buffer = vec![0; BUFFER];
    loop {
        let stdin = stdio::stdin();
        let pidfd = child.pidfd();
        let mut polled = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(&pidfd, PollFlags::IN)];
        match rustix::event::poll(&mut polled, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
        if !polled[1].revents().is_empty() {
            return;
        }
        if polled[0].revents().is_empty() {
            continue;
        }
        match rustix::io::read(stdin, &mut *buffer) {
            Ok(0) => return,
            Ok(n_bytes) => {
                if write_all(to, &buffer[..n_bytes]).is_err() {
                    return;
                }
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => return,
        }
    }
}

/// Moves all that comes, to its end. The end of a terminal is `EIO`.
fn pass_on(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match rustix::io::read(from, &mut *buffer) {
            Ok(0) | Err(Errno::IO) => return Ok(()),
            Ok(n_bytes) => write_all(to, &buffer[..n_bytes])?,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(n_bytes) => bytes = &bytes[n_bytes..],
            Err(Errno::INTR) => {}
            // Somebody who shares our output has made it so that it does not wait.
            Err(Errno::AGAIN) => {
                rustix::event::poll(&mut [PollFd::new(&to, PollFlags::OUT)], None).map(drop)?;
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Our terminal in raw mode: each key goes to the container, Ctrl-C too.
struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    fn enter() -> Result<Self, RuntimeError> {
        let failed =
            |action| move |errno: Errno| RuntimeError::Terminal { action, source: errno.into() };
        let before = termios::tcgetattr(stdio::stdin()).map_err(failed("read the settings of"))?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(stdio::stdin(), OptionalActions::Now, &raw)
            .map_err(failed("change the settings of"))?;
        Ok(Self { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // A terminal that has gone away needs no settings.
        let _ = termios::tcsetattr(stdio::stdin(), OptionalActions::Drain, &self.before);
    }
}
