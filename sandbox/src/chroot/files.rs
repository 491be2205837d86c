//! `/dev` and `/proc` where neither can be mounted: device nodes, and copies of what the kernel says.
//!
//! What of `/proc` depends on who asks is not here; what does not is copied when the sandbox is made, from the machine's own.

use std::ffi::CStr;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, makedev};

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

/// Fills an empty directory as `/dev`.
pub(crate) fn fill_dev(dev: &OwnedFd) -> rustix::io::Result<()> {
    for (name, major, minor) in devices::NODES {
        let device = makedev(major, minor);
        devices::make_node(dev, name, FileType::CharacterDevice, 0o666, device)?;
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
    Ok(())
}

/// Fills an empty directory as `/proc`.
pub(crate) fn fill_proc(proc: &OwnedFd) -> std::io::Result<()> {
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
    Ok(())
}

fn make_dir(parent: &OwnedFd, name: &CStr, mode: u32) -> rustix::io::Result<()> {
    let mode = Mode::from_raw_mode(mode);
    rustix::fs::mkdirat(parent, name, mode)?;
    rustix::fs::chmodat(parent, name, mode, rustix::fs::AtFlags::empty())
}

fn make_dirs(root: &OwnedFd, path: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut here = rustix::fs::openat(root, c".", flags, Mode::empty())?;
    for name in path.split('/').filter(|it| *it != ".") {
        match rustix::fs::mkdirat(&here, name, Mode::from_raw_mode(0o555)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        here = rustix::fs::openat(&here, name, flags, Mode::empty())?;
    }
    Ok(here)
}
