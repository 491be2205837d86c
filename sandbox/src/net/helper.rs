//! A program that carries what an isolated network sends, for a kiln that may not change the machine's network.
//!
//! `pasta` or `slirp4netns` runs beside kiln, holds an interface of the namespace, and makes ordinary connections. It is the
//! child of a process of ours that ends with kiln and, being the first of a pid namespace, takes it along.
//!
//! # Source
//!
//! `pasta(1)`, `slirp4netns(1)`.

use std::ffi::{CString, OsStr};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{WaitId, WaitIdOptions};

use super::link;
use super::netlink::Socket;
use crate::init;
use crate::sys::{self, CStrings, Fork, namespace};

/// Where the programs get an interface from.
pub(crate) const TUN: &str = "/dev/net/tun";

/// How long a program may take until the network is there.
const PATIENCE: Duration = Duration::from_secs(5);

/// A program, and what it calls the name server that it passes on to those of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Program {
    Pasta,
    Slirp4netns,
}

impl Program {
    pub(super) const ALL: [Self; 2] = [Self::Pasta, Self::Slirp4netns];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pasta => "pasta",
            Self::Slirp4netns => "slirp4netns",
        }
    }

    /// The name server inside.
    pub(super) fn resolver(self) -> Ipv4Addr {
        match self {
            Self::Pasta => Ipv4Addr::new(169, 254, 1, 1),
            Self::Slirp4netns => Ipv4Addr::new(10, 0, 2, 3),
        }
    }

    /// Nothing of the machine's loopback interface is to be seen, and nothing is to be forwarded to the namespace, which is
    /// the program's standard input.
    fn arguments(self) -> &'static str {
        match self {
            Self::Pasta => {
                "--config-net --ns-ifname eth0 --foreground --quiet --no-map-gw --dns-forward 169.254.1.1 -t none -u none -T none -U none --netns /proc/self/fd/0"
            }
            Self::Slirp4netns => {
                "--configure --mtu=65520 --disable-host-loopback --netns-type=path /proc/self/fd/0 eth0"
            }
        }
    }

    fn find(self) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let usual = ["/usr/bin", "/bin", "/usr/local/bin"].map(PathBuf::from);
        std::env::split_paths(&path)
            .chain(usual)
            .filter(|dir| dir.is_absolute())
            .map(|dir| dir.join(self.name()))
            .find(|it| it.is_file())
    }
}

/// The process of ours above a running program. Both end when this is dropped.
#[derive(Debug)]
pub(super) struct Helper {
    pidfd: OwnedFd,
    _control: OwnedFd,
    /// What the program says. It is kept, because a program that nobody listens to is ended by a signal, and does not wait when
    /// it is full.
    said: OwnedFd,
}

impl Helper {
    /// Starts a program for the namespace and waits until the network is there.
    ///
    /// # Errors
    ///
    /// What it lacks, in words.
    pub(super) fn start(
        program: Program,
        namespace: BorrowedFd<'_>,
        inside: &Socket,
    ) -> std::result::Result<Self, String> {
        let name = program.name();
        let path = program.find().ok_or_else(|| format!("`{name}` is not installed"))?;
        let failed = |errno: Errno| format!("cannot start `{name}`: {errno}");
        if let Err(errno) = rustix::fs::open(TUN, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
            return Err(format!("`{name}` needs `{TUN}`, which cannot be opened: {errno}"));
        }
        let helper = Self::fork(&path, program.arguments(), namespace).map_err(failed)?;
        let started = Instant::now();
        loop {
            if link::has_default_route(inside).map_err(failed)? {
                return Ok(helper);
            }
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            let waited = rustix::process::waitid(WaitId::PidFd(helper.pidfd.as_fd()), options);
            let is_over = started.elapsed() > PATIENCE;
            if is_over || waited.is_ok_and(|it| it.is_some()) {
                let mut text = [0; 4096];
                let n_read = rustix::io::read(&helper.said, &mut text).unwrap_or(0);
                let text = String::from_utf8_lossy(&text[..n_read]).into_owned();
                let is_of_use = |line: &&str| !line.trim().is_empty() && !line.contains("syslog");
                let why = text.lines().rfind(is_of_use).unwrap_or(match is_over {
                    true => "it takes too long",
                    false => "it ended without a word",
                });
                return Err(format!("`{name}` does not work here: {}", why.trim()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn fork(path: &Path, arguments: &str, namespace: BorrowedFd<'_>) -> Result<Self> {
        let text = |it: &OsStr| CString::new(it.as_bytes()).map_err(|_| Errno::INVAL);
        let words = std::iter::once(path.as_os_str()).chain(arguments.split(' ').map(OsStr::new));
        let argv = CStrings::new(words.map(text).collect::<Result<_>>()?);
        let envp = CStrings::new(Vec::new());
        let program = text(path.as_os_str())?;
        let null = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let pipe = rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK;
        let (said, says) = rustix::pipe::pipe_with(pipe)?;
        let (control, control_of_keeper) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let mut stack = vec![0; 64 << 10];

        let mask = sys::block_signals();
        let forked = sys::fork_into(namespace::PID, None);
        if let Ok(Fork::Child) = forked {
            // From here on only system calls.
            let _ = rustix::process::setsid();
            sys::reset_signal_handlers();
            let streams = [namespace, null.as_fd(), says.as_fd()];
            if (0..).zip(streams).any(|(number, it)| sys::dup_to(it, number).is_err()) {
                sys::exit(1);
            }
            sys::close_all_but(control_of_keeper.as_raw_fd());
            let main = sys::vfork(&mut stack, 0, || {
                sys::unblock_signals();
                sys::execve(&program, &argv, &envp);
                127
            });
            sys::exit(main.map_or(1, |main| init::watch(main, &control_of_keeper)));
        }
        sys::restore_signals(mask);
        match forked? {
            Fork::Parent { pidfd, .. } => Ok(Self { pidfd, _control: control, said }),
            Fork::Child => Err(Errno::CHILD),
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = sys::pidfd_send_signal(self.pidfd.as_fd(), libc::SIGKILL);
        let pidfd = WaitId::PidFd(self.pidfd.as_fd());
        let _ = rustix::io::retry_on_intr(|| {
            rustix::process::waitid(pidfd.clone(), WaitIdOptions::EXITED)
        });
    }
}
