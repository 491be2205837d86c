//! Control groups: which device nodes work, and limits on memory, processors and processes.
//!
//! Version 1, version 2 and both at once are handled alike: a controller is looked for where it is
//! mounted, a group of our own is made below the one kiln is in, and the set-up process joins it by
//! writing to a handle it inherits. A group is removed when its last process has ended; one that a
//! killed kiln has left behind is removed by the next.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use crate::error::SandboxError;
use crate::spec::CgroupLimits;
use crate::sys;

/// Prefix of the names of our groups; the process id of kiln follows.
const PREFIX: &str = "kiln-";

/// Device nodes that work in a sandbox, as rules of the version 1 controller: all may be made, and
/// these be opened: null, zero, full, random, urandom, tty, ptmx, and terminals.
const DEVICE_RULES: [&str; 11] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:1 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

/// Where control groups are mounted and which group this process is in.
#[derive(Debug, Default)]
pub(crate) struct Hierarchies {
    /// Controller and the directory of our group, for version 1.
    v1: Vec<(String, PathBuf)>,
    /// The directory of our group, for version 2.
    v2: Option<PathBuf>,
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
                "cgroup2" if found.v2.is_none() => found.v2 = own(""),
                "cgroup" => {
                    for controller in right.last().unwrap_or(&"").split(',') {
                        let is_new = found.v1.iter().all(|(known, _)| known != controller);
                        if let Some(path) = own(controller).filter(|_| is_new) {
                            found.v1.push((controller.to_owned(), path));
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

/// The group that decides about device nodes, shared by all sandboxes of this process.
#[derive(Debug)]
pub(crate) struct DeviceGroup {
    /// The directory of a version 2 group, for a process to be started in.
    pub(crate) start_in: Option<OwnedFd>,
    /// The file by which a process joins.
    pub(crate) join: Option<OwnedFd>,
    dir: PathBuf,
}

/// Number of sandboxes in the group, which exists while there are any.
static IN_DEVICE_GROUP: Mutex<usize> = Mutex::new(0);

impl DeviceGroup {
    /// Makes the group if it is not there; `None` if this machine has no such controller or does
    /// not let us use it.
    ///
    /// Version 2 comes first: a process can be started in such a group, while joining one means
    /// waiting for every processor of the machine, which takes milliseconds.
    pub(crate) fn enter() -> Option<Self> {
        let found = Hierarchies::get();
        let mut count = IN_DEVICE_GROUP.lock().unwrap_or_else(|it| it.into_inner());
        let is_first = *count == 0;
        let enter = |above: &Path, is_v2: bool| -> std::io::Result<Self> {
            let dir = above.join(format!("{PREFIX}{}", std::process::id()));
            if is_first {
                make_device_group(above, &dir, is_v2)?;
            }
            let join = OpenOptions::new().write(true).open(dir.join("cgroup.procs"))?;
            let start_in = if is_v2 { Some(File::open(&dir)?.into()) } else { None };
            Ok(Self { start_in, join: Some(join.into()), dir })
        };
        let v2 = found.v2.as_deref().and_then(|above| enter(above, true).ok());
        let group = v2.or_else(|| enter(found.v1("devices")?, false).ok())?;
        *count += 1;
        Some(group)
    }
}

impl Drop for DeviceGroup {
    fn drop(&mut self) {
        let mut count = IN_DEVICE_GROUP.lock().unwrap_or_else(|it| it.into_inner());
        *count -= 1;
        if *count == 0 {
            let _ = fs::remove_dir(&self.dir);
        }
    }
}

fn make_device_group(above: &Path, group: &Path, is_v2: bool) -> std::io::Result<()> {
    static IS_TIDIED: AtomicBool = AtomicBool::new(false);
    if !IS_TIDIED.swap(true, Ordering::Relaxed) {
        remove_stale(above);
    }
    match fs::create_dir(group) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let set = || {
        if is_v2 {
            sys::attach_device_program(File::open(group)?.as_fd(), device_program()?.as_fd())?;
            return Ok(());
        }
        write(&group.join("devices.deny"), "a")?;
        let mut allow = OpenOptions::new().write(true).open(group.join("devices.allow"))?;
        DEVICE_RULES.iter().try_for_each(|rule| allow.write_all(rule.as_bytes()))
    };
    set().inspect_err(|_| {
        let _ = fs::remove_dir(group);
    })
}

/// The rules of [`DEVICE_RULES`] as a program, loaded once.
fn device_program() -> rustix::io::Result<&'static OwnedFd> {
    static LOADED: OnceLock<rustix::io::Result<OwnedFd>> = OnceLock::new();
    LOADED
        .get_or_init(|| sys::load_device_program(&device_instructions()))
        .as_ref()
        .map_err(|it| *it)
}

/// In the machine language of the kernel: the context in register 1 has the access (high half) and
/// type (low half) of a node, its major and its minor number; the result in register 0 is 1 to allow.
fn device_instructions() -> Vec<u64> {
    const DENY: i16 = i16::MAX;
    const ALLOW: i16 = i16::MAX - 1;
    const JUMP_IF_EQUAL: u8 = 0x15;
    const JUMP_IF_NOT: u8 = 0x55;
    let instruction = |code: u8, to: u8, from: u8, offset: i16, value: i32| {
        let [o0, o1] = offset.to_le_bytes();
        let [v0, v1, v2, v3] = value.to_le_bytes();
        [code, from << 4 | to, o0, o1, v0, v1, v2, v3]
    };
    let load = |to, offset| instruction(0x61, to, 1, offset, 0);
    let mut code = vec![
        load(2, 0),
        load(3, 4),
        load(4, 8),
        instruction(0xbf, 5, 2, 0, 0),                // access := both
        instruction(0x77, 5, 0, 0, 16),               // access := access >> 16
        instruction(0x57, 2, 0, 0, 0xffff),           // type := type & 0xffff
        instruction(JUMP_IF_EQUAL, 5, 0, ALLOW, 1),   // making a node
        instruction(JUMP_IF_NOT, 2, 0, DENY, 2),      // not a character device
        instruction(JUMP_IF_EQUAL, 3, 0, ALLOW, 136), // terminals
    ];
    let minors_of_5 = [0, 1, 2];
    let minors_of_1 = [3, 5, 7, 8, 9];
    code.push(instruction(JUMP_IF_NOT, 3, 0, minors_of_5.len() as i16 + 1, 5));
    code.extend(minors_of_5.map(|minor| instruction(JUMP_IF_EQUAL, 4, 0, ALLOW, minor)));
    code.push(instruction(0x05, 0, 0, DENY, 0));
    code.push(instruction(JUMP_IF_NOT, 3, 0, DENY, 1));
    code.extend(minors_of_1.map(|minor| instruction(JUMP_IF_EQUAL, 4, 0, ALLOW, minor)));
    let deny_at = code.len() as i16;
    code.push(instruction(0xb7, 0, 0, 0, 0));
    code.push(instruction(0x95, 0, 0, 0, 0));
    code.push(instruction(0xb7, 0, 0, 0, 1));
    code.push(instruction(0x95, 0, 0, 0, 0));
    // Jumps count from the next instruction.
    for (index, it) in code.iter_mut().enumerate() {
        let target = match i16::from_le_bytes([it[2], it[3]]) {
            DENY => deny_at,
            ALLOW => deny_at + 2,
            _ => continue,
        };
        [it[2], it[3]] = (target - index as i16 - 1).to_le_bytes();
    }
    code.into_iter().map(u64::from_ne_bytes).collect()
}

/// Removes groups that a kiln which was killed has left. One that is in use cannot be removed.
fn remove_stale(above: &Path) {
    for entry in fs::read_dir(above).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|it| it.strip_prefix(PREFIX)) else { continue };
        let pid = rest.split('-').next().unwrap_or_default();
        if pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists() {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}

/// Groups that limit one sandbox.
#[derive(Debug, Default)]
pub(crate) struct LimitGroups {
    dirs: Vec<PathBuf>,
    /// The file that counts processes killed for lack of memory.
    oom_file: Option<PathBuf>,
}

impl LimitGroups {
    /// Makes groups with these limits. Returns them, the files to join them, and one line for each
    /// limit that this machine cannot enforce.
    pub(crate) fn make(
        limits: &CgroupLimits,
    ) -> Result<(Self, Vec<OwnedFd>, Vec<String>), SandboxError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut groups = Self::default();
        let (mut files, mut notes) = (Vec::new(), Vec::new());
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        for (controller, settings) in settings(limits) {
            match groups.enter(&name, controller, &settings) {
                Ok(Some(file)) => files.push(file),
                Ok(None) => {}
                Err(Refused::Absent) => notes.push(format!(
                    "the {controller} limit is not enforced: the machine offers no `{controller}` controller here"
                )),
                Err(Refused::Forbidden) => notes.push(format!(
                    "the {controller} limit is not enforced: this user may not make control groups (systemd can delegate them: `systemd-run --user --scope -p Delegate=yes kiln …`)"
                )),
                Err(Refused::Failed(path, source)) => {
                    return Err(SandboxError::Path { action: "set the limit", path, source });
                }
            }
        }
        Ok((groups, files, notes))
    }

    fn enter(
        &mut self,
        name: &str,
        controller: &'static str,
        settings: &[Setting],
    ) -> Result<Option<OwnedFd>, Refused> {
        let hierarchies = Hierarchies::get();
        let (dir, is_v2) = match (hierarchies.v1(controller), &hierarchies.v2) {
            (Some(above), _) => (above.join(name), false),
            (None, Some(above)) => {
                let offered =
                    fs::read_to_string(above.join("cgroup.controllers")).unwrap_or_default();
                if !offered.split_whitespace().any(|it| it == controller) {
                    return Err(Refused::Absent);
                }
                // Fails where kiln's own group has processes; then only children of the root can.
                let _ = write(&above.join("cgroup.subtree_control"), &format!("+{controller}"));
                (above.join(name), true)
            }
            (None, None) => return Err(Refused::Absent),
        };
        let is_new = !self.dirs.contains(&dir);
        if is_new {
            fs::create_dir(&dir).map_err(|error| match error.kind() {
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Refused::Forbidden,
                _ => Refused::Failed(dir.clone(), error),
            })?;
            self.dirs.push(dir.clone());
        }
        for setting in settings {
            let (file, value) = if is_v2 { &setting.v2 } else { &setting.v1 };
            let path = dir.join(file);
            if is_v2 && !path.exists() {
                return Err(Refused::Absent);
            }
            match write(&path, value) {
                Ok(()) => {}
                Err(_) if setting.is_optional => {}
                Err(error) => return Err(Refused::Failed(path, error)),
            }
        }
        if controller == "memory" {
            let file = if is_v2 { "memory.events" } else { "memory.oom_control" };
            self.oom_file = Some(dir.join(file));
        }
        if !is_new {
            return Ok(None);
        }
        let procs = dir.join("cgroup.procs");
        match File::options().write(true).open(&procs) {
            Ok(file) => Ok(Some(file.into())),
            Err(error) => Err(Refused::Failed(procs, error)),
        }
    }

    /// Whether a process was killed for lack of memory.
    pub(crate) fn had_oom_kill(&self) -> bool {
        let text = self.oom_file.as_ref().and_then(|path| fs::read_to_string(path).ok());
        text.unwrap_or_default()
            .lines()
            .any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0"))
    }
}

impl Drop for LimitGroups {
    fn drop(&mut self) {
        for dir in &self.dirs {
            // The kernel lets go of an ended process's group a moment after it was waited for.
            for _ in 0..50 {
                match fs::remove_dir(dir) {
                    Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                        std::thread::sleep(std::time::Duration::from_millis(1));
                    }
                    _ => break,
                }
            }
        }
    }
}

enum Refused {
    /// The machine does not offer the controller.
    Absent,
    /// It does not let us use it.
    Forbidden,
    /// It offers it, and something went wrong.
    Failed(PathBuf, std::io::Error),
}

/// One value to write, by version: file and text.
struct Setting {
    v1: (&'static str, String),
    v2: (&'static str, String),
    /// Whether the file may be missing (swap accounting can be compiled out).
    is_optional: bool,
}

fn settings(limits: &CgroupLimits) -> Vec<(&'static str, Vec<Setting>)> {
    let mut out = Vec::new();
    let one = |v1: (&'static str, String), v2: (&'static str, String)| Setting {
        v1,
        v2,
        is_optional: false,
    };
    if let Some(memory) = limits.memory {
        let mut memory_settings = vec![one(
            ("memory.limit_in_bytes", memory.to_string()),
            ("memory.max", memory.to_string()),
        )];
        // Version 1 counts memory and swap together, version 2 swap alone.
        let swap = limits.memory_swap.unwrap_or(memory.saturating_mul(2));
        memory_settings.push(Setting {
            v1: ("memory.memsw.limit_in_bytes", swap.max(memory).to_string()),
            v2: ("memory.swap.max", swap.saturating_sub(memory).to_string()),
            is_optional: true,
        });
        out.push(("memory", memory_settings));
    }
    if let Some(cpus) = limits.cpus {
        const PERIOD: u64 = 100_000;
        let quota = ((cpus * PERIOD as f64) as u64).max(1000);
        out.push((
            "cpu",
            vec![
                one(
                    ("cpu.cfs_period_us", PERIOD.to_string()),
                    ("cpu.max", format!("{quota} {PERIOD}")),
                ),
                one(
                    ("cpu.cfs_quota_us", quota.to_string()),
                    ("cpu.max", format!("{quota} {PERIOD}")),
                ),
            ],
        ));
    }
    if let Some(pids) = limits.pids {
        out.push((
            "pids",
            vec![one(("pids.max", pids.to_string()), ("pids.max", pids.to_string()))],
        ));
    }
    out
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

    #[test]
    fn no_limits_no_groups() {
        assert!(CgroupLimits::default().is_empty());
        assert!(settings(&CgroupLimits::default()).is_empty());
    }
}
