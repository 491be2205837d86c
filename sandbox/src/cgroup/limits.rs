//! Groups that limit one sandbox, and what to write into them.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::devices::attach_device_program;
use super::{Hierarchies, Launcher, PREFIX, write};
use crate::error::SandboxError;
use crate::spec::CgroupLimits;

/// Groups that limit one sandbox.
#[derive(Debug, Default)]
pub(crate) struct LimitGroups {
    dirs: Vec<PathBuf>,
    /// The group of version 2, for a process to be started in.
    pub(crate) start_in: Option<OwnedFd>,
    /// Whether that group decides about device nodes, too.
    pub(crate) has_device_rules: bool,
    /// The thread that starts the process in a group of version 1.
    pub(crate) launcher: Option<Launcher>,
    /// Whether the number of processes is limited.
    pub(crate) has_pids: bool,
    /// The file that counts processes killed for lack of memory.
    oom_file: Option<PathBuf>,
    /// The file that counts how often the limit of processes was hit.
    pids_file: Option<PathBuf>,
}

/// What [`LimitGroups::make`] made.
pub(crate) struct Made {
    pub(crate) groups: LimitGroups,
    /// The files by which a process joins.
    pub(crate) join: Vec<OwnedFd>,
    /// One line for each limit that was asked for and that this machine cannot enforce.
    pub(crate) notes: Vec<String>,
}

/// What a group below one that was asked for is made in even without a limit: those limit what is below them.
const COMMON: [&str; 3] = ["memory", "cpu", "pids"];

impl LimitGroups {
    /// Makes groups with these limits; with `has_devices` one of version 2 gets the rules of device nodes, too.
    pub(crate) fn make(limits: &CgroupLimits, has_devices: bool) -> Result<Made, SandboxError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut groups = Self::default();
        let (mut join, mut notes) = (Vec::new(), Vec::new());
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let parent = limits.parent.as_deref();
        for (controller, settings) in settings(limits) {
            let is_asked = controller != "pids" || limits.is_pids_asked || parent.is_some();
            if controller == "pids" && parent.is_none() {
                groups.launcher = limits.pids.and_then(Launcher::take);
                groups.has_pids = groups.launcher.is_some();
                if groups.has_pids {
                    continue;
                }
            }
            let refused = match groups.enter(&name, controller, &settings, parent, has_devices) {
                Ok(file) => {
                    join.extend(file);
                    groups.has_pids |= controller == "pids";
                    continue;
                }
                Err(refused) => refused,
            };
            match refused {
                Refused::Failed(path, source) if is_asked => {
                    return Err(SandboxError::Path { action: "set the limit", path, source });
                }
                _ if !is_asked || settings.is_empty() => {}
                Refused::Forbidden => notes.push(format!(
                    "the {controller} limit is not enforced: this user may not make control groups (systemd can delegate them: `systemd-run --user --scope -p Delegate=yes kiln …`)"
                )),
                _ => notes.push(format!(
                    "the {controller} limit is not enforced: the machine offers no `{controller}` controller here"
                )),
            }
        }
        Ok(Made { groups, join, notes })
    }

    /// One line for each limit that was asked for, where there are no groups to be made.
    pub(crate) fn none(limits: &CgroupLimits) -> Vec<String> {
        let asked = settings(limits).into_iter().filter(|(controller, settings)| {
            !settings.is_empty() && (*controller != "pids" || limits.is_pids_asked)
        });
        asked
            .map(|(controller, _)| {
                format!("the {controller} limit is not enforced: commands run in a chroot here")
            })
            .collect()
    }

    fn enter(
        &mut self,
        name: &str,
        controller: &'static str,
        settings: &[Setting],
        parent: Option<&Path>,
        has_devices: bool,
    ) -> Result<Option<OwnedFd>, Refused> {
        let hierarchies = Hierarchies::get();
        let (dir, is_v2) = match (hierarchies.v1(controller), &hierarchies.v2) {
            (Some(own), _) => {
                (above(own, hierarchies.v1_root(controller), parent)?.join(name), false)
            }
            (None, Some(own)) => {
                let root = hierarchies.v2_root.as_deref();
                let above = match parent {
                    Some(_) => above(own, root, parent)?,
                    None => own.clone(),
                };
                // Where kiln's own group has processes it can have no children with controllers, but the root can.
                let all = std::iter::once(above.as_path())
                    .chain(root.filter(|it| parent.is_none() && it != own));
                let offering = all.filter(|it| offers(it, controller)).find(|it| {
                    let _ = write(&it.join("cgroup.subtree_control"), &format!("+{controller}"));
                    enables(it, controller)
                });
                (offering.ok_or(Refused::Absent)?.join(name), true)
            }
            (None, None) => return Err(Refused::Absent),
        };
        let is_new = !self.dirs.contains(&dir);
        if is_new {
            fs::create_dir(&dir).map_err(|error| refused(&dir, error))?;
            self.dirs.push(dir.clone());
        }
        if controller == "cpuset" && !is_v2 {
            inherit_cpuset(&dir, hierarchies.v1_root(controller));
        }
        for setting in settings {
            let (file, value) = if is_v2 { &setting.v2 } else { &setting.v1 };
            let path = dir.join(file);
            if is_v2 && !path.exists() && !setting.is_optional {
                return Err(Refused::Absent);
            }
            match write(&path, value) {
                Ok(()) => {}
                Err(_) if setting.is_optional => {}
                Err(error) => return Err(Refused::Failed(path, error)),
            }
        }
        match controller {
            "memory" => {
                let file = if is_v2 { "memory.events" } else { "memory.oom_control" };
                self.oom_file = Some(dir.join(file));
            }
            "pids" => self.pids_file = Some(dir.join("pids.events")),
            _ => {}
        }
        if is_v2 {
            if is_new {
                let failed = |error| Refused::Failed(dir.clone(), error);
                // A process is in one group of version 2 only, so this one has to say all.
                if has_devices {
                    attach_device_program(&dir).map_err(failed)?;
                    self.has_device_rules = true;
                }
                self.start_in = Some(File::open(&dir).map_err(failed)?.into());
            }
            return Ok(None);
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

    /// The file by which a process joins the group of version 2, should it not be started there.
    pub(crate) fn join_file(&self) -> Option<OwnedFd> {
        let dir = self.dirs.iter().find(|_| self.start_in.is_some())?;
        File::options().write(true).open(dir.join("cgroup.procs")).ok().map(OwnedFd::from)
    }

    /// Whether a process was killed for lack of memory.
    pub(crate) fn had_oom_kill(&self) -> bool {
        self.oom_file.as_ref().is_some_and(|it| super::count(it, "oom_kill ") > 0)
    }

    /// Whether a process could not be started because the limit was reached.
    pub(crate) fn had_too_many_processes(&self) -> bool {
        self.launcher.as_ref().is_some_and(Launcher::was_hit)
            || self.pids_file.as_ref().is_some_and(|it| super::count(it, "max ") > 0)
    }
}

/// The group in which ours is made: kiln's own, or the one asked for, which is made if it is missing and stays.
fn above(own: &Path, root: Option<&Path>, parent: Option<&Path>) -> Result<PathBuf, Refused> {
    let Some(parent) = parent else { return Ok(own.to_owned()) };
    let relative = parent.strip_prefix("/").unwrap_or(parent);
    let path = root.unwrap_or(own).join(relative);
    fs::create_dir_all(&path).map_err(|error| refused(&path, error))?;
    Ok(path)
}

/// Gives a group what the one above it has, from the root down: nobody can join one that has no processors or no memory.
fn inherit_cpuset(group: &Path, root: Option<&Path>) {
    let Some(above) = group.parent().filter(|_| Some(group) != root) else { return };
    inherit_cpuset(above, root);
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let read = |group: &Path| fs::read_to_string(group.join(file)).unwrap_or_default();
        if read(group).trim().is_empty() {
            let _ = write(&group.join(file), read(above).trim());
        }
    }
}

fn refused(path: &Path, error: std::io::Error) -> Refused {
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Refused::Forbidden,
        _ => Refused::Failed(path.to_owned(), error),
    }
}

fn offers(group: &Path, controller: &str) -> bool {
    has_word(&group.join("cgroup.controllers"), controller)
}

fn enables(group: &Path, controller: &str) -> bool {
    has_word(&group.join("cgroup.subtree_control"), controller)
}

fn has_word(file: &Path, word: &str) -> bool {
    fs::read_to_string(file).is_ok_and(|text| text.split_whitespace().any(|it| it == word))
}

impl Drop for LimitGroups {
    fn drop(&mut self) {
        self.dirs.iter().for_each(|dir| super::remove(dir));
    }
}

#[derive(Debug)]
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

impl Setting {
    fn new(v1: &'static str, v2: &'static str, value: impl ToString) -> Self {
        let value = value.to_string();
        Self { v1: (v1, value.clone()), v2: (v2, value), is_optional: false }
    }
}

/// By controller what to write; a controller with nothing to write is joined only.
fn settings(limits: &CgroupLimits) -> Vec<(&'static str, Vec<Setting>)> {
    let mut out = Vec::new();
    if let Some(memory) = limits.memory {
        let mut memory_settings = vec![Setting::new("memory.limit_in_bytes", "memory.max", memory)];
        // Version 1 counts memory and swap together, version 2 swap alone.
        let (both, alone) = match limits.memory_swap {
            Some(u64::MAX) => ("-1".to_owned(), "max".to_owned()),
            swap => {
                let swap = swap.unwrap_or(memory.saturating_mul(2)).max(memory);
                (swap.to_string(), (swap - memory).to_string())
            }
        };
        memory_settings.push(Setting {
            v1: ("memory.memsw.limit_in_bytes", both),
            v2: ("memory.swap.max", alone),
            is_optional: true,
        });
        out.push(("memory", memory_settings));
    }
    let mut cpu = Vec::new();
    if let Some(shares) = limits.cpu_shares {
        let shares = shares.clamp(2, 262_144);
        // The range of the one on that of the other, as runc has it.
        let weight = 1 + ((shares - 2) * 9999) / 262_142;
        cpu.push(Setting {
            v1: ("cpu.shares", shares.to_string()),
            v2: ("cpu.weight", weight.to_string()),
            is_optional: false,
        });
    }
    let period = limits.cpu_period.unwrap_or(100_000);
    let quota = limits.cpus.map(|it| ((it * period as f64) as u64).max(1000)).or(limits.cpu_quota);
    if quota.is_some() || limits.cpu_period.is_some() {
        let max = quota.map_or("max".to_owned(), |it| it.to_string());
        let v2 = ("cpu.max", format!("{max} {period}"));
        let v1 = [
            Some(("cpu.cfs_period_us", period.to_string())),
            quota.map(|it| ("cpu.cfs_quota_us", it.to_string())),
        ];
        let both = v1.into_iter().flatten();
        cpu.extend(both.map(|v1| Setting { v1, v2: v2.clone(), is_optional: false }));
    }
    if !cpu.is_empty() {
        out.push(("cpu", cpu));
    }
    let cpuset: Vec<Setting> =
        [("cpuset.cpus", &limits.cpuset_cpus), ("cpuset.mems", &limits.cpuset_mems)]
            .into_iter()
            .filter_map(|(file, value)| Some(Setting::new(file, file, value.as_ref()?)))
            .collect();
    if !cpuset.is_empty() {
        out.push(("cpuset", cpuset));
    }
    if let Some(pids) = limits.pids {
        out.push(("pids", vec![Setting::new("pids.max", "pids.max", pids)]));
    }
    if limits.parent.is_some() {
        for controller in COMMON {
            if out.iter().all(|(known, _)| *known != controller) {
                out.push((controller, Vec::new()));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(limits: &CgroupLimits, is_v2: bool) -> Vec<String> {
        let all = settings(limits).into_iter().flat_map(|(_, settings)| settings);
        all.map(|it| if is_v2 { it.v2 } else { it.v1 })
            .map(|(file, value)| format!("{file}={value}"))
            .collect()
    }

    #[test]
    fn what_is_written() {
        assert!(settings(&CgroupLimits::default()).is_empty());
        let limits = CgroupLimits {
            memory: Some(1000),
            memory_swap: Some(1500),
            cpus: Some(1.5),
            cpu_shares: Some(1024),
            pids: Some(7),
            cpuset_cpus: Some("0-1".to_owned()),
            ..CgroupLimits::default()
        };
        assert_eq!(
            written(&limits, false),
            [
                "memory.limit_in_bytes=1000",
                "memory.memsw.limit_in_bytes=1500",
                "cpu.shares=1024",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=150000",
                "cpuset.cpus=0-1",
                "pids.max=7",
            ]
        );
        assert_eq!(
            written(&limits, true),
            [
                "memory.max=1000",
                "memory.swap.max=500",
                "cpu.weight=39",
                "cpu.max=150000 100000",
                "cpu.max=150000 100000",
                "cpuset.cpus=0-1",
                "pids.max=7",
            ]
        );
        let limits = CgroupLimits {
            memory: Some(1000),
            memory_swap: Some(u64::MAX),
            cpu_period: Some(50_000),
            ..CgroupLimits::default()
        };
        assert_eq!(
            written(&limits, false),
            [
                "memory.limit_in_bytes=1000",
                "memory.memsw.limit_in_bytes=-1",
                "cpu.cfs_period_us=50000"
            ]
        );
        assert_eq!(
            written(&limits, true),
            ["memory.max=1000", "memory.swap.max=max", "cpu.max=max 50000"]
        );
        let limits = CgroupLimits { parent: Some("/ci".into()), ..CgroupLimits::default() };
        let joined: Vec<_> = settings(&limits).into_iter().map(|(name, _)| name).collect();
        assert_eq!(joined, COMMON);
    }
}
