//! `/dev` of a sandbox, and what is masked in `/proc` and `/sys`.

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::{AtFlags, FileType, Mode, makedev, mknodat};
use rustix::io::Result;
use rustix::mount::MountAttrFlags;

use crate::overlay;

/// The nodes every sandbox has: name, major and minor number.
pub(crate) const NODES: [(&CStr, u32, u32); 6] = [
    (c"null", 1, 3),
    (c"zero", 1, 5),
    (c"full", 1, 7),
    (c"random", 1, 8),
    (c"urandom", 1, 9),
    (c"tty", 5, 0),
];

/// Paths that show the machine more than a process should see, as Docker masks them.
pub(crate) const MASKED: [&str; 12] = [
    "proc/acpi",
    "proc/asound",
    "proc/interrupts",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/sched_debug",
    "proc/scsi",
    "proc/timer_list",
    "proc/timer_stats",
    "sys/devices/virtual/powercap",
    "sys/firmware",
];

/// The masked paths of this machine, relative to the root.
pub(crate) fn masked() -> &'static [CString] {
    static PATHS: OnceLock<Vec<CString>> = OnceLock::new();
    PATHS.get_or_init(|| {
        let cpus = std::fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
        let throttles = cpus
            .map(|cpu| cpu.path().join("thermal_throttle"))
            .filter(|path| path.exists())
            .filter_map(|path| path.strip_prefix("/").ok()?.to_str().map(str::to_owned));
        let all = MASKED.iter().map(|it| (*it).to_owned()).chain(throttles);
        all.filter_map(|path| CString::new(path).ok()).collect()
    })
}

/// Makes `/dev`, without the file systems that are mounted below it.
///
/// If `has_nodes`, the standard nodes are made in it; else it takes none, and files to mount them
/// on are made in their place. If `has_all`, it has every node that the machine has.
pub(crate) fn dev(has_nodes: bool, has_all: bool, has_console: bool) -> Result<OwnedFd> {
    let mut attrs = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    if !has_nodes {
        attrs |= MountAttrFlags::MOUNT_ATTR_NODEV;
    }
    let dev = overlay::tmpfs(Some(64 << 20), 0o755, attrs)?;
    for (name, major, minor) in NODES {
        if has_nodes {
            make_node(&dev, name, FileType::CharacterDevice, 0o666, makedev(major, minor))?;
        } else {
            make_node(&dev, name, FileType::RegularFile, 0o666, 0)?;
        }
    }
    if has_console {
        make_node(&dev, c"console", FileType::RegularFile, 0o620, 0)?;
    }
    for name in [c"pts", c"shm", c"mqueue"] {
        rustix::fs::mkdirat(&dev, name, Mode::from_raw_mode(0o755))?;
    }
    for (name, target) in [
        (c"ptmx", c"pts/ptmx"),
        (c"fd", c"/proc/self/fd"),
        (c"stdin", c"/proc/self/fd/0"),
        (c"stdout", c"/proc/self/fd/1"),
        (c"stderr", c"/proc/self/fd/2"),
        (c"core", c"/proc/kcore"),
    ] {
        rustix::fs::symlinkat(target, &dev, name)?;
    }
    if has_all {
        copy_nodes(&dev, Path::new("/dev"), Path::new(""));
    }
    Ok(dev)
}

/// Makes a node with exactly this mode, whatever our umask is.
pub(crate) fn make_node(
    dir: &OwnedFd,
    name: &CStr,
    kind: FileType,
    mode: u32,
    device: u64,
) -> Result<()> {
    let mode = Mode::from_raw_mode(mode);
    mknodat(dir, name, kind, mode, device)?;
    rustix::fs::chmodat(dir, name, mode, AtFlags::empty())
}

/// Copies the machine's device nodes, as far as possible: a node that is gone meanwhile is not
/// missed.
fn copy_nodes(dev: &OwnedFd, from: &Path, below: &Path) {
    for entry in std::fs::read_dir(from.join(below)).into_iter().flatten().flatten() {
        let path = below.join(entry.file_name());
        let Ok(metadata) = entry.metadata() else { continue };
        let kind = metadata.file_type();
        if kind.is_dir() {
            if ["pts", "shm", "mqueue"].iter().all(|name| path != Path::new(name))
                && rustix::fs::mkdirat(dev, &path, Mode::from_raw_mode(0o755)).is_ok()
            {
                copy_nodes(dev, from, &path);
            }
            continue;
        }
        let kind = if kind.is_char_device() {
            FileType::CharacterDevice
        } else if kind.is_block_device() {
            FileType::BlockDevice
        } else {
            continue;
        };
        let mode = Mode::from_raw_mode(metadata.mode() & 0o7777);
        if mknodat(dev, &path, kind, mode, metadata.rdev()).is_ok() {
            let _ = rustix::fs::chmodat(dev, &path, mode, AtFlags::empty());
            let owner = rustix::fs::Uid::from_raw(metadata.uid());
            let group = rustix::fs::Gid::from_raw(metadata.gid());
            let _ = rustix::fs::chownat(dev, &path, Some(owner), Some(group), AtFlags::empty());
        }
    }
}
