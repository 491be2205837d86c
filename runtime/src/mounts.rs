//! What is mounted into a container besides its root: its own files, paths of the host, volumes, memory.
//!
//! A volume of the image starts with what the image has in its place. It is not copied: the volume is an overlay of its own over the
//! same layers, of which one folder is shown.

use std::{
    fs,
    io::ErrorKind,
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

use image::view::View;
use sandbox::{Access, Mount, Source};

use crate::{container::Container, error::RuntimeError, files, request::RunRequest};

/// Makes all mounts of a container ready.
///
/// `volumes` are the paths that the image says are volumes; `lower` are its unpacked layers and `view` is what they make together.
pub(crate) fn all<'a>(
    container: &Container,
    request: &'a RunRequest,
    volumes: impl Iterator<Item = &'a Path>,
    lower: &[PathBuf],
    view: &View,
) -> Result<Vec<Mount>, RuntimeError> {
    let mut mounts = Vec::new();
    for bind in &request.binds {
        let source =
            std::path::absolute(&bind.source).map_err(RuntimeError::io("find", &bind.source))?;
        if bind.create {
            create_missing(&source)?;
        }
        let access = if bind.read_only { Access::ReadOnly } else { Access::ReadWrite };
        mounts.push(Mount::Bind {
            source: Source::Host(source),
            target: clean(&bind.target),
            access,
        });
    }
    for tmpfs in &request.tmpfs {
        mounts.push(Mount::Tmpfs {
            target: clean(&tmpfs.target),
            size: tmpfs.size,
            mode: tmpfs.mode,
        });
    }
    let is_taken = |mounts: &[Mount], target: &Path| mounts.iter().any(|it| it.target() == target);
    let volumes = request.volumes.iter().map(PathBuf::as_path).chain(volumes);
    for (volume_idx, path) in volumes.enumerate() {
        let target = clean(path);
        if !is_taken(&mounts, &target) {
            mounts.extend(volume(container, volume_idx, target, lower, view)?);
        }
    }
    for name in files::NAMES {
        let target = Path::new("/etc").join(name);
        if !is_taken(&mounts, &target) {
            let lower = vec![container.folder().to_owned()];
            let access = if request.read_only { Access::ReadOnly } else { Access::ReadWrite };
            let source = Source::Tree { lower, path: PathBuf::from(name) };
            mounts.push(Mount::Bind { source, target, access });
        }
    }
    Ok(mounts)
}

fn volume(
    container: &Container,
    volume_idx: usize,
    target: PathBuf,
    lower: &[PathBuf],
    view: &View,
) -> Result<Option<Mount>, RuntimeError> {
    // A path behind a link that leads nowhere is left to the sandbox, which names it.
    let path = view.resolve(target.as_os_str().as_bytes(), true).unwrap_or_default();
    let make = |name: &str| container.make(&format!("volumes/{volume_idx}/{name}"));
    let (source, access) = match view.lookup(&path) {
        Some(node) if node.is_folder() => {
            let path = PathBuf::from(std::ffi::OsStr::from_bytes(&path));
            let access = Access::Discard { upper: make("upper")?, work: make("work")? };
            (Source::Tree { lower: lower.to_vec(), path }, access)
        }
        // A file cannot be a volume; it stays what it is.
        Some(_) => return Ok(None),
        None => {
            let lower = vec![make("data")?];
            (Source::Tree { lower, path: PathBuf::from("/") }, Access::ReadWrite)
        }
    };
    Ok(Some(Mount::Bind { source, target, access }))
}

/// What docker does for `-v`: a source that is not there becomes a folder.
fn create_missing(source: &Path) -> Result<(), RuntimeError> {
    match fs::metadata(source) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            fs::create_dir_all(source).map_err(RuntimeError::io("create", source))
        }
        _ => Ok(()),
    }
}

/// The same path in one form. `..` is taken by the letter, as docker does with the targets of mounts.
fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => drop(out.pop()),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_one_form() {
        for (path, expected) in
            [("/a/", "/a"), ("/a/./b//c", "/a/b/c"), ("/../a/../b", "/b"), ("/", "/"), ("/..", "/")]
        {
            assert_eq!(clean(Path::new(path)), Path::new(expected), "{path}");
        }
    }
}
