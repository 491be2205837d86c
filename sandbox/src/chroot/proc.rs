//! `/proc` for processes that cannot have one mounted: a thread of kiln answers what they ask about its paths.
//!
//! The filter has the kernel ask (seccomp's user notification) about each call that opens a path, reads a link or looks at a file.
//! A path that is not of `/proc` is left to the kernel. Of `/proc`, a process gets what the kernel has of it and of others of its
//! sandbox, and what is the same for all; the thread opens it with the user and the groups of the process, so that it gets no more
//! than it would by itself. What lies behind a link of `/proc` (a working directory, an open directory) is reached through that link and
//! not above it.
//!
//! What is read of the memory of a process may change afterwards; that is why nothing is let through because of what was read,
//! but what the kernel would let through by itself.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};

use super::caller::{Caller, below_proc};
use crate::devices;
use crate::seccomp::{self, Ask};
use crate::sys::notify::{self, FileStatus, Notification, Reply};

/// The calls that are asked about, where their path is, and what is done.
const CALLS: [(&str, Call); 17] = [
    ("open", Call { path: 0, what: What::Open(1) }),
    ("openat", Call { path: 1, what: What::Open(2) }),
    ("openat2", Call { path: 1, what: What::OpenHow }),
    ("readlink", Call { path: 0, what: What::ReadLink(1) }),
    ("readlinkat", Call { path: 1, what: What::ReadLink(2) }),
    ("stat", Call { path: 0, what: What::Stat(1, None) }),
    ("lstat", Call { path: 0, what: What::LinkStat(1) }),
    ("newfstatat", Call { path: 1, what: What::Stat(2, Some(3)) }),
    ("statx", Call { path: 1, what: What::Statx }),
    ("access", Call { path: 0, what: What::Access(1) }),
    ("faccessat", Call { path: 1, what: What::Access(2) }),
    ("faccessat2", Call { path: 1, what: What::Access(2) }),
    ("getxattr", Call { path: 0, what: What::Attributes }),
    ("lgetxattr", Call { path: 0, what: What::Attributes }),
    ("listxattr", Call { path: 0, what: What::Attributes }),
    ("llistxattr", Call { path: 0, what: What::Attributes }),
    ("execve", Call { path: 0, what: What::Execute }),
];

/// Where the arguments of a call are.
#[derive(Debug, Clone, Copy)]
struct Call {
    path: usize,
    what: What,
}

#[derive(Debug, Clone, Copy)]
enum What {
    /// With the number of the argument that holds the flags.
    Open(usize),
    /// `openat2`, whose flags lie in memory.
    OpenHow,
    /// With that of the buffer; its size comes next.
    ReadLink(usize),
    /// With that of the buffer and that of the flags.
    Stat(usize, Option<usize>),
    /// Of a link itself.
    LinkStat(usize),
    Statx,
    /// With that of the rights asked for.
    Access(usize),
    /// Of which there are none.
    Attributes,
    /// `/proc/self/exe`, as busybox does it: the real path takes its place in the memory of the caller, if it is no longer. Nobody
    /// but the kernel can execute for a process.
    Execute,
}

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

/// When a filter asks about this call. Not if the path begins at an open directory, as it does for every file that a program
/// finds by walking through a tree: to ask then would cost much and help few.
pub(crate) fn ask(name: &str) -> Option<Ask> {
    const IS_NEGATIVE: u32 = 1 << 31;
    let (_, call) = CALLS.iter().find(|(it, _)| *it == name)?;
    Some(match call.path {
        // `AT_FDCWD` is negative, and a handle is not.
        1 => Ask::IfBits(0, IS_NEGATIVE),
        _ => Ask::Always,
    })
}

/// A running thread.
#[derive(Debug)]
pub(crate) struct ProcServer {
    thread: Option<JoinHandle<()>>,
    /// Closed to end it.
    stop: Option<OwnedFd>,
}

impl ProcServer {
    /// Starts to answer what arrives at `listener`, for the processes below `init`.
    pub(crate) fn start(listener: OwnedFd, init: i32) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = rustix::fs::open(c"/proc", flags, Mode::empty())?;
        let (stopped, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        notify::take_turns(listener.as_fd());
        let thread = std::thread::Builder::new()
            .name("proc".to_owned())
            .spawn(move || serve(&Server { listener, proc, init }, &stopped))
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))?;
        Ok(Self { thread: Some(thread), stop: Some(stop) })
    }
}

impl Drop for ProcServer {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Server {
    listener: OwnedFd,
    proc: OwnedFd,
    init: i32,
}

fn serve(server: &Server, stopped: &OwnedFd) {
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
            Some(call) => server.answer(&asked, *call, &mut caller),
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
    ) -> Result<Option<Reply>> {
        let proceed = Ok(Some(Reply::Continue));
        let Some(path) = caller.path(asked.tid, asked.args[call.path]) else { return proceed };
        let n_given = path.len() + 1;
        let Some(path) = below_proc(&path) else { return proceed };
        // From here on as who asks; if that cannot be had, the kernel shows the copies.
        let Some(threads) = caller.become_caller(asked.tid) else { return proceed };
        if !notify::is_waiting(self.listener.as_fd(), asked.id) {
            return Ok(None);
        }
        let path = self.translate(&path, threads)?;
        match call.what {
            What::Open(flags) => self.open(asked, &path, asked.args[flags]).map(|()| None),
            What::OpenHow => {
                let mut flags = [0; 8];
                let n_read = caller.read_memory(asked.tid, asked.args[2], &mut flags);
                n_read.map_err(|_| Errno::FAULT)?;
                self.open(asked, &path, u64::from_ne_bytes(flags)).map(|()| None)
            }
            What::ReadLink(buffer) => {
                let target = self.read_link(&path, caller.root(asked.tid))?;
                let n_bytes = target.len().min(asked.args[buffer + 1] as usize);
                caller.write_memory(asked.tid, asked.args[buffer], &target[..n_bytes])?;
                Ok(Some(Reply::Value(n_bytes as i64)))
            }
            What::Stat(buffer, flags) => {
                let flags = flags.map_or(0, |it| asked.args[it] as i32);
                self.status(caller, asked, buffer, &path, |it| FileStatus::stat(it, known(flags)))
            }
            What::LinkStat(buffer) => {
                let flags = libc::AT_SYMLINK_NOFOLLOW;
                self.status(caller, asked, buffer, &path, |it| FileStatus::stat(it, flags))
            }
            What::Statx => {
                let (flags, mask) = (asked.args[2] as i32, asked.args[3] as u32);
                self.status(caller, asked, 4, &path, |it| FileStatus::statx(it, known(flags), mask))
            }
            What::Access(mode) => {
                let rights = rustix::fs::Access::from_bits_truncate(asked.args[mode] as u32);
                let flags = rustix::fs::AtFlags::EACCESS;
                self.check(&path)?;
                rustix::fs::accessat(&self.proc, &path.text, rights, flags)?;
                Ok(Some(Reply::Value(0)))
            }
            What::Attributes => Err(Errno::NOTSUP),
            What::Execute => {
                let mut target = self.read_link(&path, caller.root(asked.tid))?;
                target.push(0);
                if target.starts_with(b"/") && target.len() <= n_given {
                    caller.overwrite(asked.tid, asked.args[call.path], &target)?;
                }
                proceed
            }
        }
    }

    /// Makes of a path below `/proc`, as the process says it, the path of what it means there.
    fn translate(&self, path: &[u8], (process, thread): (i32, i32)) -> Result<ProcPath> {
        let text = std::str::from_utf8(path).map_err(|_| Errno::NOENT)?;
        let mut parts: Vec<&str> =
            text.split('/').filter(|it| !it.is_empty() && *it != ".").collect();
        if parts.contains(&"..") {
            return Err(Errno::NOENT);
        }
        let (process_name, thread_name) = (process.to_string(), thread.to_string());
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
        let Some(first) = parts.first() else {
            return Ok(ProcPath { text: c".".to_owned(), magic: None, link: None });
        };
        match first.parse::<i32>() {
            Ok(pid) if !super::caller::is_below(pid, self.init) => return Err(Errno::NOENT),
            Ok(_) => {}
            Err(_) if is_hidden(&parts) => return Err(Errno::NOENT),
            Err(_) => {}
        }
        let magic = magic_at(&parts);
        let joined = parts.join("/");
        let own_link = link.then(|| joined.clone().into_bytes());
        let text = CString::new(joined).map_err(|_| Errno::NOENT)?;
        Ok(ProcPath { text, magic: magic.map(|n| parts[..n].join("/").len()), link: own_link })
    }

    /// Opens what is to be checked first: nothing but the link at the end may lead elsewhere.
    fn check(&self, path: &ProcPath) -> Result<()> {
        let plain = match path.magic {
            Some(n_bytes) if n_bytes < path.text.as_bytes().len() => return Err(Errno::ACCESS),
            Some(n_bytes) => {
                let text = &path.text.as_bytes()[..n_bytes];
                let end = text.iter().rposition(|it| *it == b'/').unwrap_or(0);
                CString::new(&text[..end]).unwrap_or_default()
            }
            None => path.text.clone(),
        };
        self.place(&plain).map(drop)
    }

    fn place(&self, path: &CString) -> Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(
            &self.proc,
            path,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        )
    }

    fn open(&self, asked: &Notification, path: &ProcPath, flags: u64) -> Result<()> {
        let wanted = OFlags::from_bits_retain(flags as u32);
        // What is in `/proc` is there already; a pipe at the other end of a link must not keep this thread.
        let not_ours = OFlags::CREATE | OFlags::EXCL;
        let own = (wanted - not_ours) | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let file = match path.magic {
            None => rustix::fs::openat2(&self.proc, &path.text, own, Mode::empty(), resolve)?,
            Some(n_bytes) => {
                let text = path.text.as_bytes();
                let link = CString::new(&text[..n_bytes]).map_err(|_| Errno::NOENT)?;
                let parent = text[..n_bytes].iter().rposition(|it| *it == b'/').unwrap_or(0);
                self.place(&CString::new(&text[..parent]).map_err(|_| Errno::NOENT)?)?;
                if n_bytes == text.len() {
                    rustix::fs::openat(&self.proc, &link, own, Mode::empty())?
                } else {
                    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                    let folder = rustix::fs::openat(&self.proc, &link, flags, Mode::empty())?;
                    let rest = &text[n_bytes + 1..];
                    rustix::fs::openat2(&folder, rest, own, Mode::empty(), resolve)?
                }
            }
        };
        if !wanted.contains(OFlags::NONBLOCK) && !wanted.contains(OFlags::PATH) {
            let flags = rustix::fs::fcntl_getfl(&file)?;
            rustix::fs::fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
        }
        let is_cloexec = wanted.contains(OFlags::CLOEXEC);
        notify::send_fd(self.listener.as_fd(), asked.id, file.as_fd(), is_cloexec)
    }

    /// Reads a link, as it is to be seen from inside of the root.
    fn read_link(&self, path: &ProcPath, root: Option<Vec<u8>>) -> Result<Vec<u8>> {
        if let Some(own) = &path.link {
            return Ok(own.clone());
        }
        self.check(path)?;
        let target = rustix::fs::readlinkat(&self.proc, &path.text, Vec::new())?.into_bytes();
        let Some(root) = root.filter(|it| it.len() > 1) else { return Ok(target) };
        Ok(match target.strip_prefix(root.as_slice()) {
            Some([]) => b"/".to_vec(),
            Some(rest @ [b'/', ..]) => rest.to_vec(),
            _ => target,
        })
    }

    fn status(
        &self,
        caller: &Caller,
        asked: &Notification,
        buffer: usize,
        path: &ProcPath,
        look: impl FnOnce(&CString) -> Result<FileStatus>,
    ) -> Result<Option<Reply>> {
        self.check(path)?;
        let full = CString::new([b"/proc/", path.text.as_bytes()].concat());
        let status = look(&full.map_err(|_| Errno::NOENT)?)?;
        caller.write_memory(asked.tid, asked.args[buffer], status.bytes())?;
        Ok(Some(Reply::Value(0)))
    }
}

/// Flags of looking at a file that make sense for a whole path.
fn known(flags: i32) -> i32 {
    flags & (libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT)
}

/// A path below `/proc`, relative to it.
#[derive(Debug, PartialEq, Eq)]
struct ProcPath {
    text: CString,
    /// Up to where it leads to a link out of `/proc`.
    magic: Option<usize>,
    /// What it says as a link, where that depends on who asks.
    link: Option<Vec<u8>>,
}

/// How many parts lead to a link out of `/proc`, if they do.
fn magic_at(parts: &[&str]) -> Option<usize> {
    let is_number = |it: &&str| it.parse::<i32>().is_ok();
    if !parts.first().is_some_and(is_number) {
        return None;
    }
    let own = match parts.get(1..3) {
        Some(["task", thread]) if is_number(thread) => 3,
        _ => 1,
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
        assert_eq!(at("1/exe"), Some(2));
        assert_eq!(at("1/cwd/x/y"), Some(2));
        assert_eq!(at("1/fd/3"), Some(3));
        assert_eq!(at("1/fd"), None);
        assert_eq!(at("1/task/2/fd/3/x"), Some(5));
        assert_eq!(at("1/status"), None);
        assert_eq!(at("sys/fd/3"), None);
        assert_eq!(at("cpuinfo"), None);
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

    #[test]
    fn every_call_is_in_the_table() {
        let names: Vec<&str> = seccomp::numbers().map(|(name, _)| name).collect();
        for (name, _) in CALLS {
            // Newer machines lack the old forms.
            assert!(names.contains(&name) || cfg!(not(target_arch = "x86_64")), "{name}");
        }
    }
}
