//! A process that asks about `/proc`: its path, who it is, and this thread in its place.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{FileType, Gid, Mode, OFlags, Uid};
use rustix::io::{Errno, Result};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::sys::notify;

/// Longest path, with the zero at its end.
const MAX_PATH: usize = 4096;

/// Size of the pieces in which memory is either there or not.
const PAGE: usize = 4096;

/// How much of a path is read at first.
const N_FIRST: usize = 256;

/// Who this thread is at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    uid: [u32; 2],
    gid: [u32; 2],
    groups: Vec<u32>,
}

/// Reads what processes say, and takes their place.
#[derive(Debug, Default)]
pub(super) struct Caller {
    own: Option<Identity>,
    buffer: Vec<u8>,
    /// Memory is reached through `/proc`, because the filter of the container refuses the calls for it, as Docker's did before 23.
    by_file: bool,
}

impl Caller {
    /// The path at an address of a process; nothing if it cannot be read.
    pub(super) fn path(&mut self, proc: &OwnedFd, tid: u32, address: u64) -> Option<Vec<u8>> {
        self.read(tid, address).or_else(|| {
            // It may be somebody else than who asked last.
            self.become_caller(proc, tid)?;
            self.read(tid, address)
        })
    }

    fn read(&mut self, tid: u32, address: u64) -> Option<Vec<u8>> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(MAX_PATH, 0);
        let mut path = None;
        for n_bytes in [N_FIRST, MAX_PATH] {
            let Ok(n_read) = self.read_memory(tid, address, &mut buffer[..n_bytes]) else { break };
            let text = &buffer[..n_read];
            if let Some(end) = text.iter().position(|it| *it == 0) {
                path = Some(text[..end].to_vec());
                break;
            }
        }
        self.buffer = buffer;
        path
    }

    /// Reads memory of a process, up to where it ends.
    pub(super) fn read_memory(
        &mut self,
        tid: u32,
        address: u64,
        buffer: &mut [u8],
    ) -> std::io::Result<usize> {
        if !self.by_file {
            match notify::read_memory(tid, address, buffer) {
                Err(Errno::PERM | Errno::NOSYS) => {}
                read => return Ok(read?),
            }
        }
        let memory = File::open(format!("/proc/{tid}/mem"))?;
        // It may be that memory just ends within the buffer.
        let n_first = (PAGE - address as usize % PAGE).min(buffer.len());
        let (first, rest) = buffer.split_at_mut(n_first);
        memory.read_exact_at(first, address)?;
        self.by_file = true;
        let n_more = memory.read_at(rest, address + n_first as u64).unwrap_or(0);
        Ok(n_first + n_more)
    }

    /// Gives this thread the user and the groups of another. Returns nothing if that fails.
    pub(super) fn become_caller(&mut self, proc: &OwnedFd, tid: u32) -> Option<Asking> {
        let (mut asking, wanted) = Asking::find(proc, tid)?;
        if self.own.as_ref() != Some(&wanted) {
            self.own = None;
            become_identity(&wanted).ok()?;
            self.own = Some(wanted);
        }
        // Which is shown to its own user only.
        asking.root =
            rustix::fs::readlinkat(&asking.folder, c"root", Vec::new()).ok()?.into_bytes();
        Some(asking)
    }

    /// Gives this thread back its own user.
    pub(super) fn become_root(&mut self) -> Result<()> {
        self.own = None;
        rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)
    }
}

/// A thread that waits for an answer: a handle on its folder of `/proc`, which no other thread will have.
#[derive(Debug)]
pub(super) struct Asking {
    folder: OwnedFd,
    pub(super) process: i32,
    pub(super) thread: i32,
    /// Its root, as this process sees it.
    root: Vec<u8>,
}

impl Asking {
    fn find(proc: &OwnedFd, tid: u32) -> Option<(Self, Identity)> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(proc, tid.to_string(), flags, Mode::empty()).ok()?;
        let status = open(&folder, c"status", OFlags::RDONLY).ok()?;
        let status = std::io::read_to_string(status).ok()?;
        let field = |name: &str| {
            let line = status.lines().find_map(|it| it.strip_prefix(name))?;
            Some(line.split_whitespace().filter_map(|it| it.parse().ok()).collect::<Vec<u32>>())
        };
        let (uid, gid, groups) = (field("Uid:")?, field("Gid:")?, field("Groups:")?);
        let identity = Identity {
            uid: [*uid.first()?, *uid.get(1)?],
            gid: [*gid.first()?, *gid.get(1)?],
            groups,
        };
        let process = i32::try_from(*field("Tgid:")?.first()?).ok()?;
        let thread = i32::try_from(tid).ok()?;
        Some((Self { folder, process, thread, root: Vec::new() }, identity))
    }

    /// Writes to its memory, also where it cannot write itself, as to its constants.
    pub(super) fn write_memory(&self, address: u64, bytes: &[u8]) -> Result<()> {
        let memory = open(&self.folder, c"mem", OFlags::WRONLY).map_err(|_| Errno::FAULT)?;
        memory.write_all_at(bytes, address).map_err(|_| Errno::FAULT)
    }

    /// A path of this process's as one of its own.
    pub(super) fn as_seen(&self, path: Vec<u8>) -> Vec<u8> {
        match below(&path, &self.root) {
            Some([]) => b"/".to_vec(),
            Some(rest) => rest.to_vec(),
            None => path,
        }
    }

    /// Fails for what a link of `/proc` must not lead to: a folder outside of the root, and `/proc` itself to write there.
    pub(super) fn check_target(&self, file: &OwnedFd, writes: bool) -> Result<()> {
        let kind = FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode);
        if kind == FileType::Directory {
            let own = format!("/proc/self/fd/{}", file.as_raw_fd());
            let path = rustix::fs::readlink(own, Vec::new())?.into_bytes();
            return below(&path, &self.root).map(drop).ok_or(Errno::ACCESS);
        }
        let is_proc =
            || rustix::fs::fstatfs(file).map(|it| it.f_type == rustix::fs::PROC_SUPER_MAGIC);
        if writes && is_proc()? { Err(Errno::ACCESS) } else { Ok(()) }
    }
}

fn open(folder: &OwnedFd, name: &std::ffi::CStr, flags: OFlags) -> Result<File> {
    rustix::fs::openat(folder, name, flags | OFlags::CLOEXEC, Mode::empty()).map(File::from)
}

/// What of a path comes after that of a folder above it.
fn below<'a>(path: &'a [u8], folder: &[u8]) -> Option<&'a [u8]> {
    match path.strip_prefix(folder)? {
        rest @ ([] | [b'/', ..]) if folder.len() > 1 => Some(rest),
        _ => None,
    }
}

/// Leaves this thread the capabilities of `granted`, and what it takes to become another user.
pub(super) fn keep_capabilities(granted: u64) -> Result<()> {
    let own = rustix::thread::capabilities(None)?;
    let granted = CapabilitySet::from_bits_retain(granted);
    let kept = own.permitted & (granted | CapabilitySet::SETUID | CapabilitySet::SETGID);
    let inheritable = CapabilitySet::empty();
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable };
    rustix::thread::set_capabilities(None, sets)
}

/// Only for this thread. Its saved user stays root, so that there is a way back.
fn become_identity(wanted: &Identity) -> Result<()> {
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

    let (root, no_group) = (Uid::ROOT, Gid::ROOT);
    set_thread_res_uid(root, root, root)?;
    let groups: Vec<Gid> = wanted.groups.iter().map(|it| Gid::from_raw(*it)).collect();
    set_thread_groups(&groups)?;
    let [real, effective] = wanted.gid.map(Gid::from_raw);
    set_thread_res_gid(real, effective, no_group)?;
    let [real, effective] = wanted.uid.map(Uid::from_raw);
    set_thread_res_uid(real, effective, root)
}

/// What comes after `/proc/` in a path, also in one of `/dev` that leads there.
pub(super) fn below_proc(path: &[u8]) -> Option<Vec<u8>> {
    let after = |prefix: &[u8]| match path.strip_prefix(prefix)? {
        [] => Some(&b""[..]),
        [b'/', rest @ ..] => Some(rest),
        _ => None,
    };
    if let Some(rest) = after(b"/proc") {
        return Some(rest.to_vec());
    }
    if let Some(rest) = after(b"/dev/fd") {
        return Some([b"self/fd/", rest].concat());
    }
    let streams = [&b"/dev/stdin"[..], b"/dev/stdout", b"/dev/stderr"];
    let number = streams.iter().position(|it| *it == path)?;
    Some(format!("self/fd/{number}").into_bytes())
}

/// Whether a process was started below `init`; that itself holds what it has from kiln, and is shown to nobody.
pub(super) fn is_below(pid: i32, init: i32) -> bool {
    if pid == init {
        return false;
    }
    let mut pid = pid;
    // As deep as any chain of processes may be; a longer one is not believed.
    for _ in 0..1000 {
        if pid == init {
            return true;
        }
        if pid <= 1 {
            return false;
        }
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
        // The name may hold anything, but it ends at the last bracket; the parent is the second field after it.
        let Some(end) = stat.rfind(')') else { return false };
        let parent = stat[end + 1..].split_ascii_whitespace().nth(1);
        match parent.and_then(|it| it.parse().ok()) {
            Some(parent) => pid = parent,
            None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lead_to_proc() {
        let below = |text: &str| {
            below_proc(text.as_bytes()).map(|it| String::from_utf8_lossy(&it).into_owned())
        };
        assert_eq!(below("/proc"), Some(String::new()));
        assert_eq!(below("/proc/self/exe").as_deref(), Some("self/exe"));
        assert_eq!(below("/dev/fd/63").as_deref(), Some("self/fd/63"));
        assert_eq!(below("/dev/stderr").as_deref(), Some("self/fd/2"));
        assert_eq!(below("/process"), None);
        assert_eq!(below("/dev/null"), None);
        assert_eq!(below("proc/self"), None);
    }

    #[test]
    fn paths_below_a_root() {
        for (path, root, expected) in [
            ("/s/tree/etc/x", "/s/tree", Some("/etc/x")),
            ("/s/tree", "/s/tree", Some("")),
            ("/s/trees/x", "/s/tree", None),
            ("/etc", "/s/tree", None),
            ("/proc/1", "/", None),
            ("pipe:[1]", "/s/tree", None),
        ] {
            let found = below(path.as_bytes(), root.as_bytes());
            assert_eq!(found, expected.map(str::as_bytes), "{path} in {root}");
        }
    }

    #[test]
    fn ancestors() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(!is_below(own, own));
        assert!(is_below(own, std::os::unix::process::parent_id() as i32));
        assert!(!is_below(1, own));
    }
}
