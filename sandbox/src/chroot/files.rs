//! `/dev` and `/proc` where neither can be mounted: device nodes, and copies of what the kernel says.
//!
//! What of `/proc` depends on who asks is not here; what does not is copied when the sandbox is made, from the machine's own.

use std::ffi::CStr;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, makedev};
use rustix::io::Errno;

use super::place::new_file;
use crate::devices;

/// Files of `/proc` that programs look for, and that say nothing of other processes.
const COPIED: [&str; 36] = [
    "cpuinfo",
    "devices",
    "filesystems",
    "loadavg",
    "meminfo",
    "stat",
    "swaps",
    "uptime",
    "version",
    "vmstat",
    "net/dev",
    "net/route",
    "net/if_inet6",
    "sys/crypto/fips_enabled",
    "sys/fs/file-max",
    "sys/fs/nr_open",
    "sys/fs/pipe-max-size",
    "sys/fs/inotify/max_user_watches",
    "sys/kernel/cap_last_cap",
    "sys/kernel/hostname",
    "sys/kernel/ngroups_max",
    "sys/kernel/osrelease",
    "sys/kernel/ostype",
    "sys/kernel/overflowgid",
    "sys/kernel/overflowuid",
    "sys/kernel/pid_max",
    "sys/kernel/random/boot_id",
    "sys/kernel/random/entropy_avail",
    "sys/kernel/random/uuid",
    "sys/kernel/threads-max",
    "sys/kernel/version",
    "sys/net/core/somaxconn",
    "sys/net/ipv4/ip_local_port_range",
    "sys/vm/max_map_count",
    "sys/vm/mmap_min_addr",
    "sys/vm/overcommit_memory",
];

/// Longest file of `/proc` that is copied, in bytes.
const MAX_COPY: u64 = 4 << 20;

/// Whether a device node works that no container permits: one of an image, made with its tree, would work too. Tried in an empty
/// directory on the file system of the trees. Found out once.
pub(crate) fn any_node_works(aside: &OwnedFd) -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let works = || {
            let (kind, mode) = (FileType::CharacterDevice, Mode::RUSR | Mode::WUSR);
            rustix::fs::mknodat(aside, c"log", kind, mode, makedev(1, 11))?;
            // To write there takes no capability; nothing is written.
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat(aside, c"log", flags, Mode::empty()).map(drop)
        };
        let result = works();
        let _ = rustix::fs::unlinkat(aside, c"log", AtFlags::empty());
        result.is_ok()
    })
}

/// Fills an empty directory as `/dev`. Returns whether it has nodes; if it takes none, it has sockets in their places ([`nodes`](super::nodes)).
pub(crate) fn fill_dev(dev: &OwnedFd) -> rustix::io::Result<bool> {
    let has_nodes = takes_nodes(dev)?;
    for (name, major, minor) in devices::NODES {
        let (kind, device) = match has_nodes {
            true => (FileType::CharacterDevice, makedev(major, minor)),
            false => (FileType::Socket, 0),
        };
        devices::make_node(dev, name, kind, 0o666, device)?;
    }
    for (name, mode) in [(c"pts", 0o755), (c"shm", 0o1777), (c"mqueue", 0o1777)] {
        make_dir(dev, name, mode)?;
    }
    for (name, target) in [
        (c"ptmx", c"pts/ptmx"),
        (c"fd", c"/proc/self/fd"),
        (c"stdin", c"/proc/self/fd/0"),
        (c"stdout", c"/proc/self/fd/1"),
        (c"stderr", c"/proc/self/fd/2"),
        (c"core", c"/proc/kcore"),
    ] {
        rustix::fs::symlinkat(target, dev, name)?;
    }
    Ok(has_nodes)
}

/// Whether a device can be made in an empty directory, and opened there.
pub(crate) fn takes_nodes(dir: &OwnedFd) -> rustix::io::Result<bool> {
    let mode = Mode::RUSR | Mode::WUSR;
    let made = rustix::fs::mknodat(dir, c"null", FileType::CharacterDevice, mode, makedev(1, 3));
    match made {
        Err(Errno::PERM | Errno::ACCESS) => return Ok(false),
        made => made?,
    }
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(dir, c"null", flags, Mode::empty());
    rustix::fs::unlinkat(dir, c"null", AtFlags::empty())?;
    Ok(opened.is_ok())
}

/// Fills an empty directory as `/proc`. Returns an empty one in it, for copies that are made later.
pub(crate) fn fill_proc(proc: &OwnedFd) -> std::io::Result<OwnedFd> {
    for name in COPIED {
        let mut content = Vec::new();
        let Ok(file) = std::fs::File::open(Path::new("/proc").join(name)) else { continue };
        if file.take(MAX_COPY).read_to_end(&mut content).is_err() {
            continue;
        }
        let (above, last) = name.rsplit_once('/').unwrap_or((".", name));
        new_file(make_dirs(proc, above)?.as_fd(), last, &content, (0o444, 0, 0))?;
    }
    let own = make_dirs(proc, "self")?;
    for (name, content) in
        [("mounts", "overlay / overlay rw 0 0\n"), ("cgroup", "0::/\n"), ("loginuid", "4294967295")]
    {
        new_file(own.as_fd(), name, content.as_bytes(), (0o444, 0, 0))?;
    }
    make_dir(&own, c"fd", 0o555)?;
    rustix::fs::symlinkat(c"self/mounts", proc, c"mounts")?;
    rustix::fs::symlinkat(c"self", proc, c"thread-self")?;
    Ok(make_dirs(proc, ".copies")?)
}

fn make_dir(parent: &OwnedFd, name: &CStr, mode: u32) -> rustix::io::Result<()> {
    let mode = Mode::from_raw_mode(mode);
    rustix::fs::mkdirat(parent, name, mode)?;
    rustix::fs::chmodat(parent, name, mode, AtFlags::empty())
}

fn make_dirs(root: &OwnedFd, path: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut here = rustix::fs::openat(root, c".", flags, Mode::empty())?;
    for name in path.split('/').filter(|it| *it != ".") {
        match rustix::fs::mkdirat(&here, name, Mode::from_raw_mode(0o555)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        here = rustix::fs::openat(&here, name, flags, Mode::empty())?;
    }
    Ok(here)
}
