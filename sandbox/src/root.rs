//! The root of a sandbox, with a place for everything that will be mounted in it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use crate::child::CleanUp;
use crate::error::SandboxError;
use crate::inside::{self, HERE};
use crate::overlay::{self, Layer, Layers};
use crate::spec::Root;
use crate::stubs::{self, InPlace, Place, Stub};
use crate::sys;

/// Makes the mount of a root and the places in it.
pub(crate) fn make(
    root: &Root,
    attrs: MountAttrFlags,
    places: &[Place],
    clean_up: &mut CleanUp,
) -> Result<OwnedFd, SandboxError> {
    let (lower, upper, work) = match root {
        Root::Directory(dir) | Root::Copy { tree: dir, .. } => {
            return directory(dir, attrs, places, clean_up);
        }
        Root::Overlay { lower, upper, work } => (lower, Some(upper.as_path()), work.as_path()),
        Root::ReadOnly { lower, work } => (lower, None, work.as_path()),
    };
    clean_up.work = Some(work.to_owned());
    let lower = overlay::distinct(lower);
    let lower = lower.as_slice();
    // The handle on the whole must live as long as those on its parts, or they lose their mount.
    let (_memory, stub_layer, empty) = layers_in_memory()?;
    let stubs = {
        let view = view(lower, upper, empty.as_fd())?;
        let stubs = missing(view.as_fd(), places)?;
        fill(view.as_fd(), stub_layer.as_fd(), &stubs)?;
        stubs
    };
    let mut layers = Layers { lower: paths(lower), upper: upper.map(|upper| (upper, work)) };
    let in_memory = [Layer::Handle(stub_layer.as_fd()), Layer::Handle(empty.as_fd())];
    complete(&mut layers, in_memory, !stubs.is_empty());
    let error = match overlay::overlay(&layers, attrs) {
        Err(error) if !stubs.is_empty() || lower.is_empty() => error,
        result => return result,
    };

    // Before Linux 6.15 a layer must be in the mount table, so these go to the disk.
    let [stub_path, empty_path, inner] = ["stubs", "empty", "work"].map(|name| work.join(name));
    let (Ok(stub_layer), Ok(empty)) = (on_disk(&stub_path), on_disk(&empty_path)) else {
        return Err(error);
    };
    {
        let view = view(lower, upper, empty.as_fd())?;
        fill(view.as_fd(), stub_layer.as_fd(), &stubs)?;
    }
    // Not `work` itself, which may not contain a layer.
    match on_disk(&inner) {
        // Overlayfs makes one of this name in the directory it is given, here in the first try.
        Ok(_) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(SandboxError::path("create", &inner, errno)),
    }
    let mut layers = Layers { lower: paths(lower), upper: upper.map(|it| (it, inner.as_path())) };
    complete(&mut layers, [Layer::Path(&stub_path), Layer::Path(&empty_path)], !stubs.is_empty());
    overlay::overlay(&layers, attrs).map_err(|_| error)
}

fn paths<'a>(lower: &[&'a Path]) -> Vec<Layer<'a>> {
    lower.iter().map(|path| Layer::Path(path)).collect()
}

/// Adds the stubs on top, and an empty layer where there would be fewer than overlayfs accepts: one
/// below an upper directory, else two.
fn complete<'a>(layers: &mut Layers<'a>, [stub_layer, empty]: [Layer<'a>; 2], has_stubs: bool) {
    let n_needed = if layers.upper.is_some() { 1 } else { 2 };
    if has_stubs {
        layers.lower.push(stub_layer);
    }
    if layers.lower.len() < n_needed {
        layers.lower.insert(0, empty);
    }
    if layers.lower.len() < n_needed {
        layers.lower.insert(0, stub_layer);
    }
}

/// A file system in memory, and two empty directories in it that no path leads to.
fn layers_in_memory() -> Result<(OwnedFd, OwnedFd, OwnedFd), SandboxError> {
    let make = || {
        let memory = overlay::tmpfs(None, 0o755, MountAttrFlags::empty())?;
        let make = |name| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::mkdirat(&memory, name, Mode::from_raw_mode(0o755))?;
            rustix::fs::openat(&memory, name, flags, Mode::empty())
        };
        let (stubs, empty) = (make(c"stubs")?, make(c"empty")?);
        Ok((memory, stubs, empty))
    };
    make().map_err(|errno: Errno| SandboxError::setup("make a layer in memory", errno))
}

fn on_disk(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::mkdir(path, Mode::from_raw_mode(0o755))?;
    inside::open_dir(path)
}

fn fill(view: BorrowedFd<'_>, layer: BorrowedFd<'_>, stubs: &[Stub]) -> Result<(), SandboxError> {
    stubs::make_layer(view, layer, stubs)
        .map_err(|errno| SandboxError::setup("prepare mount points", errno))
}

/// The tree as it is before anything runs, to look at: for one layer the layer itself, so that the
/// most frequent case needs no second overlay.
fn view(
    lower: &[&Path],
    upper: Option<&Path>,
    empty: BorrowedFd<'_>,
) -> Result<OwnedFd, SandboxError> {
    let upper = match upper {
        Some(upper) if !is_empty(upper)? => Some(upper),
        _ => None,
    };
    let all: Vec<&Path> = lower.iter().copied().chain(upper).collect();
    match all.as_slice() {
        [] => {
            empty.try_clone_to_owned().map_err(|error| SandboxError::setup("copy a handle", error))
        }
        [one] => inside::open_dir(one).map_err(|errno| SandboxError::path("open", *one, errno)),
        _ => {
            let lower = all.into_iter().map(Layer::Path).collect();
            overlay::overlay(&Layers { lower, upper: None }, MountAttrFlags::empty())
        }
    }
}

fn is_empty(dir: &Path) -> Result<bool, SandboxError> {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) => Err(SandboxError::path("open", dir, error)),
    }
}

fn directory(
    dir: &Path,
    attrs: MountAttrFlags,
    places: &[Place],
    clean_up: &mut CleanUp,
) -> Result<OwnedFd, SandboxError> {
    let failed = |errno| SandboxError::path("mount as root", dir, errno);
    let root = overlay::clone_tree(HERE, dir, true).map_err(failed)?;
    sys::mount_setattr(root.as_fd(), false, u64::from(attrs.bits()), 0).map_err(failed)?;
    let stubs = missing(root.as_fd(), places)?;
    let in_place = clean_up.stubs.insert(InPlace::default());
    for stub in &stubs {
        in_place
            .make(root.as_fd(), stub)
            .map_err(|errno| SandboxError::path("prepare mount points in", dir, errno))?;
    }
    Ok(root)
}

fn missing(root: BorrowedFd<'_>, places: &[Place]) -> Result<Vec<Stub>, SandboxError> {
    let mut out = Vec::new();
    for (index, place) in places.iter().enumerate() {
        // A place inside another mount is made by the set-up process, when that mount is there.
        let is_inside = |outer: &Place| {
            outer.is_dir
                && outer.path.len() < place.path.len()
                && place.path.starts_with(&outer.path)
        };
        if places[..index].iter().any(is_inside) {
            continue;
        }
        let failed = |errno| match errno {
            Errno::XDEV => SandboxError::Invalid {
                what: "mount target",
                value: inside::display(&place.path).to_string_lossy().into_owned(),
                reason: "a link of the image leads it into /dev, /proc or /sys",
            },
            _ => SandboxError::path("use as a mount point", inside::display(&place.path), errno),
        };
        out.extend(stubs::missing(root, place).map_err(failed)?);
    }
    Ok(out)
}
