//! The mounts of a description: checked, ordered, and made ready to be attached.

use std::ffi::{CStr, CString, OsStr};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, makedev};
use rustix::mount::MountAttrFlags;

use crate::devices;
use crate::error::SandboxError;
use crate::inside::{self, Components, HERE};
use crate::notify::Record;
use crate::overlay::{self, Layer, Layers};
use crate::program::{Attach, What};
use crate::spec::{Access, Mount, Source, Spec};
use crate::stubs::Place;
use crate::sys::mount_attr;
use crate::userns;

/// All mounts of a sandbox besides the standard ones.
pub(crate) struct Plan {
    /// What must exist in the root.
    pub(crate) places: Vec<Place>,
    /// The content of files that are kept in memory.
    pub(crate) staging: Option<OwnedFd>,
    /// In the order in which they are attached.
    pub(crate) mounts: Vec<Attach>,
    /// The targets of `mounts`, and whether they are directories.
    paths: Vec<(Components, bool)>,
    pub(crate) mounts_in_dev: Vec<Attach>,
}

/// A file system in memory that files are taken from one by one.
#[derive(Default)]
struct Staging {
    mount: Option<OwnedFd>,
    n_files: usize,
}

impl Staging {
    fn mount(&mut self) -> rustix::io::Result<&OwnedFd> {
        if self.mount.is_none() {
            let attrs = MountAttrFlags::MOUNT_ATTR_NOSUID;
            self.mount = Some(overlay::tmpfs(None, 0o700, attrs)?);
        }
        self.mount.as_ref().ok_or(rustix::io::Errno::INVAL)
    }

    fn name(&mut self) -> CString {
        self.n_files += 1;
        CString::new(format!("{}", self.n_files)).unwrap_or_default()
    }

    fn add_file(&mut self, content: &[u8], mode: u32, owner: (u32, u32)) -> std::io::Result<What> {
        let name = self.name();
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.mount()?, &name, flags, Mode::from_raw_mode(0o600))?;
        let mut file = std::fs::File::from(file);
        file.write_all(content)?;
        if userns::has_one_id() {
            let record = Record { uid: owner.0, gid: owner.1, device: None };
            match record.set_on(file.as_fd()) {
                // Memory takes attributes of users since Linux 6.6 only.
                Err(rustix::io::Errno::NOTSUP) => {}
                result => result?,
            }
        } else {
            std::os::unix::fs::fchown(&file, Some(owner.0), Some(owner.1))?;
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777))?;
        Ok(What::Staged(name))
    }

    /// A device node by itself: a new one, or where none can be made, the machine's.
    fn add_node(&mut self, name: &CStr, major: u32, minor: u32) -> rustix::io::Result<What> {
        if userns::is_inside() {
            let path = Path::new("/dev").join(OsStr::from_bytes(name.to_bytes()));
            return overlay::clone_tree(HERE, path, false).map(What::Mount);
        }
        let name = self.name();
        let device = makedev(major, minor);
        devices::make_node(self.mount()?, &name, FileType::CharacterDevice, 0o666, device)?;
        Ok(What::Staged(name))
    }
}

const SHM: &str = "/dev/shm";

/// How large `/dev/shm` is, in bytes: as a mount of the caller's says, or as the description does.
pub(crate) fn shm_size(spec: &Spec) -> Option<u64> {
    let own = spec.mounts.iter().rev().find_map(|mount| match mount {
        Mount::Tmpfs { target, size, .. } if target == Path::new(SHM) => Some(*size),
        _ => None,
    });
    own.unwrap_or(Some(spec.shm_size.unwrap_or(64 << 20)))
}

/// Makes all mounts ready. With `no_devices`, device nodes work on none of them but the standard
/// ones, each of which is a mount of its own.
pub(crate) fn plan(spec: &Spec, no_devices: bool) -> Result<Plan, SandboxError> {
    let mut plan = Plan {
        places: vec![],
        staging: None,
        mounts: vec![],
        paths: vec![],
        mounts_in_dev: vec![],
    };
    let mut staging = Staging::default();
    for path in ["/dev", "/proc", "/sys"] {
        plan.places.push(Place {
            path: inside::components(Path::new(path)),
            is_dir: true,
            mask: true,
        });
    }
    let read_only_file =
        mount_attr::RDONLY | mount_attr::NOSUID | mount_attr::NODEV | mount_attr::NOEXEC;
    for (path, content) in [("/etc/hosts", &spec.hosts), ("/etc/resolv.conf", &spec.resolv_conf)] {
        let Some(content) = content else { continue };
        let path = inside::components(Path::new(path));
        let what = staging
            .add_file(content, 0o644, (0, 0))
            .map_err(|error| SandboxError::path("prepare", inside::display(&path), error))?;
        plan.push(Place { path, is_dir: false, mask: true }, what, read_only_file, false)?;
    }

    let mut mounts: Vec<(Components, &Mount)> = spec
        .mounts
        .iter()
        .map(|mount| Ok((target(mount.target())?, mount)))
        .collect::<Result<_, SandboxError>>()?;
    // Outer ones first; in the given order where that is not the question.
    mounts.sort_by_key(|(path, _)| path.len());
    for (path, mount) in mounts {
        let shown = inside::display(&path);
        let place = |is_dir| Place { path: path.clone(), is_dir, mask: false };
        let failed = |error: std::io::Error| SandboxError::path("prepare the mount", &shown, error);
        match mount {
            // It takes the place of the standard one, see `shm_size`.
            Mount::Tmpfs { target, .. } if target == Path::new(SHM) => {}
            Mount::Tmpfs { size, mode, .. } => {
                let attrs = MountAttrFlags::MOUNT_ATTR_NOSUID
                    | MountAttrFlags::MOUNT_ATTR_NODEV
                    | MountAttrFlags::MOUNT_ATTR_NOEXEC;
                let tmpfs =
                    overlay::tmpfs(*size, *mode, attrs).map_err(|errno| failed(errno.into()))?;
                plan.push(place(true), What::Mount(tmpfs), 0, false)?;
            }
            Mount::Moved { .. } => {
                return Err(refuse(&shown, "where there are mounts, nothing is moved"));
            }
            Mount::File { content, mode, uid, gid, .. } => {
                let what = staging.add_file(content, *mode, (*uid, *gid)).map_err(failed)?;
                // A script may be run, a secret may not.
                let attrs = match mode & 0o111 {
                    0 => read_only_file,
                    _ => read_only_file & !mount_attr::NOEXEC,
                };
                plan.push(place(false), what, attrs, false)?;
            }
            Mount::Bind { source, access, .. } => {
                let (what, is_dir) = bind(source, access)?;
                let mut attrs = if no_devices { mount_attr::NODEV } else { 0 };
                if matches!(access, Access::ReadOnly) {
                    attrs |= mount_attr::RDONLY;
                }
                let is_recursive = matches!((source, &what), (Source::Host(_), What::Mount(_)));
                plan.push(place(is_dir), what, attrs, is_recursive)?;
            }
        }
    }
    if no_devices {
        for (name, major, minor) in devices::NODES {
            let what = staging
                .add_node(name, major, minor)
                .map_err(|errno| SandboxError::setup("make device nodes", errno))?;
            let path = vec![b"dev".to_vec(), name.to_bytes().to_vec()];
            plan.push(Place { path, is_dir: false, mask: false }, what, 0, false)?;
        }
    }
    plan.staging = staging.mount;
    Ok(plan)
}

impl Plan {
    fn push(
        &mut self,
        place: Place,
        what: What,
        attrs: u64,
        recursive: bool,
    ) -> Result<(), SandboxError> {
        let target = inside::join(&place.path)
            .map_err(|_| refuse(&inside::display(&place.path), "it contains a zero byte"))?;
        let is_in_dev = place.path.first().is_some_and(|it| it == b"dev");
        let inside = if is_in_dev { None } else { self.outer(&place.path) };
        let is_dir = place.is_dir;
        let attach = Attach { what, cut_out: None, target, inside, is_dir, attrs, recursive };
        if is_in_dev {
            self.mounts_in_dev.push(attach);
        } else {
            self.paths.push((place.path.clone(), is_dir));
            self.mounts.push(attach);
        }
        self.places.push(place);
        Ok(())
    }

    /// The innermost mount that a path is in, and the path inside of it.
    fn outer(&self, path: &[Vec<u8>]) -> Option<(usize, CString)> {
        let is_outer = |(outer, is_dir): &(Components, bool)| {
            *is_dir && outer.len() < path.len() && path.starts_with(outer)
        };
        let found = self.paths.iter().enumerate().filter(|(_, it)| is_outer(it));
        let (index, (outer, _)) = found.max_by_key(|(_, (outer, _))| outer.len())?;
        Some((index, inside::join(&path[outer.len()..]).ok()?))
    }
}

/// Checks a target and takes it apart.
pub(crate) fn target(path: &Path) -> Result<Components, SandboxError> {
    if !path.is_absolute() {
        return Err(refuse(path, "it is not absolute"));
    }
    let parts = inside::components(path);
    match parts.first().map(Vec::as_slice) {
        None => Err(refuse(path, "nothing can be mounted over the root")),
        Some(b"proc" | b"sys") => Err(refuse(path, "nothing can be mounted over /proc or /sys")),
        Some(b"dev") if parts.len() == 1 => Err(refuse(path, "nothing can be mounted over /dev")),
        Some(_) => Ok(parts),
    }
}

fn refuse(path: &Path, reason: &'static str) -> SandboxError {
    SandboxError::Invalid { what: "mount target", value: path.display().to_string(), reason }
}

/// Makes a bind mount ready; says whether it is a directory.
fn bind(source: &Source, access: &Access) -> Result<(What, bool), SandboxError> {
    let (lower, path): (&[PathBuf], &Path) = match (source, access) {
        (Source::Host(path), Access::ReadOnly | Access::ReadWrite) => {
            let failed = |errno| SandboxError::path("mount", path, errno);
            let mount = overlay::clone_tree(HERE, path.as_path(), true).map_err(failed)?;
            let is_dir = is_dir(&mount).map_err(failed)?;
            return Ok((What::Mount(mount), is_dir));
        }
        (Source::Host(path), Access::Discard { .. }) => {
            (std::slice::from_ref(path), Path::new("/"))
        }
        (Source::Tree { lower, path }, _) => (lower, path),
    };
    let lower = overlay::distinct(lower);
    let parts = inside::components(path);
    if lower.is_empty() {
        return Err(SandboxError::path("mount", path, rustix::io::Errno::NOENT));
    }
    if let ([tree], Access::ReadOnly | Access::ReadWrite) = (lower.as_slice(), access) {
        let failed =
            |errno| SandboxError::path("mount", tree.join(inside::relative(&parts)), errno);
        let root = inside::open_dir(tree).map_err(failed)?;
        let path = inside::join(&parts).map_err(failed)?;
        let place = inside::open(root.as_fd(), path.as_c_str()).map_err(failed)?;
        let mount = overlay::clone_tree(place.as_fd(), c"", false).map_err(failed)?;
        let is_dir = is_dir(&mount).map_err(failed)?;
        return Ok((What::Mount(mount), is_dir));
    }
    let upper = match access {
        Access::Discard { upper, work } => Some((upper.as_path(), work.as_path())),
        Access::ReadOnly => None,
        Access::ReadWrite => {
            return Err(refuse(path, "a tree of several layers cannot be written to"));
        }
    };
    let layers = Layers { lower: lower.into_iter().map(Layer::Path).collect(), upper };
    let mount = overlay::overlay(&layers, MountAttrFlags::empty())?;
    if parts.is_empty() {
        return Ok((What::Mount(mount), true));
    }
    let failed = |errno| SandboxError::path("mount", path, errno);
    let path = inside::join(&parts).map_err(failed)?;
    let place = inside::open(mount.as_fd(), path.as_c_str()).map_err(failed)?;
    let is_dir = is_dir(&place).map_err(failed)?;
    drop(place);
    Ok((What::Part { mount, path }, is_dir))
}

fn is_dir(place: &OwnedFd) -> rustix::io::Result<bool> {
    Ok(inside::file_type(place.as_fd())? == FileType::Directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        for path in ["/a", "/a/b/../c", "/dev/x", "/processes", "/a/proc"] {
            assert!(target(Path::new(path)).is_ok(), "{path}");
        }
        for path in [
            "",
            "a",
            "./a",
            "/",
            "/..",
            "/a/..",
            "/proc",
            "/proc/self",
            "/x/../proc/1",
            "/sys",
            "/dev",
            "/sys/fs",
        ] {
            assert!(target(Path::new(path)).is_err(), "{path}");
        }
    }
}
