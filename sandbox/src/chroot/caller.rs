//! A process that asks about `/proc`: its path, who it is, and this thread in its place.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

use rustix::fs::{Gid, Uid};
use rustix::io::{Errno, Result};

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
    pub(super) fn path(&mut self, tid: u32, address: u64) -> Option<Vec<u8>> {
        self.read(tid, address).or_else(|| {
            // It may be somebody else than who asked last.
            self.become_caller(tid)?;
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

    /// Writes memory of a process, all of it or with an error.
    pub(super) fn write_memory(&self, tid: u32, address: u64, bytes: &[u8]) -> Result<()> {
        if !self.by_file {
            return notify::write_memory(tid, address, bytes);
        }
        self.overwrite(tid, address, bytes)
    }

    /// The same for memory that the process itself cannot write, such as its constants.
    pub(super) fn overwrite(&self, tid: u32, address: u64, bytes: &[u8]) -> Result<()> {
        let write = || {
            let memory = OpenOptions::new().write(true).open(format!("/proc/{tid}/mem"))?;
            memory.write_all_at(bytes, address)
        };
        write().map_err(|_| Errno::FAULT)
    }

    /// Gives this thread the user and the groups of another. Returns process and thread, or nothing if that fails.
    pub(super) fn become_caller(&mut self, tid: u32) -> Option<(i32, i32)> {
        let status = std::fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
        let field = |name: &str| {
            let line = status.lines().find_map(|it| it.strip_prefix(name))?;
            Some(line.split_whitespace().filter_map(|it| it.parse().ok()).collect::<Vec<u32>>())
        };
        let (uid, gid, groups) = (field("Uid:")?, field("Gid:")?, field("Groups:")?);
        let process = i32::try_from(*field("Tgid:")?.first()?).ok()?;
        let wanted = Identity {
            uid: [*uid.first()?, *uid.get(1)?],
            gid: [*gid.first()?, *gid.get(1)?],
            groups,
        };
        if self.own.as_ref() != Some(&wanted) {
            self.own = None;
            become_identity(&wanted).ok()?;
            self.own = Some(wanted);
        }
        Some((process, i32::try_from(tid).ok()?))
    }

    /// The root of a process, as this one sees it.
    pub(super) fn root(&self, tid: u32) -> Option<Vec<u8>> {
        let link = std::fs::read_link(format!("/proc/{tid}/root")).ok()?;
        Some(link.into_os_string().into_encoded_bytes())
    }
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
    fn ancestors() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(!is_below(own, own));
        assert!(is_below(own, std::os::unix::process::parent_id() as i32));
        assert!(!is_below(1, own));
    }
}
