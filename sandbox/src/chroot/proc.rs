//! `/proc` for processes that cannot have one mounted: a thread of kiln answers what they ask about its paths.
//!
//! The filter has the kernel ask (seccomp's user notification) about each call that opens a path, reads a link or looks at a file.
//! A path that is not of `/proc` is left to the kernel. Of `/proc`, a process gets what the kernel has of it and of others of its
//! sandbox, and what is the same for all; the thread opens it with the user and the groups of the process, so that it gets no more
//! than it would by itself. What lies behind a link of `/proc` (a working directory, an open directory) is reached through that link and
//! not above it.
//!
//! # What always holds
//!
//! - **No handle on a folder outside of the root** is given to a process, so none of `/proc` either: it gets a copy ([`listing`](super::listing)).
//!   From such a handle `..` leads to the root of the machine, where neither chroot nor Landlock keeps it from changing modes and owners.
//! - **Nothing but what belongs to a process of the sandbox can be written to.**
//! - What is read of the memory of a process may change afterwards; that is why nothing is let through because of what was read,
//!   but what the kernel would let through by itself.
//! - Ids of processes are used again, so whatever is said of a process is said of the folder of `/proc` that was opened for it.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};

use super::caller::{self, Asking, Caller, below_proc};
use super::calls::{CALLS, Call, What};
use super::listing::{self, Listings};
use super::nodes::Nodes;
use crate::devices;
use crate::seccomp;
use crate::sys::notify::{self, FileStatus, Notification, Reply};

/// What of `/proc` is shown to nobody: what containers mask, and what only root of the machine is to read.
const HIDDEN: [&str; 7] = [
    "kmsg",
    "kpagecount",
    "kpageflags",
    "kpagecgroup",
    "sysrq-trigger",
    "vmallocinfo",
    "key-users",
];

/// Links of a process that lead to something else than a path.
const MAGIC: [&str; 3] = ["cwd", "exe", "root"];

/// A running thread.
#[derive(Debug)]
pub(crate) struct ProcServer {
    thread: Option<JoinHandle<()>>,
    /// Closed to end it.
    stop: Option<OwnedFd>,
    nodes: &'static Nodes,
}

impl ProcServer {
    /// Starts to answer what arrives at `listener`, for the processes below `init`, which have no more capabilities than `granted`.
    /// Copies of folders are made in `listings`, a folder of the root; `nodes` are the devices that are lent.
    pub(crate) fn start(
        listener: OwnedFd,
        init: i32,
        granted: u64,
        listings: OwnedFd,
        nodes: &'static Nodes,
    ) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = rustix::fs::open(c"/proc", flags, Mode::empty())?;
        let (stopped, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        notify::take_turns(listener.as_fd());
        let thread = std::thread::Builder::new()
            .name("proc".to_owned())
            .spawn(move || {
                // No more than a process has, and what it takes to act for another user.
                if caller::keep_capabilities(granted).is_ok() {
                    let server = Server { listener, proc, init, nodes };
                    serve(&server, Listings::new(listings), &stopped);
                }
            })
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))?;
        Ok(Self { thread: Some(thread), stop: Some(stop), nodes })
    }
}

impl Drop for ProcServer {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.nodes.restore();
    }
}

struct Server {
    listener: OwnedFd,
    proc: OwnedFd,
    init: i32,
    nodes: &'static Nodes,
}

fn serve(server: &Server, mut listings: Listings, stopped: &OwnedFd) {
    let by_name: HashMap<&str, Call> = CALLS.into_iter().collect();
    let calls: HashMap<i32, Call> = seccomp::numbers()
        .filter_map(|(name, number)| Some((number, *by_name.get(name)?)))
        .collect();
    let mut caller = Caller::default();
    loop {
        let mut polled = [
            PollFd::new(&server.listener, PollFlags::IN),
            PollFd::new(stopped, PollFlags::empty()),
        ];
        match rustix::event::poll(&mut polled, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
        if !polled[0].revents().contains(PollFlags::IN) {
            // Nobody is left who could ask.
            if polled.iter().any(|it| !it.revents().is_empty()) {
                return;
            }
            continue;
        }
        // A caller that was killed meanwhile has taken its call along.
        let Ok(asked) = notify::receive(server.listener.as_fd()) else { continue };
        let answer = match calls.get(&asked.number) {
            Some(call) => server.answer(&asked, *call, &mut caller, &mut listings),
            None => Ok(Some(Reply::Continue)),
        };
        let reply = match answer {
            Ok(None) => continue,
            Ok(Some(reply)) => reply,
            Err(errno) => Reply::Error(errno),
        };
        let _ = notify::send(server.listener.as_fd(), asked.id, reply);
    }
}

impl Server {
    /// Answers a call; `None` if the answer was sent already.
    fn answer(
        &self,
        asked: &Notification,
        call: Call,
        caller: &mut Caller,
        listings: &mut Listings,
    ) -> Result<Option<Reply>> {
        let proceed = Ok(Some(Reply::Continue));
        let path = caller.path(&self.proc, asked.tid, asked.args[call.path]);
        let Some(path) = path else { return proceed };
        let n_given = path.len() + 1;
        let (node, path) = (self.nodes.at(&path), below_proc(&path));
        if node.is_none() && path.is_none() {
            return proceed;
        }
        // From here on as who asks; if that cannot be had, the kernel shows the copies.
        let Some(asking) = caller.become_caller(&self.proc, asked.tid) else { return proceed };
        if !notify::is_waiting(self.listener.as_fd(), asked.id) {
            return Ok(None);
        }
        if let Some(node) = node {
            let flags = open_flags(asked, call.what, caller)?;
            return node.answer(self.listener.as_fd(), asked, call.what, flags, &asking);
        }
        let path = self.translate(&path.unwrap_or_default(), &asking)?;
        match call.what {
            What::Open(_) | What::OpenHow => {
                let flags = open_flags(asked, call.what, caller)?;
                let file = self.open(&asking, &path, flags, caller, listings)?;
                self.give(asked, &file, flags)
            }
            What::ReadLink(buffer) => {
                let target = path.read_link(&asking)?;
                let n_bytes = target.len().min(asked.args[buffer + 1] as usize);
                asking.write_memory(asked.args[buffer], &target[..n_bytes])?;
                Ok(Some(Reply::Value(n_bytes as i64)))
            }
            What::Stat(buffer, flags) => {
                let flags = flags.map_or(0, |it| asked.args[it] as i32);
                status(&asking, asked.args[buffer], &path, |it| FileStatus::stat(it, known(flags)))
            }
            What::LinkStat(buffer) => {
                let flags = libc::AT_SYMLINK_NOFOLLOW;
                status(&asking, asked.args[buffer], &path, |it| FileStatus::stat(it, flags))
            }
            What::Statx => {
                let (flags, mask) = (asked.args[2] as i32, asked.args[3] as u32);
                status(&asking, asked.args[4], &path, |it| {
                    FileStatus::statx(it, known(flags), mask)
                })
            }
            What::Access(mode) => {
                let rights = rustix::fs::Access::from_bits_truncate(asked.args[mode] as u32);
                let flags = rustix::fs::AtFlags::EACCESS;
                path.check()?;
                rustix::fs::accessat(&path.base, &path.text, rights, flags)?;
                Ok(Some(Reply::Value(0)))
            }
            What::Attributes => Err(Errno::NOTSUP),
            What::Execute => {
                let mut target = path.read_link(&asking)?;
                target.push(0);
                if target.starts_with(b"/") && target.len() <= n_given {
                    asking.write_memory(asked.args[call.path], &target)?;
                }
                proceed
            }
        }
    }

    /// Makes of a path below `/proc`, as the process says it, the path of what it means there.
    fn translate(&self, path: &[u8], asking: &Asking) -> Result<ProcPath> {
        let text = std::str::from_utf8(path).map_err(|_| Errno::NOENT)?;
        let mut parts: Vec<&str> =
            text.split('/').filter(|it| !it.is_empty() && *it != ".").collect();
        if parts.contains(&"..") {
            return Err(Errno::NOENT);
        }
        let (process_name, thread_name) = (asking.process.to_string(), asking.thread.to_string());
        let whole = parts.len() == 1;
        match parts.first().copied() {
            Some("self") => parts[0] = &process_name,
            Some("thread-self") => {
                parts.splice(0..1, [process_name.as_str(), "task", &thread_name]);
            }
            Some("mounts" | "net") => parts.insert(0, &process_name),
            _ => {}
        }
        let link = whole && matches!(text.trim_matches('/'), "self" | "thread-self");
        let link = link.then(|| parts.join("/").into_bytes());
        let Some(process) = parts.first().and_then(|it| it.parse::<i32>().ok()) else {
            if is_hidden(&parts) {
                return Err(Errno::NOENT);
            }
            let base = self.proc.try_clone().map_err(|_| Errno::MFILE)?;
            return ProcPath::new(base, &parts, false, link);
        };
        // First the folder and then whose it is: should that process end meanwhile, nothing is found in the folder any more.
        let base = place(self.proc.as_fd(), parts[0])?;
        if !caller::is_below(process, self.init) {
            return Err(Errno::NOENT);
        }
        ProcPath::new(base, &parts[1..], true, link)
    }

    fn open(
        &self,
        asking: &Asking,
        path: &ProcPath,
        flags: u64,
        caller: &mut Caller,
        listings: &mut Listings,
    ) -> Result<OwnedFd> {
        let wanted = OFlags::from_bits_retain(flags as u32);
        let writes = wanted.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC)
            && !wanted.contains(OFlags::PATH);
        if writes && !path.is_process {
            return Err(Errno::ROFS);
        }
        // What is in `/proc` is there already; a pipe at the other end of a link must not keep this thread; and a handle on a mere
        // place cannot be given to anybody.
        let not_ours = OFlags::CREATE | OFlags::EXCL | OFlags::PATH;
        let own = (wanted - not_ours) | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let mut file = match path.magic {
            None => rustix::fs::openat2(&path.base, &path.text, own, Mode::empty(), resolve)?,
            Some(n_bytes) => {
                path.check_up_to(n_bytes)?;
                let text = path.text.as_bytes();
                let link = CString::new(&text[..n_bytes]).map_err(|_| Errno::NOENT)?;
                if n_bytes == text.len() {
                    let file = rustix::fs::openat(&path.base, &link, own, Mode::empty())?;
                    asking.check_target(&file, writes)?;
                    file
                } else {
                    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                    let folder = rustix::fs::openat(&path.base, &link, flags, Mode::empty())?;
                    asking.check_target(&folder, writes)?;
                    let rest = &text[n_bytes + 1..];
                    rustix::fs::openat2(&folder, rest, own, Mode::empty(), resolve)?
                }
            }
        };
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
        if path.magic.is_none() && kind == FileType::Directory {
            let is_top = !path.is_process && path.text.as_bytes() == b".";
            // Of processes those of the sandbox.
            let is_shown = |name: &str| {
                !is_top || name.parse().map_or(true, |pid| caller::is_below(pid, self.init))
            };
            let entries = listing::read(&file, is_shown, |link| asking.as_seen(link))?;
            caller.become_root()?;
            file = listings.make(&entries, own)?;
        }
        if !wanted.contains(OFlags::NONBLOCK) {
            let flags = rustix::fs::fcntl_getfl(&file)?;
            rustix::fs::fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
        }
        Ok(file)
    }

    /// Gives a file to who has asked.
    fn give(&self, asked: &Notification, file: &OwnedFd, flags: u64) -> Result<Option<Reply>> {
        let is_cloexec = OFlags::from_bits_retain(flags as u32).contains(OFlags::CLOEXEC);
        notify::send_fd(self.listener.as_fd(), asked.id, file.as_fd(), is_cloexec).map(|()| None)
    }
}

/// Opens what is below a folder of `/proc` as a place, by no link that leads elsewhere.
fn place(base: BorrowedFd<'_>, path: impl rustix::path::Arg) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(base, path, flags, Mode::empty(), resolve)
}

fn status(
    asking: &Asking,
    buffer: u64,
    path: &ProcPath,
    look: impl FnOnce(&CString) -> Result<FileStatus>,
) -> Result<Option<Reply>> {
    path.check()?;
    let base = format!("/proc/self/fd/{}/", path.base.as_raw_fd());
    let full = CString::new([base.as_bytes(), path.text.as_bytes()].concat());
    let status = look(&full.map_err(|_| Errno::NOENT)?)?;
    asking.write_memory(buffer, status.bytes())?;
    Ok(Some(Reply::Value(0)))
}

/// The flags with which something is to be opened; none if the call opens nothing.
fn open_flags(asked: &Notification, what: What, caller: &mut Caller) -> Result<u64> {
    match what {
        What::Open(flags) => Ok(asked.args[flags]),
        What::OpenHow => {
            let mut flags = [0; 8];
            let n_read = caller.read_memory(asked.tid, asked.args[2], &mut flags);
            n_read.map_err(|_| Errno::FAULT)?;
            Ok(u64::from_ne_bytes(flags))
        }
        _ => Ok(0),
    }
}

/// Flags of looking at a file that make sense for a whole path.
fn known(flags: i32) -> i32 {
    flags & (libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT)
}

/// A path below `/proc`.
#[derive(Debug)]
struct ProcPath {
    /// What it begins at: the folder of a process, or all of `/proc`.
    base: OwnedFd,
    is_process: bool,
    /// The rest.
    text: CString,
    /// Up to where it leads to a link out of `/proc`.
    magic: Option<usize>,
    /// What it says as a link, where that depends on who asks.
    link: Option<Vec<u8>>,
}

impl ProcPath {
    fn new(base: OwnedFd, parts: &[&str], is_process: bool, link: Option<Vec<u8>>) -> Result<Self> {
        let magic = if is_process { magic_at(parts) } else { None };
        let text = if parts.is_empty() { ".".to_owned() } else { parts.join("/") };
        let text = CString::new(text).map_err(|_| Errno::NOENT)?;
        let magic = magic.map(|n| parts[..n].join("/").len());
        Ok(Self { base, is_process, text, magic, link })
    }

    /// Opens what is to be looked at first: nothing but the link at the end may lead elsewhere.
    fn check(&self) -> Result<()> {
        match self.magic {
            Some(n_bytes) if n_bytes < self.text.as_bytes().len() => Err(Errno::ACCESS),
            Some(n_bytes) => self.check_up_to(n_bytes),
            None => place(self.base.as_fd(), &self.text).map(drop),
        }
    }

    /// The same for the folder of a link.
    fn check_up_to(&self, n_bytes: usize) -> Result<()> {
        let text = &self.text.as_bytes()[..n_bytes];
        match text.iter().rposition(|it| *it == b'/') {
            Some(end) => place(self.base.as_fd(), &text[..end]).map(drop),
            None => Ok(()),
        }
    }

    /// Reads a link, as it is to be seen from inside of the root.
    fn read_link(&self, asking: &Asking) -> Result<Vec<u8>> {
        if let Some(own) = &self.link {
            return Ok(own.clone());
        }
        self.check()?;
        let target = rustix::fs::readlinkat(&self.base, &self.text, Vec::new())?;
        Ok(asking.as_seen(target.into_bytes()))
    }
}

/// How many parts of a path in the folder of a process lead to a link out of `/proc`, if they do.
fn magic_at(parts: &[&str]) -> Option<usize> {
    let own = match parts.get(..2) {
        Some(["task", thread]) if thread.parse::<i32>().is_ok() => 2,
        _ => 0,
    };
    match parts.get(own..)? {
        [name, ..] if MAGIC.contains(name) => Some(own + 1),
        ["fd" | "ns" | "map_files", _, ..] => Some(own + 2),
        _ => None,
    }
}

fn is_hidden(parts: &[&str]) -> bool {
    let path = parts.join("/");
    let is_below = |hidden: &str| {
        path.strip_prefix(hidden).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    HIDDEN.into_iter().any(is_below)
        || devices::MASKED.iter().filter_map(|it| it.strip_prefix("proc/")).any(is_below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_out_of_proc_are_found() {
        let at = |text: &str| magic_at(&text.split('/').collect::<Vec<_>>());
        assert_eq!(at("exe"), Some(1));
        assert_eq!(at("cwd/x/y"), Some(1));
        assert_eq!(at("fd/3"), Some(2));
        assert_eq!(at("fd"), None);
        assert_eq!(at("task/2/fd/3/x"), Some(4));
        assert_eq!(at("task/2"), None);
        assert_eq!(at("status"), None);
    }

    #[test]
    fn what_is_masked_is_hidden() {
        for path in ["kcore", "kmsg", "acpi/x", "sysrq-trigger", "keys"] {
            assert!(is_hidden(&path.split('/').collect::<Vec<_>>()), "{path}");
        }
        for path in ["cpuinfo", "kcores", "sys/kernel/keys", "meminfo"] {
            assert!(!is_hidden(&path.split('/').collect::<Vec<_>>()), "{path}");
        }
    }
}
