//! Control groups: which device nodes work, and limits on memory, processors and processes.
//!
//! Version 1, version 2 and both at once are handled alike: a controller is looked for where it is
//! mounted, and a group of our own is made below the one kiln is in, or below one that was asked for. A group is removed
//! when its last process has ended; one that a killed kiln has left behind is removed by the next.
//!
//! To join a group takes the kernel several milliseconds; to be started in it takes none. In version 2 a
//! process is started in a group ([`devices`], [`limits`]); in version 1 by a thread that is in it ([`launcher`]).

mod devices;
mod launcher;
mod limits;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub(crate) use devices::DeviceGroup;
pub(crate) use launcher::Launcher;
pub(crate) use limits::LimitGroups;

/// Prefix of the names of our groups; the process id of kiln follows.
const PREFIX: &str = "kiln-";

/// Where control groups are mounted and which group this process is in.
#[derive(Debug, Default)]
pub(crate) struct Hierarchies {
    /// Controller and the directory of our group, for version 1.
    v1: Vec<(String, PathBuf)>,
    /// Controller and where it is mounted, for version 1.
    v1_roots: Vec<(String, PathBuf)>,
    /// The directory of our group, for version 2.
    v2: Option<PathBuf>,
    /// Where version 2 is mounted.
    v2_root: Option<PathBuf>,
}

impl Hierarchies {
    /// Those of this machine; looked up once.
    pub(crate) fn get() -> &'static Self {
        static FOUND: OnceLock<Hierarchies> = OnceLock::new();
        FOUND.get_or_init(|| {
            let read = |path| fs::read_to_string(path).unwrap_or_default();
            Self::parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
        })
    }

    fn parse(mountinfo: &str, cgroup: &str) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let left: Vec<&str> = left.split(' ').collect();
            let right: Vec<&str> = right.split(' ').collect();
            let (Some(root), Some(place), Some(kind)) = (left.get(3), left.get(4), right.first())
            else {
                continue;
            };
            let own = |controller: &str| {
                let path = cgroup.lines().find_map(|line| {
                    let mut fields = line.splitn(3, ':').skip(1);
                    let has = fields.next()?.split(',').any(|it| it == controller);
                    fields.next().filter(|_| has)
                })?;
                let below = path.strip_prefix(root.trim_end_matches('/')).unwrap_or(path);
                Some(Path::new(place).join(below.trim_start_matches('/')))
            };
            match *kind {
                "cgroup2" if found.v2.is_none() => {
                    found.v2 = own("");
                    found.v2_root = Some(PathBuf::from(place));
                }
                "cgroup" => {
                    for controller in right.last().unwrap_or(&"").split(',') {
                        let is_new = found.v1.iter().all(|(known, _)| known != controller);
                        if let Some(path) = own(controller).filter(|_| is_new) {
                            found.v1.push((controller.to_owned(), path));
                            found.v1_roots.push((controller.to_owned(), PathBuf::from(place)));
                        }
                    }
                }
                _ => {}
            }
        }
        found
    }

    fn v1(&self, controller: &str) -> Option<&Path> {
        self.v1.iter().find(|(name, _)| name == controller).map(|(_, path)| path.as_path())
    }

    fn v1_root(&self, controller: &str) -> Option<&Path> {
        self.v1_roots.iter().find(|(name, _)| name == controller).map(|(_, path)| path.as_path())
    }

    /// Whether `/sys/fs/cgroup` is version 2 and nothing else.
    pub(crate) fn is_unified(&self) -> bool {
        self.v1.is_empty() && self.v2.is_some()
    }

    /// How `kiln info` names what is there.
    pub(crate) fn version(&self) -> &'static str {
        match (self.v1.is_empty(), &self.v2) {
            (true, None) => "none",
            (true, Some(_)) => "2",
            (false, None) => "1",
            (false, Some(_)) => "hybrid",
        }
    }
}

/// Ends what this process keeps for its next sandbox. To be called when no more are to come.
pub fn release() {
    launcher::release();
}

/// Removes groups that a kiln which was killed has left, in all hierarchies. One that is in use cannot be removed.
pub fn remove_stale() {
    let found = Hierarchies::get();
    let all = found.v1.iter().map(|(_, path)| path).chain(&found.v2);
    all.for_each(|above| remove_stale_below(above));
}

fn remove_stale_below(above: &Path) {
    for entry in fs::read_dir(above).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|it| it.strip_prefix(PREFIX)) else { continue };
        let pid = rest.split('-').next().unwrap_or_default();
        if pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists() {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// Removes a group. The kernel lets go of an ended process a moment after it was waited for.
fn remove(group: &Path) {
    for _ in 0..50 {
        match fs::remove_dir(group) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            _ => break,
        }
    }
}

/// The number after a word, in a file that counts.
fn count(file: &Path, word: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let numbers = text.lines().filter_map(|line| line.strip_prefix(word)?.trim().parse().ok());
    numbers.into_iter().next().unwrap_or(0)
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_groups_of_both_versions() {
        let mountinfo = "\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw
36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices
32 31 0:29 /box /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
        let cgroup = "5:devices:/\n2:cpu,cpuacct:/box/one\n0::/user.slice/a\n";
        let found = Hierarchies::parse(mountinfo, cgroup);
        assert_eq!(found.v1("devices"), Some(Path::new("/sys/fs/cgroup/devices/")));
        assert_eq!(found.v1("cpu"), Some(Path::new("/sys/fs/cgroup/cpu,cpuacct/one")));
        assert_eq!(found.v2, Some(PathBuf::from("/sys/fs/cgroup/unified/user.slice/a")));
        assert_eq!(found.version(), "hybrid");

        let unified =
            Hierarchies::parse("30 24 0:26 / /sys/fs/cgroup rw - cgroup2 x rw\n", "0::/\n");
        assert!(unified.is_unified());
        assert_eq!(Hierarchies::parse("", "").version(), "none");
    }
}
